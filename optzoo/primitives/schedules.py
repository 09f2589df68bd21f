"""Closed-form schedules of papers, as functions of the number of finished steps.

`optax.warmup_constant_schedule` and its kin divide an int32 count by an int, which is float32
even with 64-bit mode on; these use the widest enabled float.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from optzoo.primitives.base import Schedule, at, real


def linear_warmup(
    learning_rate: jax.typing.ArrayLike | Schedule, warmup_steps: jax.typing.ArrayLike
) -> Schedule:
    """learning_rate·min(1, (k + 1)/warmup_steps) after k finished steps; its first value is not 0.

    Args:
      learning_rate: a number or a schedule.
      warmup_steps: length of the ramp; 0 for none.

    Returns:
      A schedule.
    """

    def schedule(count):
        ramp = (real(jnp.asarray(count)) + 1) / jnp.maximum(warmup_steps, 1)
        return at(learning_rate, count) * jnp.minimum(1.0, ramp)

    return schedule


def alpha_warmup(alpha: jax.typing.ArrayLike, steps: jax.typing.ArrayLike) -> Schedule:
    """AdEMAMix's α: alpha·t/steps until t reaches `steps`, then alpha; t counts from 1."""
    return lambda t: alpha * jnp.minimum(1.0, t / steps)


def half_life_warmup(
    start: jax.typing.ArrayLike,
    end: jax.typing.ArrayLike,
    steps: jax.typing.ArrayLike,
    *,
    eps: float = 1e-8,
) -> Schedule:
    """AdEMAMix's β₃: a decay whose half-life grows linearly from that of `start` to that of `end`.

    Rule:
      f(b) = ln ½ / ln(b + eps) − 1;   q = t/steps
      decay(t) = ½^(1/((1 − q)·f(start) + q·f(end) + 1))

    Args:
      start: the decay at t = 0, in [0, 1).
      end: the decay from t = steps on, in [0, 1).
      steps: length of the warm-up; t counts from 1.
      eps: keeps ln finite for start = 0. The authors' 1e-8 shifts the result a little for decays
        near 1; the paper's formula has 0.

    Returns:
      A schedule of t.
    """

    def half_life(decay):
        return math.log(0.5) / _log(decay + eps) - 1

    def schedule(t):
        share = jnp.minimum(1.0, t / steps)
        steps_to_half = (1 - share) * half_life(start) + share * half_life(end) + 1
        return jnp.where(t < steps, 0.5 ** (1 / steps_to_half), end)

    return schedule


def explore_exploit(
    learning_rate: jax.typing.ArrayLike | Schedule,
    total_steps: jax.typing.ArrayLike,
    *,
    warmup_steps: jax.typing.ArrayLike | Callable[[], jax.Array],
    warmdown_start: jax.typing.ArrayLike | None,
    min_learning_rate: jax.typing.ArrayLike,
) -> Schedule:
    """Ranger21's schedule: linear warm-up, constant, linear warm-down to a small rate.

    Rule, with the 1-based step t, T = total_steps and S = ⌊warmdown_start·T⌋:
      t < S: learning_rate·min(1, t/warmup_steps)
      t ≥ S: learning_rate − (learning_rate − min)·min(1, (t + 1 − S)/(T − S + 1)), at least min

    Args:
      learning_rate: the plateau, a number or a schedule.
      total_steps: optimizer steps of the whole run.
      warmup_steps: length of the ramp; 0 for none; or a function that computes it, which is called
        in the step, so that nothing is computed where an optimizer is built.
      warmdown_start: fraction of the run after which the rate falls; None for never.
      min_learning_rate: the last rate.

    Returns:
      A schedule, called with the number of finished steps t − 1.
    """

    def schedule(count):
        t = real(jnp.asarray(count)) + 1
        peak = at(learning_rate, count)
        length = warmup_steps() if callable(warmup_steps) else warmup_steps
        ramp = jnp.where(length > 0, t / jnp.maximum(length, 1), 1.0)
        rate = peak * jnp.minimum(1.0, ramp)
        if warmdown_start is None:
            return rate
        # In one precision, that numbers and traced arrays are rounded alike.
        start = jnp.floor(jnp.asarray(warmdown_start, float) * total_steps)
        fall = jnp.minimum(1.0, (t + 1 - start) / (total_steps - start + 1))
        down = jnp.maximum(peak - (peak - min_learning_rate) * fall, min_learning_rate)
        return jnp.where(t >= start, down, rate)

    return schedule


def rectification(b2: jax.typing.ArrayLike, t: jax.Array) -> tuple[jax.Array, jax.Array]:
    """RAdam's factor for the adaptive step and whether the second moment can be trusted yet.

    Rule:
      ρ∞ = 2/(1 − b2) − 1;   ρ = ρ∞ − 2t·b2^t/(1 − b2^t)
      ρ > 4: √((ρ − 4)(ρ − 2)ρ∞ / ((ρ∞ − 4)(ρ∞ − 2)ρ)), True;   otherwise 0, False

    Args:
      b2: decay of the second moment, in [0, 1).
      t: the 1-based step.

    Returns:
      The factor and a boolean, both scalars.

    Source: Liu et al. 2019, arXiv 1908.03265.
    """
    half = jnp.asarray(-(_log(b2) / 2), t.dtype)
    longest = 2 / (1 - b2) - 1
    # ρ∞ − 2t·b2^t/(1 − b2^t) loses every digit in float32; this is the same number.
    length = t + _langevin(half) - t * _langevin(half * t)
    trusted = jnp.greater(length, 4)
    safe = jnp.where(trusted, length, 5.0)
    ratio = (safe - 4) * (safe - 2) * longest / ((longest - 4) * (longest - 2) * safe)
    return jnp.where(trusted, jnp.sqrt(jnp.maximum(ratio, 0)), 0.0), trusted


def _log(x: jax.typing.ArrayLike) -> jax.typing.ArrayLike:
    """ln x, of a plain number in the precision of Python's floats."""
    if isinstance(x, int | float):
        return math.log(x) if x > 0 else -math.inf
    return jnp.log(x)


def _langevin(x: jax.Array) -> jax.Array:
    """coth x − 1/x, by its series where the difference would cancel."""
    small = x < 0.1
    safe = jnp.where(small, 1.0, x)
    y = jnp.square(x)
    series = x * (1 / 3 - y * (1 / 45 - y * (2 / 945 - y / 4725)))
    return jnp.where(small, series, 1 / jnp.tanh(safe) - 1 / safe)
