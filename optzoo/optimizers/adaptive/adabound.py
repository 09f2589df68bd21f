"""AdaBound: Adam at first, SGD in the end, by bounds on the rates that close."""

import jax.numpy as jnp
import optax

from optzoo.primitives.base import (
    Decay,
    DType,
    LearningRate,
    Mask,
    NonNegative,
    NonNegativeOrSchedule,
    Positive,
    real,
    transformation,
)
from optzoo.primitives.combine import divide, merge_leaves
from optzoo.primitives.decay import add_decayed_weights
from optzoo.primitives.moments import debias, ema, rms
from optzoo.primitives.stepsizes import rate, relative_rate
from optzoo.registry import optimizer


@transformation
def scale_by_adabound(
    learning_rate: LearningRate = 1e-3,
    *,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: Positive = 1e-8,
    final_lr: NonNegativeOrSchedule = 0.1,
    gamma: Positive = 1e-3,
    amsgrad: bool = False,
    peak: NonNegative | None = None,
    mu_dtype: DType = None,
    nu_dtype: DType = None,
) -> optax.GradientTransformation:
    """The step of `adabound` without decay; see there for the arguments.

    The learning rate is an argument because the bounds are rates, too.
    """

    def opened(count):
        return gamma * (real(jnp.asarray(count)) + 1)

    def step(m, eta, final, low, high):
        return m * jnp.clip(eta, final * low, final * high)

    final = (
        rate(final_lr)
        if callable(final_lr)
        else optax.chain(relative_rate(learning_rate, peak), optax.scale(final_lr))
    )
    root = rms(b2, eps, eps_on_debiased=False, amsgrad=amsgrad, dtype=nu_dtype)
    return merge_leaves(
        step,
        ema(b1, debias=False, dtype=mu_dtype),
        optax.chain(merge_leaves(divide, rate(learning_rate), root), debias(b1)),
        final,
        rate(lambda count: 1 - 1 / (opened(count) + 1)),
        rate(lambda count: 1 + 1 / opened(count)),
    )


@optimizer(
    title="Adaptive Gradient Methods with Dynamic Bound of Learning Rate",
    authors=("Liangchen Luo", "Yuanhao Xiong", "Yan Liu", "Xu Sun"),
    year=2019,
    arxiv="1902.09843",
    code="https://github.com/Luolc/AdaBound",
)
@transformation
def adabound(
    learning_rate: LearningRate = 1e-3,
    *,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: Positive = 1e-8,
    final_lr: NonNegativeOrSchedule = 0.1,
    gamma: Positive = 1e-3,
    amsgrad: bool = False,
    peak: NonNegative | None = None,
    weight_decay: NonNegative = 0.0,
    mask: Mask = None,
    decoupled: bool = False,
    mu_dtype: DType = None,
    nu_dtype: DType = None,
) -> optax.GradientTransformation:
    """Adam whose rates are clipped to bounds that close on SGD's rate.

    Rule:
      d = g + weight_decay·p
      f = final_lr·learning_rate/peak;   low = f·(1 − 1/(gamma·t + 1));   high = f·(1 + 1/(gamma·t))
      η = learning_rate·√(1 − b2^t)/(1 − b1^t) / (√v + eps), m and v averages of d and d²
      η ← min(high, max(low, η));   p ← p − η·m
      amsgrad: the largest v so far in place of v (AMSBound)
      decoupled: d = g and p ← p − η·m − weight_decay·p (AdaBoundW)

    Against Adam:
      Each entry's rate moves into a band around final_lr that narrows: in the end it is SGD with
      momentum, whose step is the average m, so final_lr is SGD's rate times 1/(1 − b1).

    When to use:
      Image classifiers that SGD trains best. Not where gradients are far from SGD's usual size: the
      lower bound is at Adam's rate within some ten steps, gamma's 1e-3 notwithstanding, and there
      it may diverge where Adam does not.

    Tuning:
      Adam's learning rate, and SGD's best for final_lr.

    Args:
      learning_rate: a number, or a schedule of the number of finished steps; the bounds follow it.
      b1: decay of the first moment, in [0, 1); the plain number 0 keeps no buffer for it.
      b2: decay of the second moment, in [0, 1).
      eps: added to the uncorrected root of the second moment.
      final_lr: the rate at the end, where learning_rate is at its peak, or a schedule of it, which
        then follows no other.
      gamma: how fast the bounds close, a step.
      amsgrad: divide by the largest second moment so far (AMSBound); one more number a parameter.
      peak: the largest learning rate of the schedule, to which final_lr belongs; by default the
        largest so far. Give it for a schedule that rises, or the bounds do not rise with it.
      weight_decay: the decay's strength.
      mask: which leaves to decay: a tree of booleans, or a function that makes one.
      decoupled: decay by weight_decay·p, without the learning rate, instead of in the gradient.
      mu_dtype: dtype of the first moment; float32 or wider by default.
      nu_dtype: dtype of the second moment; float32 or wider by default.

    Returns:
      The optimizer. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range.

    References:
      Luo et al. 2019, arXiv 1902.09843; official code Luolc/AdaBound. The paper divides the rate by
      √t and corrects no average, its code does neither; pytorch_optimizer decouples the decay by
      default, with the learning rate.
    """
    steps = scale_by_adabound(
        learning_rate,
        b1=b1,
        b2=b2,
        eps=eps,
        final_lr=final_lr,
        gamma=gamma,
        amsgrad=amsgrad,
        peak=peak,
        mu_dtype=mu_dtype,
        nu_dtype=nu_dtype,
    )
    decay = add_decayed_weights(weight_decay, mask)
    return optax.chain(*((steps, decay) if decoupled else (decay, steps)), optax.scale(-1.0))
