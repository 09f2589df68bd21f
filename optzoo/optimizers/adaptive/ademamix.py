"""AdEMAMix: a fast and a very slow average of the gradient."""

import jax.numpy as jnp
import optax

from optzoo.primitives import schedules
from optzoo.primitives.base import (
    Count,
    Decay,
    DecayOrSchedule,
    DType,
    LearningRate,
    Mask,
    NonNegative,
    NonNegativeOrSchedule,
    at,
    real,
    transformation,
)
from optzoo.primitives.combine import merge_leaves
from optzoo.primitives.decay import add_decayed_weights
from optzoo.primitives.moments import ema, rms
from optzoo.primitives.stepsizes import rate
from optzoo.registry import Range, optimizer


@transformation
def scale_by_ademamix(
    *,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    b3: DecayOrSchedule = 0.9999,
    alpha: NonNegativeOrSchedule = 5.0,
    alpha_warmup: Count | None = None,
    b3_warmup: Count | None = None,
    eps: NonNegative = 1e-8,
    mu_dtype: DType = None,
    nu_dtype: DType = None,
) -> optax.GradientTransformation:
    """The direction of `ademamix`; see there for the arguments."""
    if b3_warmup is not None:
        if callable(b3):
            raise ValueError("ademamix: b3_warmup must be None where b3 is a schedule")
        b3 = schedules.half_life_warmup(b1, b3, b3_warmup)
    if alpha_warmup is not None:
        if callable(alpha):
            raise ValueError("ademamix: alpha_warmup must be None where alpha is a schedule")
        alpha = schedules.alpha_warmup(alpha, alpha_warmup)
    return merge_leaves(
        lambda fast, slow, root, weight: (fast + weight * slow) / root,
        ema(b1, dtype=mu_dtype),
        ema(b3, debias=False, dtype=mu_dtype),
        rms(b2, eps, dtype=nu_dtype),
        rate(lambda count: at(alpha, real(jnp.asarray(count)) + 1)),
    )


@optimizer(
    title="The AdEMAMix Optimizer: Better, Faster, Older",
    authors=("Matteo Pagliardini", "Pierre Ablin", "David Grangier"),
    year=2024,
    arxiv="2409.03137",
    code="https://github.com/apple/ml-ademamix",
    default=True,
    ranges={"b3": Range(0.99, 0.9999, "decay"), "alpha": Range(1.0, 20.0)},
)
@transformation
def ademamix(
    learning_rate: LearningRate = 1e-3,
    *,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    b3: DecayOrSchedule = 0.9999,
    alpha: NonNegativeOrSchedule = 5.0,
    alpha_warmup: Count | None = None,
    b3_warmup: Count | None = None,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    mask: Mask = None,
    mu_dtype: DType = None,
    nu_dtype: DType = None,
) -> optax.GradientTransformation:
    """Adam with a second, very slow momentum, so that gradients count for thousands of steps.

    Rule:
      m ← b1·m + (1 − b1)·g;   s ← b3·s + (1 − b3)·g;   v ← b2·v + (1 − b2)·g²
      u = (m/(1 − b1^t) + alpha·s) / (√(v/(1 − b2^t)) + eps)
      p ← p − learning_rate·(u + weight_decay·p)
      alpha_warmup: alpha·min(1, t/alpha_warmup);   b3_warmup: b3 grows from b1, evenly in half-life

    Against Adam:
      A second, far slower average of the gradient joins the momentum in the numerator, uncorrected
      for its start at zero.

    When to use:
      Long runs, where gradients thousands of steps old still inform. Not for runs of fewer steps
      than 1/(1 − b3), which end before the slow average has filled.

    Tuning:
      AdamW's learning rate and decay, with alpha_warmup and b3_warmup the number of steps of the
      run: without them the first thousands of steps may be unstable.

    Args:
      learning_rate: a number, or a schedule of the number of finished steps.
      b1: decay of the fast average, in [0, 1); the plain number 0 keeps no buffer for it.
      b2: decay of the second moment, in [0, 1).
      b3: decay of the slow average, in [0, 1), or a schedule of the 1-based step; the plain number
        0 keeps no buffer for it.
      alpha: weight of the slow average, or a schedule of the 1-based step.
      alpha_warmup: steps over which alpha grows from 0; the paper takes the whole run.
      b3_warmup: steps over which b3 grows from b1; the paper takes the whole run.
      eps: added to the root of the second moment.
      weight_decay: decoupled decay.
      mask: which leaves to decay: a tree of booleans, or a function that makes one.
      mu_dtype: dtype of both first moments; float32 or wider by default.
      nu_dtype: dtype of the second moment; float32 or wider by default.

    Returns:
      The optimizer. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range, or a warm-up of something that is a schedule.

    References:
      Pagliardini et al. 2024, arXiv 2409.03137; official code apple/ml-ademamix. alpha is 5 in the
      authors' JAX code and 2 in their PyTorch code; the warm-ups count from 1 as in PyTorch.
    """
    return optax.chain(
        scale_by_ademamix(
            b1=b1,
            b2=b2,
            b3=b3,
            alpha=alpha,
            alpha_warmup=alpha_warmup,
            b3_warmup=b3_warmup,
            eps=eps,
            mu_dtype=mu_dtype,
            nu_dtype=nu_dtype,
        ),
        add_decayed_weights(weight_decay, mask),
        optax.scale_by_learning_rate(learning_rate),
    )
