"""diffGrad: Adam slowed where the gradient has stopped changing."""

import optax

from optzoo.primitives.base import Decay, DType, LearningRate, Mask, NonNegative, transformation
from optzoo.primitives.combine import merge_leaves, multiply
from optzoo.primitives.decay import add_decayed_weights
from optzoo.primitives.directions import friction
from optzoo.primitives.moments import adam
from optzoo.registry import optimizer


@transformation
def scale_by_diffgrad(
    *,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    mu_dtype: DType = None,
    nu_dtype: DType = None,
) -> optax.GradientTransformation:
    """The direction of `diffgrad`; see there for the arguments."""
    core = adam(b1, b2, eps, eps_on_debiased=False, mu_dtype=mu_dtype, nu_dtype=nu_dtype)
    return merge_leaves(multiply, core, friction(dtype=mu_dtype))


@optimizer(
    title="diffGrad: An Optimization Method for Convolutional Neural Networks",
    authors=(
        "Shiv Ram Dubey",
        "Soumendu Chakraborty",
        "Swalpa Kumar Roy",
        "Snehasis Mukherjee",
        "Satish Kumar Singh",
        "Bidyut Baran Chaudhuri",
    ),
    year=2019,
    arxiv="1909.11015",
    code="https://github.com/shivram1987/diffGrad",
    default=True,
)
@transformation
def diffgrad(
    learning_rate: LearningRate = 1e-3,
    *,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    mask: Mask = None,
    decoupled: bool = False,
    mu_dtype: DType = None,
    nu_dtype: DType = None,
) -> optax.GradientTransformation:
    """Adam with a brake on entries whose gradient barely changes, to settle in minima.

    Rule:
      d = g + weight_decay·p;   ξ = sigmoid(|d_prev − d|), with d_prev = 0 at first
      u = ξ·m·√(1 − b2^t)/(1 − b1^t) / (√v + eps), m and v averages of d and d²
      p ← p − learning_rate·u
      with decoupled, d = g and p ← p − learning_rate·(u + weight_decay·p)

    Against Adam:
      Each entry of Adam's step is multiplied by a friction between 1/2 and 1, smallest where the
      gradient has changed least.

    When to use:
      Image classifiers like the paper's, with gradients that are not tiny. Not where entries change
      by much less than 1 between steps: the friction is 1/2 everywhere, and what runs is Adam at
      half speed.

    Tuning:
      Adam's learning rate, or up to twice as much. The decay is coupled, as L2 in Adam; set
      decoupled=True for AdamW's.

    Args:
      learning_rate: a number, or a schedule of the number of finished steps.
      b1: decay of the first moment, in [0, 1); the plain number 0 keeps no buffer for it.
      b2: decay of the second moment, in [0, 1).
      eps: added to the uncorrected root of the second moment.
      weight_decay: the decay's strength.
      mask: which leaves to decay: a tree of booleans, or a function that makes one.
      decoupled: apply the decay to the step instead of adding it to the gradient.
      mu_dtype: dtype of the first moment and the previous gradient; float32 or wider by default.
      nu_dtype: dtype of the second moment; float32 or wider by default.

    Returns:
      The optimizer. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range.

    References:
      Dubey et al. 2019, arXiv 1909.11015; official code shivram1987/diffGrad, diffGrad_v2.py. The
      first version's previous gradient aliased the present one, which fixed ξ at 1/2 from step 2
      on; the authors replaced it, and it is not offered here.
    """
    direction = scale_by_diffgrad(b1=b1, b2=b2, eps=eps, mu_dtype=mu_dtype, nu_dtype=nu_dtype)
    decay = add_decayed_weights(weight_decay, mask)
    steps = (direction, decay) if decoupled else (decay, direction)
    return optax.chain(*steps, optax.scale_by_learning_rate(learning_rate))
