"""What a run was worth, and which differences between optimizers are more than chance."""

from collections.abc import Mapping, Sequence
from math import comb
from string import ascii_letters
from typing import Any

import numpy as np

TINY = 1e-12
# One for each group of ties: the alphabet, and more letters than any comparison needs.
LETTERS = ascii_letters + "".join(map(chr, range(0x100, 0x250)))
USABLE = 0.9


def run_metrics(
    losses: Sequence[float], checkpoints: Sequence[int] | np.ndarray, target: float
) -> dict[str, Any]:
    """The numbers that sum up one validation curve.

    Args:
      losses: validation loss at each checkpoint.
      checkpoints: the step counts of the checkpoints.
      target: the loss at which the problem counts as solved.

    Returns:
      `validation_loss` after the last step, `best_validation_loss` and `mean_validation_loss` over
      the checkpoints, `steps_to_target` (NaN where it is never reached), and `diverged`: the run
      ended at no finite loss, or above the one it started from.
    """
    values = np.asarray(losses, float)
    reached = np.flatnonzero(values <= target)
    finite = values[np.isfinite(values)]
    return {
        "validation_loss": values[-1],
        "best_validation_loss": finite.min() if finite.size else np.nan,
        "mean_validation_loss": values.mean(),
        "steps_to_target": float(checkpoints[reached[0]]) if reached.size else np.nan,
        "diverged": not values[-1] <= values[0],
    }


