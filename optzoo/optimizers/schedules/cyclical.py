"""Cyclical learning rates: up and down between two rates."""

from typing import Literal

import jax.numpy as jnp

from optzoo.primitives.base import Count, Fraction, LearningRate, Schedule, at, checked, real
from optzoo.registry import schedule as registered


@registered(
    title="Cyclical Learning Rates for Training Neural Networks",
    authors=("Leslie N. Smith",),
    year=2015,
    arxiv="1506.01186",
    code=None,
)
@checked
def cyclical(
    learning_rate: LearningRate,
    period: Count,
    *,
    mode: Literal["triangular", "triangular2", "exp_range"] = "triangular",
    floor: Fraction = 1 / 6,
    gamma: Fraction = 0.99994,
) -> Schedule:
    """Straight up from a small rate to the largest and down again, cycle after cycle.

    Rule:
      k finished steps;   i = k/period, rounded down, the finished cycles
      x = 1 − |2·(k/period − i) − 1|
      learning_rate·(floor + (1 − floor)·x·s)
      triangular: s = 1;   triangular2: s = 1/2^i;   exp_range: s = gamma^k

    Values:
      0: learning_rate*floor
      period // 2: learning_rate
      period: learning_rate*floor

    When to use:
      To find a range of good rates in one run (half a cycle from floor=0), and where the end is
      open. Not where the length is known, for then a rate that ends near zero does better.

    Args:
      learning_rate: the largest rate, a number or a schedule.
      period: steps of a whole cycle, twice the paper's stepsize; 4 to 20 epochs there.
      mode: what becomes of later cycles: all alike, each half as high, or falling with every step.
      floor: the least rate, as a share of learning_rate, in [0, 1].
      gamma: how much of the height each step leaves in mode exp_range, in [0, 1].

    Returns:
      A schedule of the number of finished steps.

    Raises:
      ValueError: for an argument out of range.

    References:
      Smith 2015, arXiv 1506.01186; the same in bckenstler/CLR, which other libraries follow.
    """

    def schedule(count):
        step = real(jnp.asarray(count))
        finished = jnp.floor(step / period)
        rise = 1 - jnp.abs(2 * (step / period - finished) - 1)
        if mode == "triangular2":
            rise = rise * 0.5**finished
        if mode == "exp_range":
            rise = rise * gamma**step
        return at(learning_rate, count) * (floor + (1 - floor) * rise)

    return schedule
