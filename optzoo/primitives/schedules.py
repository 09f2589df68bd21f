"""Rates over time: closed-form functions of the number of finished steps.

The members take a learning rate, and the length of the run where they plan it to its end.
Look here for what to put behind a rule: `adamw+cosine`.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from optzoo.primitives.base import Schedule, at, real
from optzoo.registry import schedule as registered


# Optax's own schedules divide an int32 count by an int, which is float32 even with 64-bit mode on;
# these use the widest enabled float.
@registered(
    title="Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour",
    authors=(
        "Priya Goyal",
        "Piotr Dollár",
        "Ross Girshick",
        "Pieter Noordhuis",
        "Lukasz Wesolowski",
        "Aapo Kyrola",
        "Andrew Tulloch",
        "Yangqing Jia",
        "Kaiming He",
    ),
    year=2017,
    arxiv="1706.02677",
    code=None,
)
def linear_warmup(
    learning_rate: jax.typing.ArrayLike | Schedule, warmup_steps: jax.typing.ArrayLike
) -> Schedule:
    """A linear warm-up whose first value is not zero.

    Rule:
      learning_rate·min(1, (k + 1)/warmup_steps) after k finished steps

    Values:
      0: learning_rate/warmup_steps
      warmup_steps - 1: learning_rate

    When to use:
      In front of rules whose first steps are too long, as Adam's are before its moments settle.
      Not where the rule has a warm-up of its own.

    Args:
      learning_rate: a number or a schedule.
      warmup_steps: length of the ramp; 0 for none.

    Returns:
      A schedule of the number of finished steps.

    References:
      Goyal et al. 2017, arXiv 1706.02677, section 2.2, where it starts from a rate of its own.
    """

    def schedule(count):
        ramp = (real(jnp.asarray(count)) + 1) / jnp.maximum(warmup_steps, 1)
        return at(learning_rate, count) * jnp.minimum(1.0, ramp)

    return schedule


@registered(
    title="SGDR: Stochastic Gradient Descent with Warm Restarts",
    authors=("Ilya Loshchilov", "Frank Hutter"),
    year=2016,
    arxiv="1608.03983",
    code="https://github.com/loshchil/SGDR",
)
def cosine(
    learning_rate: jax.typing.ArrayLike | Schedule,
    total_steps: jax.typing.ArrayLike,
    *,
    warmup: jax.typing.ArrayLike = 0.1,
) -> Schedule:
    """A linear warm-up from zero, then half a cosine down to zero.

    Rule:
      W = warmup·total_steps, rounded down, at least 1;   k finished steps
      k < W: learning_rate·k/W
      k ≥ W: learning_rate·(1 + cos(π·(k − W)/(total_steps − W)))/2, and 0 beyond the end

    Values:
      0: 0
      max(1, total_steps // 10): learning_rate
      total_steps: 0

    When to use:
      Runs of known length, behind any rule that has no schedule of its own: it is what most
      published results are trained with. Not where the run may be prolonged.

    Args:
      learning_rate: the largest rate, a number or a schedule.
      total_steps: optimizer steps of the whole run.
      warmup: the share of the run that the ramp takes, in [0, 1).

    Returns:
      A schedule of the number of finished steps.

    References:
      Loshchilov and Hutter 2016, arXiv 1608.03983, without restarts; the ramp is that of Goyal et
      al. 2017, arXiv 1706.02677, from zero.
    """

    def schedule(count):
        step = real(jnp.asarray(count))
        ramp = jnp.maximum(jnp.floor(warmup * total_steps), 1)
        share = jnp.clip((step - ramp) / jnp.maximum(total_steps - ramp, 1), 0, 1)
        down = (1 + jnp.cos(jnp.pi * share)) / 2
        return at(learning_rate, count) * jnp.minimum(step / ramp, down)

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


@registered(
    title="Wide-minima Density Hypothesis and the Explore-Exploit Learning Rate Schedule",
    authors=(
        "Nikhil Iyer",
        "V Thejas",
        "Nipun Kwatra",
        "Ramachandran Ramjee",
        "Muthian Sivathanu",
    ),
    year=2020,
    arxiv="2003.03977",
    code="https://github.com/nikhil-iyer-97/wide-minima-density-hypothesis",
)
def explore_exploit(
    learning_rate: jax.typing.ArrayLike | Schedule,
    total_steps: jax.typing.ArrayLike,
    *,
    warmup_steps: jax.typing.ArrayLike | Callable[[], jax.Array] = 0,
    warmdown_start: jax.typing.ArrayLike | None = 0.72,
    min_learning_rate: jax.typing.ArrayLike = 3e-5,
) -> Schedule:
    """Ranger21's schedule: linear warm-up, constant, linear warm-down to a small rate.

    Rule:
      t counts from 1;   T = total_steps;   S = warmdown_start·T, rounded down
      t < S: learning_rate·min(1, t/warmup_steps)
      t ≥ S: learning_rate − (learning_rate − m)·min(1, (t + 1 − S)/(T − S + 1)), at least m
      m = min_learning_rate

    Values:
      0: learning_rate/max(warmup_steps, 1)
      total_steps - 1: min_learning_rate

    When to use:
      Runs of known length that profit from a long time at the full rate. Not where the run may be
      prolonged: the fall begins in advance.

    Args:
      learning_rate: the plateau, a number or a schedule.
      total_steps: optimizer steps of the whole run.
      warmup_steps: length of the ramp; 0 for none; or a function that computes it, which is called
        in the step, so that nothing is computed where an optimizer is built.
      warmdown_start: fraction of the run after which the rate falls; None for never.
      min_learning_rate: the last rate.

    Returns:
      A schedule of the number of finished steps, t − 1.

    References:
      Iyer et al. 2020, arXiv 2003.03977, in the form that Wright and Demeure 2021, arXiv
      2106.13731, give it: code lessw2020/Ranger21.
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