def ranks(samples: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Ranks with ties: one more than the number of competitors that are clearly better.

    A competitor is clearly better if its mean loss is lower by more than twice the standard error
    of the difference. Positive losses are compared as logarithms, since they span decades. A loss
    that is not finite ranks below every finite one.

    Args:
      samples: name -> losses, one a seed.
    """
    positive = all((losses >= 0).all() for losses in samples.values() if np.isfinite(losses).all())
    moments = {}
    for name, losses in samples.items():
        if not np.isfinite(losses).all():
            moments[name] = (np.inf, 0.0)
            continue
        values = np.log(np.maximum(losses, TINY)) if positive else losses
        error = values.var(ddof=1) / len(values) if len(values) > 1 else 0.0
        moments[name] = (float(values.mean()), float(error))

    def clearly_better(a: tuple[float, float], b: tuple[float, float]) -> bool:
        if not np.isfinite(a[0]):
            return False
        return b[0] - a[0] > 2 * (a[1] + b[1]) ** 0.5

    return {
        name: 1 + sum(clearly_better(other, mine) for other in moments.values())
        for name, mine in moments.items()
    }


def usable(start: float, finals: Sequence[float]) -> int:
    """How many learning rates come within a tenth of the best one's progress from the start."""
    shares = start - np.asarray(finals, float)
    best = shares[np.isfinite(shares)].max(initial=0.0)
    return int((shares >= USABLE * best).sum()) if best > 0 else 0


def progress(losses: np.ndarray, start: float, lowest: float, target: float) -> np.ndarray:
    """How much of the way from the start was made: 0 at the start or diverged, 1 at the end of it.

    The way ends at the lowest loss that anybody reached, or at a tenth of the target if that is
    higher, since nobody cares for the difference. Positive losses count as logarithms.

    Args:
      losses: any shape.
      start: the loss before training.
      lowest: the lowest loss that anybody reached.
      target: the loss at which the problem counts as solved.
    """
    values, end = np.asarray(losses, float), lowest
    if lowest >= 0 and start > 0 and target > 0:
        end = float(np.log(max(lowest, target / 10)))
        values, start = np.log(np.maximum(values, TINY)), float(np.log(start))
    share = (start - values) / max(start - end, TINY)
    return np.clip(np.where(np.isfinite(values), share, 0.0), 0.0, 1.0)


def expected_best(choice: np.ndarray, worth: np.ndarray) -> np.ndarray:
    """What to expect of the best of k random trials, for every k.

    Args:
      choice: what decides which trial is the best, lowest first, one a trial.
      worth: what each trial is then worth.

    Returns:
      For k = 1, 2, ... the expectation over all ways to draw k different trials.
    """
    order = np.argsort(np.asarray(choice, float), kind="stable")
    values, count = np.asarray(worth, float)[order], len(order)
    # The i-th best wins if it is drawn and the other k - 1 come from those behind it.
    return np.array(
        [
            sum(values[i] * comb(count - 1 - i, k - 1) for i in range(count)) / comb(count, k)
            for k in range(1, count + 1)
        ]
    )


def best_so_far(choice: np.ndarray, worth: np.ndarray) -> np.ndarray:
    """What the best of the first k trials is worth, for every k; see `expected_best`."""
    firsts = [int(np.argmin(choice[:count])) for count in range(1, len(choice) + 1)]
    return np.asarray(worth, float)[firsts]


def profile(spent: Mapping[str, np.ndarray], factors: np.ndarray) -> dict[str, np.ndarray]:
    """Dolan and Moré's performance profiles.

    Args:
      spent: name -> gradients up to the target, one an instance; NaN where it was never reached.
      factors: multiples of the fewest gradients that anybody spent.

    Returns:
      name -> the share of instances that it solved within each factor.
    """
    table = np.array([np.where(np.isnan(values), np.inf, values) for values in spent.values()])
    fewest = np.maximum(table.min(axis=0), 1.0)
    # Nobody's time over nobody's time is nobody's success.
    ratios = np.divide(table, fewest, out=np.full(table.shape, np.inf), where=np.isfinite(table))
    shares = (ratios[:, None, :] <= factors[None, :, None]).mean(axis=2)
    return dict(zip(spent, shares, strict=True))


def bootstrap(
    problems: Sequence[Mapping[str, tuple[np.ndarray, np.ndarray]]], resamples: int = 1000
) -> dict[str, np.ndarray]:
    """Mean ranks over the problems, as they come out when the seeds are drawn anew.

    In each resample every optimizer's learning rate is chosen anew, by the validation losses of
    the seeds drawn, and the test losses of the same seeds are ranked; so the spread includes the
    luck of the choice. Losses that are not finite are infinitely bad.

    Args:
      problems: for each problem, name -> validation and test losses, each of shape (rates, seeds).
      resamples: how many times to draw.

    Returns:
      name -> its mean ranks over the problems that it took part in, shape (resamples,).
    """
    rng = np.random.default_rng(0)
    collected: dict[str, list[np.ndarray]] = {}
    for samples in problems:
        seeds = next(iter(samples.values()))[0].shape[1]
        drawn = rng.integers(seeds, size=(resamples, seeds))
        tests = np.stack([_tests(*losses, drawn) for losses in samples.values()])
        better = (tests[None, :] < tests[:, None]).sum(axis=1)
        equal = (tests[None, :] == tests[:, None]).sum(axis=1)
        for name, placed in zip(samples, better + (equal + 1) / 2, strict=True):
            collected.setdefault(name, []).append(placed)
    return {name: np.mean(placed, axis=0) for name, placed in collected.items()}


def letters(apart: np.ndarray) -> list[str]:
    """A compact letter display: two competitors share a letter unless they are told apart.

    Each letter stands for a largest group of which no two are told apart, as in Piepho 2004, by
    inserting every difference into the groups and absorbing those that others contain.

    Args:
      apart: which competitors are told apart, best first; symmetric, shape (competitors,) * 2.

    Returns:
      The letters of each competitor; the first one has "a".
    """
    groups = {frozenset(range(len(apart)))}
    for pair in np.argwhere(np.triu(apart)):
        split = {group for group in groups if group.issuperset(pair)}
        parts = {group - {one} for group in split for one in pair}
        groups -= split
        groups |= {part for part in parts if not any(part < other for other in groups | parts)}
    ordered = sorted(map(sorted, groups))
    return [
        "".join(letter for letter, group in zip(LETTERS, ordered, strict=False) if one in group)
        for one in range(len(apart))
    ]


def _tests(validation: np.ndarray, test: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """The test loss of each resample, at the rate that its validation losses choose."""
    bad = ~np.isfinite(test)
    positive = bool((test[~bad] >= 0).all())
    scale = np.log(np.maximum(test, TINY)) if positive else test
    scale = np.where(bad, np.inf, scale)
    means = np.where(np.isfinite(validation), validation, np.inf)[:, drawn].mean(axis=2)
    best = means.argmin(axis=0)
    return scale[best[:, None], drawn].mean(axis=1)
