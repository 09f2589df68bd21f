"""A penalty on the gradient's norm, by finite differences of gradients."""

from typing import Literal

import jax
import optax

from optzoo.primitives.base import NonNegative, is_zero, transformation
from optzoo.primitives.second import Direction, second_gradient
from optzoo.registry import Trait, wrapper


@wrapper(
    title="Understanding Gradient Regularization in Deep Learning: Efficient Finite-Difference "
    "Computation and Implicit Bias",
    authors=("Ryo Karakida", "Tomoumi Takase", "Tomohiro Hayase", "Kazuki Osawa"),
    year=2022,
    arxiv="2210.02720",
    code=None,
    traits=(Trait.COUPLED, Trait.VALUE_FN),
    gradients=2,
)
@transformation
def gradient_regularization(
    tx: optax.GradientTransformation,
    *,
    strength: NonNegative = 0.025,
    radius: jax.typing.ArrayLike = 0.05,
    penalty: Literal["norm", "square"] = "norm",
) -> optax.GradientTransformation:
    """Adds to the loss a penalty on the norm of its gradient, for one more gradient.

    Rule:
      g₂ = ∇L(p + radius·g/|g|), |g| over all leaves; with penalty square, ∇L(p + radius·g)
      g ← g + strength·(g₂ − g)/radius

    When to use:
      As `sam`, which it is where strength and radius are equal, to choose the two apart. Each step
      costs two gradients. Not where one pass over the data is all there is.

    Args:
      tx: the optimizer, with its learning rate; its decay acts at p.
      strength: factor of the penalty |∇L|, or ½|∇L|² for "square".
      radius: length of the difference, not 0. Positive looks uphill, and negative downhill, which
        generalises less well in the paper, as do very short differences.
      penalty: what is penalised: the "norm", or half its "square".

    Returns:
      The optimizer, with the state of `tx`. It needs the parameters in `update`, and `value_fn`,
      which gets float32 where parameters are narrower.

    Raises:
      ValueError: for an argument out of range, or `update` without parameters or value_fn.

    References:
      Karakida et al. 2022, arXiv 2210.02720, for the square; Zhao et al. 2022, arXiv 2202.03599,
      for the norm, with official code zhaoyang-0204/gnp, whose default divides the first gradient
      by its norm, too, which is not the penalty's gradient.
    """
    if is_zero(radius):
        raise ValueError(f"gradient_regularization: radius must not be 0; got {radius!r}")
    direction: Direction = "unit" if penalty == "norm" else "gradient"
    return second_gradient(tx, direction, radius, strength / radius)
