"""Ranger21: eight ideas around Adam, in one order."""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.averaged import lookahead
from optzoo.primitives.axes import AxesLike
from optzoo.primitives.base import (
    Count,
    Decay,
    DType,
    Fraction,
    LearningRate,
    NonNegative,
    Positive,
    is_zero,
    real,
    transformation,
)
from optzoo.primitives.combine import merge, parameters
from optzoo.primitives.decay import pull_norms, stable_decay
from optzoo.primitives.directions import adaptive_clip, centralize, normalize
from optzoo.primitives.moments import ema, positive_negative_momentum, second_moment
from optzoo.primitives.schedules import explore_exploit
from optzoo.primitives.stepsizes import rate
from optzoo.registry import Trait, optimizer

Centralization = Literal["all", "conv"]


def _parts(
    b1: Decay,
    b2: Decay,
    agc_clip: Positive | None,
    agc_eps: Positive,
    centralization: Centralization | None,
    normalization: bool,
    positive_negative: bool,
    axes: AxesLike,
    agc_axes: AxesLike,
    mu_dtype: DType,
    nu_dtype: DType,
) -> tuple[optax.GradientTransformation, ...]:
    """What comes before the moments, the momentum and the second moment."""
    before = []
    if agc_clip is not None:
        before.append(adaptive_clip(agc_clip, agc_eps, axes=agc_axes))
    if centralization is not None:
        before.append(centralize(axes=axes, conv_only=centralization == "conv"))
    momentum = (
        positive_negative_momentum(b1, b2, dtype=mu_dtype)
        if positive_negative
        else ema(b1, dtype=mu_dtype)
    )
    second = second_moment(b2, dtype=nu_dtype)
    # The released code centralises and normalises twice, the second time for the momentum alone.
    # Centralising again does nothing: no unit's mean is left.
    if normalization:
        momentum = optax.chain(normalize(times=2), momentum)
        second = optax.chain(normalize(), second)
    return optax.chain(*before, optax.identity()), momentum, second


def _direction(momentum, second, eps, softplus_beta):
    def divided(m, v):
        divisor = jnp.sqrt(v) + eps
        if softplus_beta is not None:
            divisor = jax.nn.softplus(softplus_beta * divisor) / softplus_beta
        return m / divisor

    return jax.tree.map(divided, momentum, second)


@transformation
def scale_by_ranger21(
    *,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    agc_clip: Positive | None = 0.01,
    agc_eps: Positive = 1e-3,
    centralization: Centralization | None = "all",
    normalization: bool = True,
    positive_negative: bool = True,
    softplus_beta: Positive | None = 50.0,
    axes: AxesLike = None,
    agc_axes: AxesLike = None,
    mu_dtype: DType = None,
    nu_dtype: DType = None,
) -> optax.GradientTransformation:
    """The direction of `ranger21`, without schedule, decays and lookahead; see there."""
    before, momentum, second = _parts(
        b1,
        b2,
        agc_clip,
        agc_eps,
        centralization,
        normalization,
        positive_negative,
        axes,
        agc_axes,
        mu_dtype,
        nu_dtype,
    )
    return optax.chain(
        before, merge(lambda m, v: _direction(m, v, eps, softplus_beta), momentum, second)
    )


