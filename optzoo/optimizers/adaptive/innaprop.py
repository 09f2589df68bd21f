"""INNAprop: inertia and Hessian damping on RMSprop's direction."""

import optax

from optzoo.primitives.base import (
    Decay,
    DType,
    LearningRate,
    Mask,
    NonNegative,
    Positive,
    transformation,
)
from optzoo.primitives.combine import divide, gradient, merge_leaves
from optzoo.primitives.dynamics import inertial_newton
from optzoo.primitives.moments import rms
from optzoo.registry import optimizer


@transformation
def scale_by_innaprop(
    learning_rate: LearningRate = 1e-3,
    *,
    alpha: NonNegative = 0.1,
    beta: Positive = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    mu_dtype: DType = None,
    nu_dtype: DType = None,
) -> optax.GradientTransformation:
    """The direction of `innaprop`; see there for the arguments.

    The learning rate is an argument because the velocity's memory is measured by it.
    """
    return optax.chain(
        merge_leaves(divide, gradient, rms(b2, eps, dtype=nu_dtype)),
        inertial_newton(learning_rate, alpha=alpha, beta=beta, dtype=mu_dtype),
    )


@optimizer(
    title="A second-order-like optimizer with adaptive gradient scaling for deep learning",
    authors=("Jérôme Bolte", "Ryan Boustany", "Edouard Pauwels", "Andrei Purica"),
    year=2024,
    arxiv="2410.05871",
    code="https://github.com/innaprop/innaprop",
)
@transformation
def innaprop(
    learning_rate: LearningRate = 1e-3,
    *,
    alpha: NonNegative = 0.1,
    beta: Positive = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.01,
    mask: Mask = None,
    mu_dtype: DType = None,
    nu_dtype: DType = None,
) -> optax.GradientTransformation:
    """RMSprop's direction in an equation of motion with friction and damping along the Hessian.

    Rule:
      d = g / (√(v/(1 − b2^t)) + eps), v the average of g²
      r = learning_rate;   w = weight_decay·p
      h = n + (1 − alpha·beta)/beta·r·w;   n ← (1 − alpha·r)·h + (1 − alpha·beta)·r·d, from 0
      p ← p − r·(beta·d + h + w)

    Against Adam:
      The step is beta times the scaled gradient and a velocity that forgets alpha·learning_rate a
      step, so that its memory, in steps, grows as the rate falls; Adam averages before it divides.

    When to use:
      In AdamW's place, with its memory, where a rule with few users may be tried. Not with the
      defaults for short runs: the velocity fills over 1/(alpha·learning_rate) steps, ten thousand.

    Tuning:
      AdamW's learning rate and decay with (alpha, beta) = (0.1, 0.9) for images; (2, 2), b2 = 0.99
      and weight_decay = 0.1 for language models. At alpha·beta = 1 it is RMSprop.

    Args:
      learning_rate: a number, or a schedule of the number of finished steps.
      alpha: friction, at least 0; not a decay, and without an upper bound.
      beta: damping, above 0; not a decay, and without an upper bound.
      b2: decay of the second moment, in [0, 1).
      eps: added to the corrected root.
      weight_decay: decoupled decay, which the velocity feels, too.
      mask: which leaves to decay: a tree of booleans, or a function that makes one.
      mu_dtype: dtype of the velocity; float32 or wider by default.
      nu_dtype: dtype of the second moment; float32 or wider by default.

    Returns:
      The optimizer. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range.

    References:
      Bolte et al. 2024, arXiv 2410.05871; official code innaprop/innaprop, which keeps
      ψ = (1 − alpha·beta)·p + beta·n and has a pole at learning_rate = beta that cancels here. Its
      second form, innaprop_v2, is the same for a constant rate without decay and another rule
      otherwise.
    """
    return optax.chain(
        merge_leaves(divide, gradient, rms(b2, eps, dtype=nu_dtype)),
        inertial_newton(
            learning_rate,
            alpha=alpha,
            beta=beta,
            weight_decay=weight_decay,
            mask=mask,
            dtype=mu_dtype,
        ),
        optax.scale_by_learning_rate(learning_rate),
    )
