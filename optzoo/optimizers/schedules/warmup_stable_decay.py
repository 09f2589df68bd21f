"""Warm-up, a constant rate, and a cooldown that may begin whenever the run is to end."""

from typing import Literal

import jax.numpy as jnp

from optzoo.primitives.base import (
    Count,
    Fraction,
    LearningRate,
    Schedule,
    at,
    checked,
    is_zero,
    real,
)
from optzoo.primitives.schedules import FALLS
from optzoo.registry import schedule as registered


@registered(
    title="Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations",
    authors=(
        "Alexander Hägele",
        "Elie Bakouch",
        "Atli Kosson",
        "Loubna Ben Allal",
        "Leandro von Werra",
        "Martin Jaggi",
    ),
    year=2024,
    arxiv="2405.18392",
    code="https://github.com/epfml/schedules-and-scaling",
)
@checked
def warmup_stable_decay(
    learning_rate: LearningRate,
    total_steps: Count,
    *,
    warmup: Fraction = 0.1,
    cooldown: Fraction = 0.2,
    shape: Literal["linear", "sqrt", "square", "cosine", "mirrored cosine", "exponential"] = "sqrt",
    start: Fraction = 0.01,
    floor: Fraction = 0.0,
) -> Schedule:
    """A linear warm-up, a constant rate, and a cooldown over the last part of the run.

    Rule:
      k finished steps;   T = total_steps;   W = warmup·T, D = cooldown·T, both rounded down
      k < W: learning_rate·(start + (1 − start)·k/W)
      W ≤ k < T − D: learning_rate
      k ≥ T − D: learning_rate·(floor + (1 − floor)·f(q)), q = (k − T + D)/D, at most 1
      linear: f = 1 − q;   sqrt: f = 1 − √q;   square: f = 1 − q²
      cosine: f = (1 + cos(π·q))/2;   mirrored cosine: f = 2·(1 − q) − (1 + cos(π·q))/2
      exponential: learning_rate·floor^q

    Values:
      0: learning_rate*start
      total_steps // 2: learning_rate
      9 * total_steps // 10: learning_rate*(1 - 0.5**0.5)
      total_steps: learning_rate*floor

    When to use:
      Long runs whose end is open: keep the constant part, and cool a copy down whenever a finished
      model is wanted. Not for short runs, where the cooldown leaves little of them.

    Args:
      learning_rate: the plateau, a number or a schedule.
      total_steps: optimizer steps of the whole run.
      warmup: the share of the run that the ramp takes, in [0, 1].
      cooldown: the share of the run that the fall takes, in [0, 1].
      shape: of the cooldown; see the rule.
      start: the first rate, as a share of learning_rate, in [0, 1].
      floor: the last rate, as a share of learning_rate, in [0, 1].

    Returns:
      A schedule of the number of finished steps.

    Raises:
      ValueError: for an argument out of range, or an exponential cooldown to the floor 0.

    References:
      Hägele et al. 2024, arXiv 2405.18392; official code epfml/schedules-and-scaling, with a
      cooldown of 0.1 and a linear one by default. Earlier, with an exponential cooldown: Hu et al.
      2024, arXiv 2404.06395.
    """
    if shape == "exponential" and is_zero(floor):
        raise ValueError(
            "warmup_stable_decay: floor must be positive for an exponential cooldown; got 0"
        )

    def schedule(count):
        step = real(jnp.asarray(count))
        ramp = jnp.floor(warmup * total_steps)
        fall = jnp.floor(cooldown * total_steps)
        share = jnp.clip((step - total_steps + fall) / jnp.maximum(fall, 1), 0, 1)
        if shape == "exponential":
            factor = jnp.asarray(floor) ** share
        else:
            factor = floor + (1 - floor) * FALLS[shape](share)
        # Without a cooldown the end is a step.
        factor = jnp.where(step >= total_steps, floor, factor)
        risen = step / jnp.maximum(ramp, 1)
        factor = jnp.where(step < ramp, start + (1 - start) * risen, factor)
        return at(learning_rate, count) * factor

    return schedule
