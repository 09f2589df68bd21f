"""Bringing what a comparison asks of one optimizer on one problem into the store."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import numpy as np

import optzoo
from optzoo.compare import machine
from optzoo.compare.errors import UserError
from optzoo.compare.keep.answer import answer
from optzoo.compare.keep.kept import Kept
from optzoo.compare.keep.store import Chosen, Run, Store
from optzoo.compare.machine import agree
from optzoo.compare.plan.contestants import Contestant, paced
from optzoo.compare.plan.tuners import Trial, Tuner
from optzoo.compare.plan.until import Until
from optzoo.compare.work.sweep import Sweep
from optzoo.plugins import one_line
from optzoo.problems import Problem


class Asked(NamedTuple):
    """What a comparison asks of every pair.

    Attributes:
      tuner: what to try.
      seeds: with which seeds.
      steps: gradients of a run; None for the problem's own number.
      norms: whether to record the norms of the gradients.
      until: what to answer besides.
    """

    tuner: Tuner
    seeds: Sequence[int]
    steps: int | None
    norms: bool
    until: Until | None


class Fill:
    """Brings the runs of one optimizer on one problem into the store."""

    def __init__(
        self,
        store: Store,
        asked: Asked,
        problem: Problem,
        contestant: Contestant,
        rule: str,
        task: str,
    ) -> None:
        self.store, self.asked, self.rule, self.task = store, asked, rule, task
        steps = asked.steps or problem.steps
        if contestant.refines:
            taken = int(paced([steps], contestant.gradients(problem))[0])
            contestant = replace(contestant, norms=self._recorded(contestant.refines, taken))
        tuned = asked.tuner.tuned(contestant)
        self.sweep = Sweep(problem, contestant, steps, norms=asked.norms, tuned=tuned)
        self.kept = Kept(store, self.sweep)

    def __call__(self) -> tuple[int, int]:
        """Computes what is missing; returns how many runs that took, and how many it spared."""
        try:
            return self._fill()
        except UserError:
            raise
        except Exception as error:
            where = f"optimizer {self.rule!r} on {self.task!r}"
            raise UserError(f"{where}: {one_line(error)}") from error

    def _recorded(self, rule: str, steps: int) -> optzoo.GradientNorms:
        """The norms that an earlier comparison recorded of a rule here, at its best rate."""
        found = np.full((2, steps), np.nan)
        for grid in self.store.earlier(self.task, rule):
            by_rate: dict[float, list[Run]] = {}
            for run in self.store.find(grid.program, grid.trials, self.asked.seeds):
                if len(run.curves.get("gradient_l2", ())) == steps:
                    by_rate.setdefault(run.rate, []).append(run)
            if by_rate:
                best = by_rate[min(by_rate, key=lambda rate: _mean_loss(by_rate[rate]))]
                rows = [[run.curves[f"gradient_{kind}"] for run in best] for kind in ("l1", "l2")]
                found = np.mean(np.asarray(rows, float), axis=1)
                break
        l1, l2 = agree(found)
        if np.isnan(l1).any():
            raise UserError(
                f"{self.rule!r} on {self.task!r} needs the gradient norms of {rule!r} over "
                f"{steps} steps: record them first, with --record norms and the same --out, "
                "--steps and --seeds"
            )
        return optzoo.GradientNorms(l1, l2, l1[:, None], l2[:, None])

    def measure(self) -> None:
        """Times a step, with nothing else going on, after new runs or where a stop prevented it."""
        program = self.sweep.fingerprint
        timed = agree(np.asarray(bool(self.store.costs(program))))
        if self.kept.computed or not timed:
            first = self.asked.tuner.propose(self.sweep.contestant, [], [])
            seconds = self.sweep.seconds_per_step(list(product(first, self.asked.seeds)))
            self.store.save_cost(program, machine.device(), seconds)

    def _fill(self) -> tuple[int, int]:
        tuner, seeds, _, _, until = self.asked
        contestant, tried, losses = self.sweep.contestant, list[Trial](), list[float]()
        while trials := tuner.propose(contestant, tried, losses):
            tried += trials
            means = self.kept.losses(trials, seeds)[..., -2].mean(axis=1)
            losses += np.where(np.isnan(means), np.inf, means).tolist()
        program, default = self.sweep.fingerprint, contestant.default_rate
        costs = self.sweep.state_ratio, self.sweep.gradients
        self.store.choose(Chosen(self.task, self.rule, program, default, tried, *costs))
        computed, reused = self.kept.computed, len(tried) * len(seeds) - self.kept.computed
        if until:
            found, more = answer(until, self.kept, tried, seeds)
            self.store.answer(self.task, self.rule, found)
            computed += more
        return computed, reused


def _mean_loss(runs: Sequence[Run]) -> float:
    """The mean final validation loss; divergence is infinitely bad."""
    mean = np.mean([run.curves["loss"][-1] for run in runs])
    return float(mean) if np.isfinite(mean) else np.inf
