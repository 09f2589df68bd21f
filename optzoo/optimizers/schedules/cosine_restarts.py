"""SGDR: cosines that start again, each longer than the last if wanted."""

import jax.numpy as jnp

from optzoo.primitives.base import Count, Fraction, LearningRate, Schedule, at, checked, real
from optzoo.primitives.schedules import FALLS
from optzoo.registry import schedule as registered


@registered(
    title="SGDR: Stochastic Gradient Descent with Warm Restarts",
    authors=("Ilya Loshchilov", "Frank Hutter"),
    year=2016,
    arxiv="1608.03983",
    code="https://github.com/loshchil/SGDR",
)
@checked
def cosine_restarts(
    learning_rate: LearningRate,
    period: Count,
    *,
    mult: Count = 1.0,
    floor: Fraction = 0.0,
) -> Schedule:
    """Half a cosine down from the largest rate, again and again.

    Rule:
      the first period has T = period, the next T ← mult·T;   c steps since the last restart
      learning_rate·(floor + (1 − floor)·(1 + cos(π·c/T))/2)

    Values:
      0: learning_rate
      period // 2: learning_rate*(1 + floor)/2
      period: learning_rate

    When to use:
      Runs whose end is open, or several snapshots out of one run: the end of every period is a
      good place to stop. Not where the length is known, for then one cosine does better.

    Args:
      learning_rate: the largest rate, a number or a schedule.
      period: steps of the first period; it need not be whole. The paper's is 10 epochs.
      mult: how much longer each period is than the one before; 2 did best in the paper.
      floor: the least rate, as a share of learning_rate, in [0, 1].

    Returns:
      A schedule of the number of finished steps.

    Raises:
      ValueError: for an argument out of range.

    References:
      Loshchilov and Hutter 2016, arXiv 1608.03983, equation 5. Their code, loshchil/SGDR, turns
      the angle before it sets the rate, and restarts only between epochs.
    """

    def schedule(count):
        step = real(jnp.asarray(count))
        grows = jnp.asarray(mult > 1)
        ratio = jnp.where(grows, mult, 2.0)
        longer = jnp.log1p(step * (ratio - 1) / period) / jnp.log(ratio)

        def start(index):
            return period * jnp.where(grows, (ratio**index - 1) / (ratio - 1), index)

        nearest = jnp.round(jnp.where(grows, longer, step / period))
        # A restart that is only a rounding error away has come.
        ahead = start(nearest) > step * (1 + 4 * jnp.finfo(step.dtype).eps)
        index = jnp.where(ahead, nearest - 1, nearest)
        length = period * jnp.where(grows, ratio**index, 1.0)
        share = jnp.clip((step - start(index)) / length, 0, 1)
        return at(learning_rate, count) * (floor + (1 - floor) * FALLS["cosine"](share))

    return schedule