@optimizer(
    title="Ranger21: a synergistic deep learning optimizer",
    authors=("Less Wright", "Nestor Demeure"),
    year=2021,
    arxiv="2106.13731",
    code="https://github.com/lessw2020/Ranger21",
    traits=(Trait.AVERAGES, Trait.COUPLED, Trait.SCHEDULED, Trait.SHAPED),
    default=True,
)
@transformation
def ranger21(
    learning_rate: LearningRate = 1e-3,
    *,
    total_steps: Count,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 1e-4,
    norm_loss: NonNegative = 1e-4,
    agc_clip: Positive | None = 0.01,
    agc_eps: Positive = 1e-3,
    centralization: Centralization | None = "all",
    normalization: bool = True,
    positive_negative: bool = True,
    softplus_beta: Positive | None = 50.0,
    warmup_steps: NonNegative | None = None,
    warmdown_start: Fraction | None = 0.72,
    min_learning_rate: NonNegative = 3e-5,
    lookahead_period: Count | None = 5,
    lookahead_alpha: Fraction = 0.5,
    axes: AxesLike = None,
    agc_axes: AxesLike = None,
    mu_dtype: DType = None,
    nu_dtype: DType = None,
) -> optax.GradientTransformation:
    """Adam with clipping, centralisation, two-sided momentum, two decays, a schedule and lookahead.

    It owns its schedule: warm-up, plateau, warm-down over `total_steps` optimizer steps. Evaluate
    `eval_params(opt_state, params)`: lookahead's slow weights.

    Rule:
      g ← g clipped to agc_clip·|p| per unit, minus its mean per unit, over its standard deviation
      v ← b2·v + (1 − b2)·g²;   r = √(v/(1 − b2^t));   d = softplus(r + eps)
      m = positive-negative momentum of g;   γ = explore_exploit(learning_rate) at t
      p ← p·(1 − γ·weight_decay/√mean(r²)), the mean over the whole tree
      p ← p·(1 − 2γ·norm_loss·(1 − 1/|p|)) per unit;   p ← p − γ·m/d
      every lookahead_period steps: p ← slow ← slow + lookahead_alpha·(p − slow)

    Against Adam:
      Clipping, centralisation and normalisation come before it, two-sided momentum and a softplus
      inside, two decays, a schedule and lookahead after.

    When to use:
      Image classifiers of a known run length, with nothing to assemble. Not for runs without a
      fixed end, outside schedules, or little memory.

    Tuning:
      Adam's learning rate for the plateau; the decays' defaults are the authors'. Give total_steps
      in optimizer steps.

    Args:
      learning_rate: of the plateau; a number, or a schedule of the number of finished steps.
      total_steps: optimizer steps (not epochs) of the whole run.
      b1: decay of the momentum, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added to the root of the second moment, and to norms.
      weight_decay: stable decay; 0 turns it off.
      norm_loss: pull of each unit's weight norm towards 1; 0 turns it off.
      agc_clip: largest ratio of gradient norm to weight norm of a unit; None turns clipping off.
      agc_eps: floor of the weight norm.
      centralization: subtract each unit's mean gradient: "all" leaves with at least two axes,
        "conv" those with at least four, or None.
      normalization: divide each leaf's gradient by its standard deviation.
      positive_negative: positive-negative momentum; False: Adam's.
      softplus_beta: sharpness of the softplus that bounds the divisor from below; None: none.
      warmup_steps: steps of the linear warm-up; 0 for none; None: 2/(1 − b2), or 22% of the run
        where that is more than 45% of it.
      warmdown_start: fraction of the run after which the rate falls linearly; None: never.
      min_learning_rate: the rate at the end.
      lookahead_period: steps between synchronisations; None turns lookahead off.
      lookahead_alpha: how far the slow weights go.
      axes: which axes are inputs and outputs (a unit feeds one output); see
        `optzoo.primitives.axes`.
      agc_axes: the same for clipping and norm loss alone, `axes` where None. The released code
        counts each tap of a one-dimensional convolution as a unit of its own there.
      mu_dtype: dtype of the momenta; float32 or wider by default.
      nu_dtype: dtype of the second moment; float32 or wider by default.

    Returns:
      The optimizer. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range, or `update` without parameters.

    References:
      Wright and Demeure 2021, arXiv 2106.13731; official code lessw2020/Ranger21. Release 0.1.0
      applies both decays to the last tensor only, a bug fixed upstream; here they reach every leaf.
      A gradient whose numbers are all alike is not normalised, where the code divides it by 1e-16.
    """
    units = axes if agc_axes is None else agc_axes
    before, momentum, second = _parts(
        b1,
        b2,
        agc_clip,
        agc_eps,
        centralization,
        normalization,
        positive_negative,
        axes,
        units,
        mu_dtype,
        nu_dtype,
    )

    def step(momentum, second, params, learning_rate):
        direction = _direction(momentum, second, eps, softplus_beta)
        decay = jnp.ones([])
        if not is_zero(weight_decay):
            decay = stable_decay(learning_rate * weight_decay, second)
        if is_zero(norm_loss):
            moved = jax.tree.map(lambda p: decay.astype(p.dtype) * p, params)
        else:
            moved = pull_norms(params, learning_rate * norm_loss, eps=eps, axes=units, scale=decay)
        return jax.tree.map(
            lambda new, d, p: new - learning_rate.astype(p.dtype) * d - p, moved, direction, params
        )

    schedule = explore_exploit(
        learning_rate,
        total_steps,
        warmup_steps=partial(_warmup, b2, total_steps) if warmup_steps is None else warmup_steps,
        warmdown_start=warmdown_start,
        min_learning_rate=min_learning_rate,
    )
    inner = optax.chain(before, merge(step, momentum, second, parameters, rate(schedule)))
    if lookahead_period is None:
        return inner
    return lookahead(inner, period=lookahead_period, alpha=lookahead_alpha)


def _warmup(b2: Decay, total_steps: Count) -> jax.Array:
    # 2/(1 − b2) of b2 to seven decimals, as many as float32 tells apart, in integers: the same for
    # a plain number as for a traced array of any precision.
    scale = 10**7
    rest = jnp.round((1 - jnp.asarray(b2, float)) * scale).astype(jnp.int32)
    natural = real(-(-2 * scale // jnp.maximum(rest, 1)))
    total = jnp.asarray(total_steps, float)
    return jnp.where(natural > 0.45 * total, jnp.floor(0.22 * total), natural)
