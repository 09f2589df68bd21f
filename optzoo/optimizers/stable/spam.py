"""SPAM: Adam that clips spikes and forgets its moments from time to time."""

import jax.numpy as jnp
import optax

from optzoo.primitives.base import (
    Count,
    Decay,
    DType,
    LearningRate,
    Mask,
    NonNegative,
    real,
    transformation,
)
from optzoo.primitives.combine import merge_leaves, multiply
from optzoo.primitives.decay import rated_decay
from optzoo.primitives.moments import adam
from optzoo.primitives.resets import restart
from optzoo.primitives.spikes import clip_spikes
from optzoo.primitives.stepsizes import rate
from optzoo.registry import optimizer


@transformation
def scale_by_spam(
    *,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-6,
    threshold: NonNegative = 5000.0,
    period: Count = 500,
    warmup_steps: Count = 150,
    grad_accu_steps: Count = 20,
    clip_unseen: bool = True,
    bias_correction: bool = True,
    mu_dtype: DType = None,
    nu_dtype: DType = None,
) -> optax.GradientTransformation:
    """The direction of `spam`; see there for the arguments."""

    def age(count):
        return (count + 1) % period

    def ramp(count):
        share = real(age(count)) / (real(jnp.asarray(warmup_steps)) + 1)
        rising = 1 - 0.99 * (1 + jnp.cos(jnp.pi * share)) / 2
        return jnp.where((count + 1 < period) | (age(count) >= warmup_steps), 1.0, rising)

    # The bias corrections count on through the resets.
    moments = restart(
        adam(
            b1,
            b2,
            eps,
            debias=bias_correction,
            eps_on_debiased=False,
            mu_dtype=mu_dtype,
            nu_dtype=nu_dtype,
        ),
        lambda count: age(count) == 0,
        keep=("steps",),
    )
    clipped = clip_spikes(
        moments,
        lambda state: state.inner[1].moment,
        threshold=threshold,
        active=lambda count: age(count) >= grad_accu_steps,
        clip_unseen=clip_unseen,
    )
    return merge_leaves(multiply, clipped, rate(ramp))


@optimizer(
    title="SPAM: Spike-Aware Adam with Momentum Reset for Stable LLM Training",
    authors=(
        "Tianjin Huang",
        "Ziquan Zhu",
        "Gaojie Jin",
        "Lu Liu",
        "Zhangyang Wang",
        "Shiwei Liu",
    ),
    year=2025,
    arxiv="2501.06842",
    code="https://github.com/TianjinYellow/SPAM-Optimizer",
)
@transformation
def spam(
    learning_rate: LearningRate = 1e-3,
    *,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-6,
    threshold: NonNegative = 5000.0,
    period: Count = 500,
    warmup_steps: Count = 150,
    grad_accu_steps: Count = 20,
    clip_unseen: bool = True,
    weight_decay: NonNegative = 0.0,
    mask: Mask = None,
    bias_correction: bool = True,
    mu_dtype: DType = None,
    nu_dtype: DType = None,
) -> optax.GradientTransformation:
    """Adam that clips entries far beyond their second moment and forgets its moments periodically.

    Rule:
      t counts from 1;   a = t mod period
      a = 0: m ← 0 and v ← 0, before g counts
      a ≥ grad_accu_steps: |g| ← min(|g|, √(threshold·v))
      u = m/(1 − b1^t) / ((√v + eps)/√(1 − b2^t)), m and v averages of g and g²
      s = 1 − 0.99·(1 + cos(π·a/(warmup_steps + 1)))/2 for a < warmup_steps after a reset, else 1
      p ← p − learning_rate·s·u;   p ← (1 − learning_rate·weight_decay)·p

    Against Adam:
      A spike is cut to √threshold times its usual size, and whatever it left in the moments is gone
      at the next reset.

    When to use:
      Language models whose loss jumps. Not with embeddings whose rows are rarely seen: an entry
      without gradients in the first grad_accu_steps after a reset is clipped to zero, and so
      stays where it is until the next one (clip_unseen=False lets it move).

    Tuning:
      Adam's learning rate with a warm-up in front; the authors took 4e-4 to 2e-3. Their scripts
      ramp over 1000 steps, longer than the period, so that every step between resets is damped.

    Args:
      learning_rate: a number, or a schedule of the number of finished steps.
      b1: decay of the first moment, in [0, 1);
        the plain number 0 keeps no buffer for it.
      b2: decay of the second moment, in [0, 1).
      eps: added to the raw root of the second moment.
      threshold: largest square of an entry over its second moment; 0 clips nothing.
      period: steps between resets of the moments.
      warmup_steps: length of the ramp after a reset; there is none at the start of the run.
      grad_accu_steps: steps after a reset before entries are clipped.
      clip_unseen: clip entries whose second moment is still 0, as the official code does.
      weight_decay: decoupled decay, of the weights after the step.
      mask: which leaves to decay: a tree of booleans, or a function that makes one.
      bias_correction: correct the moments for their start at zero, as if never reset.
      mu_dtype: dtype of the first moment; float32 or wider by default.
      nu_dtype: dtype of the second moment; float32 or wider by default.

    Returns:
      The optimizer. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range.

    References:
      Huang et al. 2025, arXiv 2501.06842, which adds eps to the corrected root; official code
      TianjinYellow/SPAM-Optimizer, followed here without its sparse momentum, which saves no memory
      where shapes are static.
    """
    return optax.chain(
        scale_by_spam(
            b1=b1,
            b2=b2,
            eps=eps,
            threshold=threshold,
            period=period,
            warmup_steps=warmup_steps,
            grad_accu_steps=grad_accu_steps,
            clip_unseen=clip_unseen,
            bias_correction=bias_correction,
            mu_dtype=mu_dtype,
            nu_dtype=nu_dtype,
        ),
        optax.scale_by_learning_rate(learning_rate),
        rated_decay(learning_rate, weight_decay, mask, moved=True),
    )
