"""One cycle: up to a large rate and down to almost none, the momentum the other way."""

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import jax
import jax.numpy as jnp

from optzoo.primitives.base import (
    Count,
    Decay,
    Fraction,
    LearningRate,
    Positive,
    Schedule,
    at,
    checked,
    real,
)
from optzoo.primitives.schedules import FALLS
from optzoo.registry import schedule as registered

Form = Literal["torch", "fastai"]
Shape = Literal["cosine", "linear"]


@registered(
    title="Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates",
    authors=("Leslie N. Smith", "Nicholay Topin"),
    year=2017,
    arxiv="1708.07120",
    code="https://github.com/lnsmith54/super-convergence",
)
@checked
def one_cycle(
    learning_rate: LearningRate,
    total_steps: Count,
    *,
    form: Form = "torch",
    shape: Shape = "cosine",
    three_phase: bool = False,
    pct_start: Fraction = 0.3,
    div_factor: Positive = 25.0,
    final_div_factor: Positive = 1e4,
) -> Schedule:
    """Up from a small rate to a very large one, then down to almost none.

    Rule:
      T = total_steps;   a = pct_start·T − 1;   between knots as shape says
      rates: learning_rate/div_factor at 0; learning_rate at a; least rate at T − 1
      three_phase: learning_rate/div_factor again at 2·a; least rate at T − 1
      least rate: learning_rate/(div_factor·final_div_factor)
      fastai: a = pct_start·T; T for T − 1; least rate learning_rate/final_div_factor

    Values:
      0: learning_rate/div_factor
      3 * total_steps // 10 - 1: learning_rate
      total_steps - 1: learning_rate/(div_factor*final_div_factor)

    When to use:
      Short runs of known length at a rate near the largest that does not diverge, behind SGD with
      `one_cycle_momentum` or AdamW. Not where the run may be prolonged.

    Args:
      learning_rate: the largest rate, a number or a schedule.
      total_steps: optimizer steps of the whole run.
      form: where the knots lie and what the last rate is: PyTorch's or fast.ai's way.
      shape: from one rate to the next by half a cosine or straight.
      three_phase: down as long as up, then a third phase to the least rate, as Smith has it.
      pct_start: the share of the run that the rise takes, in [0, 1]; fast.ai has 0.25.
      div_factor: the largest rate over the first.
      final_div_factor: the first rate over the last; of fast.ai (there 1e5), the largest.

    Returns:
      A schedule of the number of finished steps.

    Raises:
      ValueError: for an argument out of range.

    References:
      Smith and Topin 2017, arXiv 1708.07120; Smith 2018, arXiv 1803.09820, for the third phase and
      the momentum. The knots are those of PyTorch's `OneCycleLR` and of fast.ai's `fit_one_cycle`.
    """
    first = 1 / div_factor
    last = 1 / final_div_factor * (first if form == "torch" else 1.0)
    path = _path(total_steps, pct_start, form, three_phase, (first, 1.0, last), FALLS[shape])
    return lambda count: at(learning_rate, count) * path(real(jnp.asarray(count)))


@checked
def one_cycle_momentum(
    total_steps: Count,
    *,
    high: Decay = 0.95,
    low: Decay = 0.85,
    form: Form = "torch",
    shape: Shape = "cosine",
    three_phase: bool = False,
    pct_start: Fraction = 0.3,
) -> Schedule:
    """The momentum that goes with `one_cycle`: high where the rate is low.

    Args:
      total_steps: optimizer steps of the whole run.
      high: the momentum at the start and at the end, in [0, 1).
      low: the momentum at the largest rate, in [0, 1).
      form, shape, three_phase, pct_start: as in `one_cycle`.

    Returns:
      A schedule of the 1-based step, as `momentum` and `ema` take for their decay.

    Raises:
      ValueError: for an argument out of range.
    """
    path = _path(total_steps, pct_start, form, three_phase, (high, low, high), FALLS[shape])
    return lambda t: path(real(jnp.asarray(t)) - 1)


def _path(
    total_steps: jax.typing.ArrayLike,
    pct_start: jax.typing.ArrayLike,
    form: Form,
    three_phase: bool,
    values: tuple[jax.typing.ArrayLike, ...],
    fall: Callable[[jax.Array], jax.Array],
) -> Callable[[jax.Array], jax.Array]:
    """A function of the finished steps through values at the knots of a cycle."""
    first, middle, last = values
    before = 1 if form == "torch" else 0
    top, end = pct_start * total_steps - before, total_steps - before
    knots = [(0.0, first), (top, middle), (end, last)]
    if three_phase:
        knots.insert(2, (2 * top, first))

    def path(step):
        value = first
        for (left, start), (right, stop) in pairwise(knots):
            # A phase without length is over at once.
            share = jnp.clip((step - left) / jnp.maximum(right - left, 1e-6), 0, 1)
            value = jnp.where(step >= left, stop + (start - stop) * fall(share), value)
        return value

    return path
