"""What a run was worth, and which differences between optimizers are more than chance."""

from collections.abc import Mapping, Sequence

import numpy as np

TINY = 1e-12
USABLE = 0.9


def run_metrics(losses: Sequence[float], checkpoints: Sequence[int], target: float) -> dict:
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
    progress = start - np.asarray(finals, float)
    best = progress[np.isfinite(progress)].max(initial=0.0)
    return int((progress >= USABLE * best).sum()) if best > 0 else 0
