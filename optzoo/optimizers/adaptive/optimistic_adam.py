"""Optimistic Adam: each step twice, and the one before taken back."""

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
from optzoo.primitives.combine import gradient, merge_leaves, multiply
from optzoo.primitives.decay import add_decayed_weights
from optzoo.primitives.directions import extrapolate
from optzoo.primitives.moments import adam, adam_correction
from optzoo.primitives.stepsizes import rate
from optzoo.registry import optimizer


@transformation
def scale_by_optimistic_adam(
    *,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: Positive = 1e-8,
    optimism: NonNegative = 1.0,
    mu_dtype: DType = None,
    nu_dtype: DType = None,
) -> optax.GradientTransformation:
    """The direction of `optimistic_adam`; see there for the arguments."""
    return optax.chain(
        adam(b1, b2, eps, debias=False, mu_dtype=mu_dtype, nu_dtype=nu_dtype),
        extrapolate(optimism, dtype=mu_dtype),
        merge_leaves(multiply, gradient, rate(adam_correction(b1, b2))),
    )


@optimizer(
    title="Training GANs with Optimism",
    authors=(
        "Constantinos Daskalakis",
        "Andrew Ilyas",
        "Vasilis Syrgkanis",
        "Haoyang Zeng",
    ),
    year=2017,
    arxiv="1711.00141",
    code="https://github.com/vsyrgkanis/optimistic_GAN_training",
)
@transformation
def optimistic_adam(
    learning_rate: LearningRate = 1e-3,
    *,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: Positive = 1e-8,
    optimism: NonNegative = 1.0,
    weight_decay: NonNegative = 0.0,
    mask: Mask = None,
    mu_dtype: DType = None,
    nu_dtype: DType = None,
) -> optax.GradientTransformation:
    """Adam that counts on the next step to be like this one, and takes back the last such guess.

    Rule:
      a = m/(√v + eps), m and v averages of g and g²;   a₀ the a of the step before, 0 at first
      u = √(1 − b2^t)/(1 − b1^t)·(a + optimism·(a − a₀))
      p ← p − learning_rate·(u + weight_decay·p)

    Against Adam:
      It leads the gradients where Adam lags behind them, so that two players who pull in circles
      spiral inwards instead of outwards; eps is beside the root before its correction.

    When to use:
      Games: GANs, adversarial training, min-max problems whose iterates go round. Not for plain
      minimisation, where what it adds is noise.

    Tuning:
      Half of Adam's learning rate, for each step counts twice; small b1, such as 0.5, for GANs.

    Args:
      learning_rate: a number, or a schedule of the number of finished steps.
      b1: decay of the first moment, in [0, 1); the plain number 0 keeps no buffer for it.
      b2: decay of the second moment, in [0, 1).
      eps: added to the root of the second moment.
      optimism: how many further steps to count on, none in Adam; the plain number 0 keeps no buffer
        for it.
      weight_decay: decoupled decay.
      mask: which leaves to decay: a tree of booleans, or a function that makes one.
      mu_dtype: dtype of the first moment and the last direction; float32 or wider by default.
      nu_dtype: dtype of the second moment; float32 or wider by default.

    Returns:
      The optimizer. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range.

    References:
      Daskalakis et al. 2017, arXiv 1711.00141; official code vsyrgkanis/optimistic_GAN_training,
      whose last direction is that of the step before the last. Optax's `optimistic_adam_v2` starts
      with one step and adds eps to the corrected root.
    """
    return optax.chain(
        scale_by_optimistic_adam(
            b1=b1, b2=b2, eps=eps, optimism=optimism, mu_dtype=mu_dtype, nu_dtype=nu_dtype
        ),
        add_decayed_weights(weight_decay, mask),
        optax.scale_by_learning_rate(learning_rate),
    )
