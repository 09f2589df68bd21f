"""QHM and QHAdam: averages of gradients that the present gradient is mixed with once more."""

from typing import Any

import jax.numpy as jnp
import optax

from optzoo.primitives.base import (
    Decay,
    DType,
    Fraction,
    LearningRate,
    Mask,
    NonNegative,
    transformation,
)
from optzoo.primitives.combine import gradient, merge_leaves
from optzoo.primitives.decay import add_decayed_weights
from optzoo.primitives.moments import ema, second_moment
from optzoo.primitives.norms import abs_sq
from optzoo.registry import Range, optimizer

PAPER: Any = dict(
    title="Quasi-hyperbolic momentum and Adam for deep learning",
    authors=("Jerry Ma", "Denis Yarats"),
    year=2018,
    arxiv="1810.06801",
    code="https://github.com/facebookresearch/qhoptim",
)


def _decayed(direction, learning_rate, weight_decay, mask, decoupled):
    decay = add_decayed_weights(weight_decay, mask)
    steps = (direction, decay) if decoupled else (decay, direction)
    return optax.chain(*steps, optax.scale_by_learning_rate(learning_rate))


@transformation
def scale_by_qhm(
    *, momentum: Decay = 0.999, nu: NonNegative = 0.7, mu_dtype: DType = None
) -> optax.GradientTransformation:
    """The direction of `qhm`; see there for the arguments."""
    average = ema(momentum, debias=False, dtype=mu_dtype)
    return merge_leaves(lambda g, m: (1 - nu) * g + nu * m, gradient, average)


@optimizer(
    **PAPER, ranges={"momentum": Range(0.9, 0.9995, "decay"), "nu": Range(0.0, 1.0, "linear")}
)
@transformation
def qhm(
    learning_rate: LearningRate = 1.0,
    *,
    momentum: Decay = 0.999,
    nu: NonNegative = 0.7,
    weight_decay: NonNegative = 0.0,
    mask: Mask = None,
    decoupled: bool = False,
    mu_dtype: DType = None,
) -> optax.GradientTransformation:
    """SGD along a mixture of the gradient and its average, with more memory than momentum bears.

    Rule:
      d = g + weight_decay·p;   m ← momentum·m + (1 − momentum)·d
      p ← p − learning_rate·((1 − nu)·d + nu·m)
      with decoupled, d = g and p ← p − learning_rate·((1 − nu)·d + nu·m + weight_decay·p)

    Against Adam:
      No scale for each entry: one rate for all, as in SGD. nu = 0 is SGD, nu = 1 SGD with momentum
      and nu = momentum Nesterov's, at learning_rate·(1 − momentum) in the usual notation.

    When to use:
      Where SGD with momentum trains well and its momentum has been tuned. Not for transformers or
      embeddings, which need a scale for each entry.

    Tuning:
      The authors recommend nu = 0.7 and momentum = 0.999 at the learning rate of SGD with momentum
      divided by 1 − its momentum: what is 0.1 there is 1 here.

    Args:
      learning_rate: a number, or a schedule of the number of finished steps.
      momentum: decay of the average, in [0, 1);
        the plain number 0 keeps no buffer for it.
      nu: share of the average in the step; above 1 the gradient is subtracted.
      weight_decay: the decay's strength.
      mask: which leaves to decay: a tree of booleans, or a function that makes one.
      decoupled: apply the decay to the step instead of adding it to the gradient.
      mu_dtype: dtype of the average; float32 or wider by default.

    Returns:
      The optimizer. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range, or `update` without parameters.

    References:
      Ma and Yarats 2018, arXiv 1810.06801; official code facebookresearch/qhoptim, whose class QHM
      has no defaults. The average is not corrected for its start at zero.
    """
    direction = scale_by_qhm(momentum=momentum, nu=nu, mu_dtype=mu_dtype)
    return _decayed(direction, learning_rate, weight_decay, mask, decoupled)


@transformation
def scale_by_qhadam(
    *,
    b1: Decay = 0.995,
    b2: Decay = 0.999,
    nu1: NonNegative = 0.7,
    nu2: Fraction = 1.0,
    eps: NonNegative = 1e-8,
    mu_dtype: DType = None,
    nu_dtype: DType = None,
) -> optax.GradientTransformation:
    """The direction of `qhadam`; see there for the arguments."""

    def mixed(g, m, v):
        # Scaled before it is squared: a square that overflows, times 0, is no number.
        root = jnp.sqrt(abs_sq((1 - nu2) ** 0.5 * g) + nu2 * v)
        return ((1 - nu1) * g + nu1 * m) / (root + eps)

    first, second = ema(b1, dtype=mu_dtype), second_moment(b2, dtype=nu_dtype)
    return merge_leaves(mixed, gradient, first, second)


@optimizer(
    **PAPER,
    ranges={
        "b1": Range(0.9, 0.9995, "decay"),
        "nu1": Range(0.0, 1.0, "linear"),
        "nu2": Range(0.5, 1.0, "linear"),
    },
)
@transformation
def qhadam(
    learning_rate: LearningRate = 1e-3,
    *,
    b1: Decay = 0.995,
    b2: Decay = 0.999,
    nu1: NonNegative = 0.7,
    nu2: Fraction = 1.0,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    mask: Mask = None,
    decoupled: bool = False,
    mu_dtype: DType = None,
    nu_dtype: DType = None,
) -> optax.GradientTransformation:
    """Adam whose two moments are each mixed with what the present gradient alone says.

    Rule:
      d = g + weight_decay·p;   m and v averages of d and d², debiased by 1 − b1^t and 1 − b2^t
      u = ((1 − nu1)·d + nu1·m) / (√((1 − nu2)·d² + nu2·v) + eps)
      p ← p − learning_rate·u
      with decoupled, d = g and p ← p − learning_rate·(u + weight_decay·p)

    Against Adam:
      nu1 = nu2 = 1 is Adam. A smaller nu1 lets the step follow the present gradient while the
      average remembers longer; nu1 = b1 with nu2 = 1 is close to NAdam.

    When to use:
      Adam's tasks, where a longer memory than b1 = 0.9 would help but makes Adam slow to turn.
      Not with a nu2 below 1 where gradients are sparse or spiky, unless eps is raised.

    Tuning:
      Adam's learning rate. The authors recommend nu1 = 0.7, nu2 = 1 and b1 = 0.995; the decay is
      coupled, as L2 in Adam, unless decoupled=True.

    Args:
      learning_rate: a number, or a schedule of the number of finished steps.
      b1: decay of the first moment, in [0, 1);
        the plain number 0 keeps no buffer for it.
      b2: decay of the second moment, in [0, 1).
      nu1: share of the first moment in the direction; above 1 the gradient is subtracted.
      nu2: share of the second moment under the root, in [0, 1].
      eps: added to the root.
      weight_decay: the decay's strength.
      mask: which leaves to decay: a tree of booleans, or a function that makes one.
      decoupled: apply the decay to the step instead of adding it to the gradient.
      mu_dtype: dtype of the first moment; float32 or wider by default.
      nu_dtype: dtype of the second moment; float32 or wider by default.

    Returns:
      The optimizer. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range, or `update` without parameters.

    References:
      Ma and Yarats 2018, arXiv 1810.06801; official code facebookresearch/qhoptim, whose default
      is Adam; here it is what its text recommends.
    """
    direction = scale_by_qhadam(
        b1=b1, b2=b2, nu1=nu1, nu2=nu2, eps=eps, mu_dtype=mu_dtype, nu_dtype=nu_dtype
    )
    return _decayed(direction, learning_rate, weight_decay, mask, decoupled)
