"""Grams: Adam's step sizes with the gradient's signs."""

import optax

from optzoo.primitives.base import Decay, DType, LearningRate, Mask, NonNegative, transformation
from optzoo.primitives.combine import gradient, merge_leaves
from optzoo.primitives.decay import add_decayed_weights
from optzoo.primitives.directions import take_sign
from optzoo.primitives.moments import adam
from optzoo.registry import optimizer


@transformation
def scale_by_grams(
    *,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-6,
    bias_correction: bool = True,
    eps_on_debiased: bool = False,
    mu_dtype: DType = None,
    nu_dtype: DType = None,
) -> optax.GradientTransformation:
    """The direction of `grams`; see there for the arguments."""
    sizes = adam(
        b1,
        b2,
        eps,
        debias=bias_correction,
        eps_on_debiased=eps_on_debiased,
        mu_dtype=mu_dtype,
        nu_dtype=nu_dtype,
    )
    return merge_leaves(take_sign, sizes, gradient)


@optimizer(
    title="Grams: Gradient Descent with Adaptive Momentum Scaling",
    authors=("Yang Cao", "Xiaoyu Li", "Zhao Song"),
    year=2024,
    arxiv="2412.17107",
    code="https://github.com/Gunale0926/Grams",
    default=True,
)
@transformation
def grams(
    learning_rate: LearningRate = 1e-3,
    *,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-6,
    weight_decay: NonNegative = 0.0,
    mask: Mask = None,
    bias_correction: bool = True,
    eps_on_debiased: bool = False,
    mu_dtype: DType = None,
    nu_dtype: DType = None,
) -> optax.GradientTransformation:
    """Adam's step sizes with the present gradient's signs, so no entry moves against its gradient.

    Rule:
      u = sign(g)·|m|·√(1 − b2^t)/(1 − b1^t) / (√v + eps), m and v averages of g and g²
      p ← p − learning_rate·(u + weight_decay·p);   an entry with g = 0 only decays

    Against Adam:
      The momentum decides only how far each entry moves; the present gradient decides which way.

    When to use:
      In AdamW's place, where momentum overshoots. Not for very noisy gradients: signs are those of
      one batch, and no average quietens them.

    Tuning:
      AdamW's learning rate and decay.

    Args:
      learning_rate: a number, or a schedule of the number of finished steps.
      b1: decay of the first moment, in [0, 1); the plain number 0 keeps no buffer for it.
      b2: decay of the second moment, in [0, 1).
      eps: added to the root of the second moment.
      weight_decay: decoupled decay.
      mask: which leaves to decay: a tree of booleans, or a function that makes one.
      bias_correction: correct the moments for their start at zero.
      eps_on_debiased: add eps to the corrected root √(v/(1 − b2^t)), as the paper's box has it.
      mu_dtype: dtype of the first moment; float32 or wider by default.
      nu_dtype: dtype of the second moment; float32 or wider by default.

    Returns:
      The optimizer. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range.

    References:
      Cao et al. 2024, arXiv 2412.17107; official code Gunale0926/Grams, which adds eps to the raw
      root; `eps_on_debiased=True` is the paper's.
    """
    return optax.chain(
        scale_by_grams(
            b1=b1,
            b2=b2,
            eps=eps,
            bias_correction=bias_correction,
            eps_on_debiased=eps_on_debiased,
            mu_dtype=mu_dtype,
            nu_dtype=nu_dtype,
        ),
        add_decayed_weights(weight_decay, mask),
        optax.scale_by_learning_rate(learning_rate),
    )
