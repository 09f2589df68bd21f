"""How many steps to a loss: the question, and the statistics of its answer."""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import stats

from optzoo.compare.errors import UserError
from optzoo.compare.plan.select import whole

# Lengths are told apart by this share of the problem's steps.
LENGTHS = 100
# What is tested of a rule that every length takes runs of its own, around the expected length.
AROUND = (0.5, 0.65, 0.8, 0.9, 0.95, 1.0, 1.03, 1.06, 1.12, 1.25, 1.5)
# Seeds from here on test; a comparison's own, from 0, have tuned.
FIRST_SEED = 1 << 20


@dataclass(frozen=True)
class Until:
    """The smallest number of steps after which the mean test loss is below a target.

    Two things are kept apart, so that no choice flatters its outcome. *Tuning* is the comparison
    itself: all trials, its seeds, the validation split. It chooses one trial, and guesses the
    length. *Testing* trains that trial alone, on seeds that tuning never saw, and looks at the test
    split.

    Every length is tested by Student's one-sided t-test over the seeds, with the hypothesis that
    the mean loss is the target or more. The lengths come in an order that tuning has fixed, from
    half more than it expects downwards, and the first one that fails ends the sequence; so all that
    passed hold together at the confidence, with nothing to pay for their number. The smallest of
    them is the answer. The same from below, by the opposite test, gives the largest length that is
    too short. Where the mean falls as training goes on, it crosses the target between these two:
    each end is missed with a probability of at most 1 - confidence, both together, as an interval,
    with twice that.

    A rule whose mean over the tuning seeds never falls below the target is tested at the longest
    run all the same; it has no number of steps, and its loss there is what is reported. A run that
    diverges counts as infinitely bad, so that no length passes with one. The t-test takes the means
    of a few seeds as normal, and a seed is a start and an order of the data: it says nothing of
    other data. Losses without any spread are compared as they are.

    Attributes:
      target: the loss to get below.
      confidence: of each one-sided test, from a half to below 1.
      seeds: how many test.
    """

    target: float
    confidence: float = 0.95
    seeds: int = 8

    @classmethod
    def asked(cls, target: float | None, confidence: float, seeds: int) -> "Until | None":
        """What a user asked for; None without a target.

        Raises:
          UserError: for a target that is no number, a confidence outside [0.5, 1), or a single
            seed.
        """
        if target is None:
            return None
        if not (isinstance(target, int | float) and math.isfinite(target)):
            raise UserError(f"until must be a loss, a number, not {target!r}")
        if not (isinstance(confidence, int | float) and 0.5 <= confidence < 1):
            raise UserError(f"confidence must be a number from 0.5 to below 1, not {confidence!r}")
        if whole("test seeds", seeds) < 2:
            raise UserError("test seeds must be at least 2: one alone has no spread to test with")
        return cls(float(target), float(confidence), seeds)

    def mean(self, losses: np.ndarray) -> tuple[float, float, float]:
        """The mean over the seeds and its one-sided bounds, each at the confidence.

        All infinite where a loss is not finite.
        """
        if not np.isfinite(losses).all():
            return math.inf, math.inf, math.inf
        mean, error = float(losses.mean()), float(losses.std(ddof=1)) / len(losses) ** 0.5
        margin = error * _quantile(self.confidence, len(losses) - 1)
        return mean, mean - margin, mean + margin

    def is_below(self, losses: np.ndarray) -> bool:
        """Whether the mean loss is shown to be below the target."""
        return self.mean(losses)[2] < self.target

    def is_above(self, losses: np.ndarray) -> bool:
        """Whether the mean loss is shown to be the target or above."""
        return self.mean(losses)[1] > self.target


@cache
def _quantile(confidence: float, freedom: int) -> float:
    """Of Student's distribution."""
    return float(stats.t.ppf(confidence, freedom))


def lengths(steps: int) -> np.ndarray:
    """The lengths of runs that are told apart, in rising order, `steps` the last."""
    return np.unique(np.ceil(steps * np.arange(1, LENGTHS + 1) / LENGTHS)).astype(np.int32)


def below(means: np.ndarray, target: float) -> np.ndarray:
    """For every row of means, the first place below the target; the number of columns if none."""
    reached = np.asarray(means) < target
    return np.where(reached.any(axis=1), reached.argmax(axis=1), reached.shape[1])
