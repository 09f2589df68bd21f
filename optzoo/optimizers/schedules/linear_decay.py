"""Linear decay, and its refinement by the gradient norms of a finished run."""

import jax
import jax.numpy as jnp
import numpy as np

from optzoo.primitives.base import Count, LearningRate, Positive, Schedule, at, checked, real
from optzoo.primitives.recording import GradientNorms
from optzoo.primitives.schedules import FALLS
from optzoo.registry import schedule as registered

of_the_paper = registered(
    title="Optimal Linear Decay Learning Rate Schedules and Further Refinements",
    authors=("Aaron Defazio", "Ashok Cutkosky", "Harsh Mehta", "Konstantin Mishchenko"),
    year=2023,
    arxiv="2310.07831",
    code="https://github.com/facebookresearch/adaptive_scheduling",
)


@of_the_paper
@checked
def linear_decay(learning_rate: LearningRate, total_steps: Count) -> Schedule:
    """Straight down from the largest rate to zero at the end of the run.

    Rule:
      learning_rate·(1 − k/total_steps) after k finished steps, and 0 beyond the end

    Values:
      0: learning_rate
      total_steps // 2: learning_rate/2
      total_steps: 0

    When to use:
      Runs of known length, behind any rule without a schedule of its own, with `linear_warmup`
      where the first steps are too long. Not where the run may be prolonged.

    Args:
      learning_rate: the largest rate, a number or a schedule.
      total_steps: optimizer steps of the whole run.

    Returns:
      A schedule of the number of finished steps.

    Raises:
      ValueError: for an argument out of range.

    References:
      Defazio et al. 2023, arXiv 2310.07831; the zero lies one step after the last.
    """

    def schedule(count):
        share = jnp.clip(real(jnp.asarray(count)) / total_steps, 0, 1)
        return at(learning_rate, count) * FALLS["linear"](share)

    return schedule


@of_the_paper
@checked
def refined(
    learning_rate: LearningRate,
    norms: jax.typing.ArrayLike | GradientNorms,
    *,
    power: Positive = 2.0,
    window: float = 0.1,
) -> Schedule:
    """The schedule that the gradient norms of an earlier run ask for.

    Rule:
      n = median of norms over h steps to each side, h = window·T/2 rounded down, T all steps
      w = 1/n^power;   r = Σ w of all later steps;   s = w·r
      learning_rate·s/max(s) after as many finished steps, and 0 beyond the end

    Values:
      0: learning_rate  # where norms never fall
      len(norms) - 1: 0

    When to use:
      A run that will be repeated: record the norms once, then train again with what they make.
      In a comparison the first command has --record norms, and the second, with the same --out,
      names the rule as `sgd+refined` or `adamw+refined(power=1.0)`. Not for another length, another
      model or a first run, for which there is `linear_decay`.

    Args:
      learning_rate: the largest rate, a number or a schedule; to be tuned like any other.
      norms: the norm of every step's gradient, in order: l2 for SGD, l1 for Adam's kind; see
        `optzoo.record_norms`. Or what `recorded_norms` returns, of which it takes the l1 norms
        where power is the plain number 1 and otherwise the l2 norms.
      power: 2 for SGD, 1 for Adam's kind.
      window: width of the median as a share of the run, in [0, 1]; a plain number.

    Returns:
      A schedule of the number of finished steps.

    Raises:
      ValueError: for an argument out of range, or norms that are not a row of positive numbers.

    References:
      Defazio et al. 2023, arXiv 2310.07831, algorithm 1; constant norms give linear decay.
      Before the median the run is continued as the code does: mirrored at its end.
    """
    if not 0 <= window <= 1:
        raise ValueError(f"refined: window must lie in [0, 1]; got {window!r}")
    if isinstance(norms, GradientNorms):
        norms = norms.l1 if isinstance(power, int | float) and power == 1 else norms.l2
    smooth = _smoothed(np.asarray(norms, np.float64), window)
    # Sizes relative to the least keep 32 bits from overflowing.
    weights = jnp.asarray(np.min(smooth) / smooth, float) ** power
    later = jnp.cumsum(weights[::-1])[::-1] - weights
    shape = weights * later.at[-1].set(0)
    factors = shape / jnp.max(shape)

    def schedule(count):
        step = jnp.clip(jnp.asarray(count), 0, len(factors) - 1)
        return at(learning_rate, count) * factors[step]

    return schedule


def _smoothed(norms: np.ndarray, window: float) -> np.ndarray:
    """The running median of norms, with as many values."""
    if norms.ndim != 1 or len(norms) < 2 or not np.all((norms > 0) & np.isfinite(norms)):
        raise ValueError(
            "refined: norms must be a row of two or more positive numbers; got "
            f"shape {norms.shape}, from {norms.min(initial=np.inf)} to {norms.max(initial=0)}"
        )
    half = int(window * len(norms)) // 2
    before = np.full(half, norms[0])
    padded = np.concatenate([before, np.pad(norms, (0, half), mode="reflect")])
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1), axis=1)
