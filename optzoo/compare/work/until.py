"""How many steps to a loss: which runs to make, and when enough is known."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from optzoo.compare.plan.until import AROUND, Until, below, lengths

T = TypeVar("T")


@dataclass(frozen=True)
class Answer(Generic[T]):
    """What came out.

    Attributes:
      trial: the one that tuning chose.
      steps: the smallest length whose mean is shown to be below the target; None where none is.
      short: the largest length that is shown to be too short; 0 where none is.
      losses: length -> the test loss of every test seed after as many steps, as far as tested.
    """

    trial: T
    steps: int | None
    short: int
    losses: dict[int, list[float]]


def read_off(
    until: Until,
    trials: Sequence[T],
    marks: np.ndarray,
    means: np.ndarray,
    steps: int,
    test: Callable[[T], np.ndarray],
) -> Answer[T]:
    """The answer for a rule that does not know its end: a run of `steps` holds all shorter ones.

    Args:
      until: the question.
      trials: what tuning tried.
      marks: the step counts at which it looked.
      means: the mean validation losses of every trial there, shape (trials, marks).
      steps: the longest run.
      test: trial -> test losses at every one of `lengths(steps)`, shape (seeds, lengths).
    """
    bounded = np.where(np.isfinite(means), means, np.inf)
    places = below(bounded, until.target)
    # Who gets there first; of several the lowest there, and of those who never do the last loss.
    heights = bounded[np.arange(len(trials)), np.minimum(places, len(marks) - 1)]
    best = int(np.lexsort((heights, places))[0])
    every = lengths(steps)
    if places[best] < len(marks):
        candidates = every[every <= _times(int(marks[places[best]]), AROUND[-1], every)]
    else:
        candidates = every[-1:]
    at = dict(zip(every.tolist(), test(trials[best]).T, strict=True))
    return _judged(until, trials[best], candidates, at.__getitem__)


def re_run(
    until: Until,
    trials: Sequence[T],
    means: np.ndarray,
    steps: int,
    tune: Callable[[Sequence[T], int], np.ndarray],
    test: Callable[[T, int], np.ndarray],
) -> Answer[T]:
    """The answer for a rule that plans to its end, which takes runs of its own at every length.

    Tuning halves the lengths between which its best trial crosses the target, and tunes again at
    the length that it finds; it goes on from there while another trial turns out the best.

    Args:
      until: the question.
      trials: what tuning tried.
      means: their mean validation losses after `steps` steps.
      steps: the longest run.
      tune: some trials, a length -> their mean validation losses after as many steps.
      test: a trial, a length -> the test loss of every test seed.
    """
    every = lengths(steps)

    def is_enough(trial: T, place: int) -> bool:
        return bool(tune([trial], int(every[place]))[0] < until.target)

    best, place = _lowest(means), len(every) - 1
    reached = means[best] < until.target
    while reached:
        short, enough = -1, place
        while enough - short > 1:
            middle = (short + enough) // 2
            short, enough = (short, middle) if is_enough(trials[best], middle) else (middle, enough)
        if enough == place:
            break
        place = enough
        again = _lowest(tune(trials, int(every[place])))
        if again == best:
            break
        best = again
    candidates = every[-1:]
    if reached:
        candidates = np.unique([_times(int(every[place]), factor, every) for factor in AROUND])
    return _judged(until, trials[best], candidates, lambda length: test(trials[best], length))


def _times(length: int, factor: float, every: np.ndarray) -> int:
    """The length of the list that is nearest to a multiple of one."""
    return int(every[np.abs(every - factor * length).argmin()])


def _lowest(means: np.ndarray) -> int:
    return int(np.where(np.isfinite(means), means, np.inf).argmin())


def _judged(
    until: Until, trial: T, candidates: np.ndarray, test: Callable[[int], np.ndarray]
) -> Answer[T]:
    """Tests lengths from the longest down and from the shortest up, each way until one fails.

    Args:
      until: the question.
      trial: what was trained.
      candidates: lengths, in rising order.
      test: a length -> the test loss of every seed.
    """
    losses: dict[int, np.ndarray] = {}

    def at(length: int) -> np.ndarray:
        if length not in losses:
            losses[length] = test(length)
        return losses[length]

    steps: int | None = None
    for length in map(int, candidates[::-1]):
        if not until.is_below(at(length)):
            break
        steps = length
    short = 0
    for length in map(int, candidates):
        if not until.is_above(at(length)):
            break
        short = length
    kept = {length: losses[length].tolist() for length in sorted(losses)}
    return Answer(trial, steps, short, kept)
