"""How many steps to a loss, by runs that are kept."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from optzoo.compare.keep.kept import Kept
from optzoo.compare.plan.until import FIRST_SEED, Until, lengths
from optzoo.compare.work.sweep import Sweep, takes_any_length
from optzoo.compare.work.until import Answer, re_run, read_off


def answer(
    until: Until, kept: Kept, rates: Sequence[float], seeds: Sequence[int]
) -> tuple[dict[str, Any], int]:
    """Answers `until` for one optimizer on one problem.

    Args:
      until: the question.
      kept: the runs that tuned it.
      rates: the learning rates among them.
      seeds: the seeds among them.

    Returns:
      The answer as the store keeps it, and how many runs it took now.
    """
    sweep = kept.sweep
    means = kept.losses(rates, seeds)[..., :-1].mean(axis=1)
    tests = range(FIRST_SEED, FIRST_SEED + until.seeds)
    found: Answer[float]
    if sweep.contestant.planned:
        runs = _OfAnyLength(kept)

        def tune(some: Sequence[float], length: int) -> np.ndarray:
            return runs.losses(some, seeds, length)[..., 0].mean(axis=1)

        def test(rate: float, length: int) -> np.ndarray:
            return runs.losses([rate], tests, length)[0, :, 1]

        found = re_run(until, rates, means[:, -1], sweep.steps, tune, test)
        computed = runs.computed
    else:
        problem = sweep.problem

        def on_test(params: Any, split: str) -> dict[str, Any]:
            return problem.evaluate(params, "test")

        tested = replace(problem, evaluate=on_test, observe=None)
        marks = lengths(sweep.steps).tolist()
        along = Kept(kept.store, Sweep(tested, sweep.contestant, sweep.steps, marks=marks))

        def read(rate: float) -> np.ndarray:
            return along.losses([rate], tests)[0, :, :-1]

        found = read_off(until, rates, sweep.marks, means, sweep.steps, read)
        computed = along.computed
    told = {
        "learning_rate": found.trial,
        "trials": len(rates),
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
        self._problem = replace(sweep.problem, observe=None)
        self._told = takes_any_length(self._problem, self._contestant)
        self._all = dict[int, Kept]()

    @property
    def computed(self) -> int:
        return sum(kept.computed for kept in self._all.values())

    def losses(self, rates: Sequence[float], seeds: Sequence[int], length: int) -> np.ndarray:
        """Validation and test losses after the last step, shape (rates, seeds, 2)."""
        steps = self._steps if self._told else length
        if steps not in self._all:
            sweep = Sweep(self._problem, self._contestant, steps, marks=[steps], told=self._told)
            self._all[steps] = Kept(self._store, sweep)
        return self._all[steps].losses(rates, seeds, length if self._told else None)
