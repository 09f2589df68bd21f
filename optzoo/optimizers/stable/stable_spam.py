"""Stable-SPAM: gradients held to the history of their sizes, and Adam that starts anew."""

import jax.numpy as jnp
import optax

from optzoo.primitives.axes import AxesLike
from optzoo.primitives.base import (
    Count,
    Decay,
    DType,
    Fraction,
    LearningRate,
    Mask,
    NonNegative,
    real,
    transformation,
)
from optzoo.primitives.combine import divide, merge_leaves
from optzoo.primitives.decay import add_decayed_weights
from optzoo.primitives.moments import ema, rms
from optzoo.primitives.resets import restart
from optzoo.primitives.spikes import clip_to_average_peak, stabilize_norm
from optzoo.primitives.stepsizes import rate
from optzoo.registry import Trait, optimizer


@transformation
def scale_by_stable_spam(
    *,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    gamma1: Decay = 0.7,
    gamma2: Decay = 0.9,
    gamma3: Decay = 0.999,
    period: Count | None = 1000,
    momentum_steps: Count | None = None,
    eta_min: Fraction = 0.5,
    amsgrad: bool = False,
    axes: AxesLike = None,
    mu_dtype: DType = None,
    nu_dtype: DType = None,
) -> optax.GradientTransformation:
    """The direction of `stable_spam`; see there for the arguments."""

    def fall(t):
        if momentum_steps is None:
            return jnp.ones([], float)
        share = jnp.minimum(t / (real(jnp.asarray(momentum_steps)) + 1), 1)
        return eta_min + (1 - eta_min) * (1 + jnp.cos(jnp.pi * share)) / 2

    def resets(count):
        return jnp.asarray(period is not None and (count + 1) % period == 0)

    def correction(count):
        """What m is short of, with as many steps as it has seen since the last reset."""
        t = count + 1
        seen = t if period is None else jnp.where(t < period, t, t % period + 1)
        return 1 - (b1 * fall(real(t))) ** real(seen)

    # The decay falls with the run's clock, which goes on through the resets.
    first = restart(
        ema(lambda t: b1 * fall(t), debias=False, dtype=mu_dtype), resets, keep=("steps",)
    )
    second = restart(rms(b2, eps, amsgrad=amsgrad, dtype=nu_dtype), resets, keep=("maximum",))
    return optax.chain(
        clip_to_average_peak(gamma3, axes=axes),
        stabilize_norm(lambda t: gamma1 * fall(t), gamma2, eps, axes=axes),
        merge_leaves(lambda m, c, d: divide(divide(m, c), d), first, rate(correction), second),
    )


@optimizer(
    title="Stable-SPAM: How to Train in 4-Bit More Stably than 16-Bit Adam",
    authors=(
        "Tianjin Huang",
        "Haotian Hu",
        "Zhenyu Zhang",
        "Gaojie Jin",
        "Xiang Li",
        "Li Shen",
        "Tianlong Chen",
        "Lu Liu",
        "Qingsong Wen",
        "Zhangyang Wang",
        "Shiwei Liu",
    ),
    year=2025,
    arxiv="2502.17055",
    code="https://github.com/TianjinYellow/StableSPAM",
    traits=(Trait.SHAPED,),
)
@transformation
def stable_spam(
    learning_rate: LearningRate = 1e-3,
    *,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    gamma1: Decay = 0.7,
    gamma2: Decay = 0.9,
    gamma3: Decay = 0.999,
    period: Count | None = 1000,
    momentum_steps: Count | None = None,
    eta_min: Fraction = 0.5,
    amsgrad: bool = False,
    weight_decay: NonNegative = 0.0,
    mask: Mask = None,
    axes: AxesLike = None,
    mu_dtype: DType = None,
    nu_dtype: DType = None,
) -> optax.GradientTransformation:
    """Adam on gradients held to the history of their peaks and norms; its moments start anew.

    Rule:
      t counts steps, k those since the last reset
      M = max|g|;   T ← gamma3·T + (1 − gamma3)·M;   L = T/(1 − gamma3^t)
      g ← g·L/M where |g| > L
      A ← gamma1·s·A + (1 − gamma1·s)·|g|;   B ← gamma2·B + (1 − gamma2)·|g|²
      g ← g/|g|·(A/(1 − (gamma1·s)^t)) / (√(B/(1 − gamma2^t)) + eps)
      m and v, the averages of g and g² by b1·s and b2, start anew where t mod period = 0
      u = m/(1 − (b1·s)^k) / (√(v/(1 − b2^k)) + eps)
      p ← p − learning_rate·(u + weight_decay·p)
      s = 1, or falls to eta_min by half a cosine in momentum_steps

    Against Adam:
      The size of a gradient hardly matters: no spike, of an entry or of a whole layer, gets through
      to the moments.

    When to use:
      Language models in 4 to 16 bits, large rates, losses that jump. Not where norms of gradients
      carry information, as they do near a minimum.

    Tuning:
      Adam's learning rate. The authors train in 4 bits with period=500, and in bfloat16 with
      gamma1=0.85, gamma2=0.99999; momentum_steps is the length of the run for language models.

    Args:
      learning_rate: a number, or a schedule of the number of finished steps.
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added to both roots.
      gamma1: decay of the norms, in [0, 1).
      gamma2: decay of the squared norms, in [0, 1).
      gamma3: decay of the largest entries, in [0, 1).
      period: steps between resets of the moments; None for no resets.
      momentum_steps: steps over which gamma1 and b1 fall to eta_min times themselves (the
        official total_T); None keeps them.
      eta_min: the fraction that is left of them, in [0, 1].
      amsgrad: divide by the running maximum of v, which resets leave alone.
      weight_decay: decoupled decay.
      mask: which leaves to decay: a tree of booleans, or a function that makes one.
      axes: a spec with batch axes gives each stacked layer its own sizes; see
        `optzoo.primitives.axes`.
      mu_dtype: dtype of the first moment; float32 or wider by default.
      nu_dtype: dtype of the second moment; float32 or wider by default.

    Returns:
      The optimizer. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range.

    References:
      Huang et al. 2025, arXiv 2502.17055v2; official code TianjinYellow/StableSPAM. Its resets are
      followed as they are meant: there the step of a reset loses its gradient, the clip is all but
      off for a thousand steps after it, and s rises again beyond the end.
    """
    return optax.chain(
        scale_by_stable_spam(
            b1=b1,
            b2=b2,
            eps=eps,
            gamma1=gamma1,
            gamma2=gamma2,
            gamma3=gamma3,
            period=period,
            momentum_steps=momentum_steps,
            eta_min=eta_min,
            amsgrad=amsgrad,
            axes=axes,
            mu_dtype=mu_dtype,
            nu_dtype=nu_dtype,
        ),
        add_decayed_weights(weight_decay, mask),
        optax.scale_by_learning_rate(learning_rate),
    )
