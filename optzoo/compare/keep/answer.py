"""How many steps to a loss, by runs that are kept."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from optzoo.compare.keep.kept import Kept
from optzoo.compare.plan.tuners import Trial
from optzoo.compare.plan.until import FIRST_SEED, Until, lengths
from optzoo.compare.work.sweep import Sweep, takes_any_length
from optzoo.compare.work.until import Answer, re_run, read_off


def answer(
    until: Until, kept: Kept, trials: Sequence[Trial], seeds: Sequence[int]
) -> tuple[dict[str, Any], int]:
    """Answers `until` for one optimizer on one problem.

    Args:
      until: the question.
      kept: the runs that tuned it.
      trials: what was tried with them.
      seeds: the seeds among them.

    Returns:
      The answer as the store keeps it, and how many runs it took now.
    """
    sweep = kept.sweep
    means = kept.losses(trials, seeds)[..., :-1].mean(axis=1)
    tests = range(FIRST_SEED, FIRST_SEED + until.seeds)
    found: Answer[Trial]
    if sweep.contestant.planned:
        runs = _OfAnyLength(kept)

        def tune(some: Sequence[Trial], length: int) -> np.ndarray:
            return runs.losses(some, seeds, length)[..., 0].mean(axis=1)

        def test(trial: Trial, length: int) -> np.ndarray:
            return runs.losses([trial], tests, length)[0, :, 1]

        found = re_run(until, trials, means[:, -1], sweep.steps, tune, test)
        computed = runs.computed
    else:
        problem = sweep.problem

        def on_test(params: Any, split: str) -> dict[str, Any]:
            return problem.evaluate(params, "test")

        tested = replace(problem, evaluate=on_test, observe=None)
        marks = lengths(sweep.steps).tolist()
        along = Kept(
            kept.store,
            Sweep(tested, sweep.contestant, sweep.steps, tuned=sweep.tuned, marks=marks),
        )

        def read(trial: Trial) -> np.ndarray:
            return along.losses([trial], tests)[0, :, :-1]

        found = read_off(until, trials, sweep.marks, means, sweep.steps, read)
        computed = along.computed
    told = {
        "learning_rate": found.trial.rate,
        "options": dict(found.trial.options),
        "trials": len(trials),
        "re_run": sweep.contestant.planned,
        "steps": found.steps,
        "short": found.short,
        "losses": {str(length): losses for length, losses in found.losses.items()},
    }
    return told, computed


class _OfAnyLength:
    """Runs of any length: by one program that is told it, or by a program for each."""

    def __init__(self, kept: Kept) -> None:
        sweep = kept.sweep
        self._store, self._contestant, self._steps = kept.store, sweep.contestant, sweep.steps
        self._tuned = sweep.tuned
        self._problem = replace(sweep.problem, observe=None)
        self._told = takes_any_length(self._problem, self._contestant)
        self._all = dict[int, Kept]()

    @property
    def computed(self) -> int:
        return sum(kept.computed for kept in self._all.values())

    def losses(self, trials: Sequence[Trial], seeds: Sequence[int], length: int) -> np.ndarray:
        """Validation and test losses after the last step, shape (trials, seeds, 2)."""
        steps = self._steps if self._told else length
        if steps not in self._all:
            sweep = Sweep(
                self._problem,
                self._contestant,
                steps,
                tuned=self._tuned,
                marks=[steps],
                told=self._told,
            )
            self._all[steps] = Kept(self._store, sweep)
        return self._all[steps].losses(trials, seeds, length if self._told else None)
