"""NovoGrad: gradients normalised layer by layer, then momentum."""

import optax

from optzoo.primitives.axes import AxesLike
from optzoo.primitives.base import Decay, DType, LearningRate, Mask, NonNegative, transformation
from optzoo.primitives.combine import divide, gradient, merge_leaves
from optzoo.primitives.decay import add_decayed_weights
from optzoo.primitives.moments import layer_rms, momentum
from optzoo.registry import Trait, optimizer


@transformation
def scale_by_novograd(
    *,
    b1: Decay = 0.95,
    b2: Decay = 0.98,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    weight_decay: NonNegative = 0.0,
    mask: Mask = None,
    grad_averaging: bool = False,
    amsgrad: bool = False,
    reinitialize: bool = True,
    axes: AxesLike = None,
    mu_dtype: DType = None,
) -> optax.GradientTransformation:
    """The direction of `novograd`; see there for the arguments.

    The decay is part of it because NovoGrad accumulates it in the momentum.
    """
    layer = layer_rms(
        b2, eps, eps_root=eps_root, amsgrad=amsgrad, reinitialize=reinitialize, axes=axes
    )
    return optax.chain(
        merge_leaves(divide, gradient, layer),
        add_decayed_weights(weight_decay, mask),
        momentum(b1, dampening=b1 if grad_averaging else 0.0, dtype=mu_dtype),
    )


@optimizer(
    title="Stochastic Gradient Methods with Layer-wise Adaptive Moments for Training of Deep "
    "Networks",
    authors=(
        "Boris Ginsburg",
        "Patrice Castonguay",
        "Oleksii Hrinchuk",
        "Oleksii Kuchaiev",
        "Vitaly Lavrukhin",
        "Ryan Leary",
        "Jason Li",
        "Huyen Nguyen",
        "Yang Zhang",
        "Jonathan M. Cohen",
    ),
    year=2019,
    arxiv="1905.11286",
    code="https://github.com/NVIDIA/DeepLearningExamples",
    traits=(Trait.SHAPED,),
    default=True,
)
@transformation
def novograd(
    learning_rate: LearningRate = 1e-3,
    *,
    b1: Decay = 0.95,
    b2: Decay = 0.98,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    weight_decay: NonNegative = 0.0,
    mask: Mask = None,
    grad_averaging: bool = False,
    amsgrad: bool = False,
    reinitialize: bool = True,
    axes: AxesLike = None,
    mu_dtype: DType = None,
) -> optax.GradientTransformation:
    """Momentum on gradients normalised layer by layer; half of Adam's memory.

    Rule:
      n = |g|² per layer;   v ← n while v is 0, then b2·v + (1 − b2)·n
      d = g/(√(v + eps_root) + eps) + weight_decay·p, times (1 − b1) with grad_averaging
      m ← b1·m + d;   p ← p − learning_rate·m

    Against Adam:
      The second moment is one number a layer instead of one a weight, and the decay passes through
      the momentum.

    When to use:
      Speech and image networks, large batches, and where Adam's second moment does not fit. Not for
      embeddings with rare rows, which need a scale of their own.

    Tuning:
      A layer's step has a norm of about learning_rate/(1 − b1) whatever its gradient's, so judge
      the rate by the weights' norms, not by Adam's rates.

    Args:
      learning_rate: a number, or a schedule of the number of finished steps.
      b1: decay of the momentum, in [0, 1).
      b2: decay of each layer's second moment, in [0, 1).
      eps: added to the root of the second moment.
      eps_root: added under the root, as NVIDIA's TensorFlow code does with its epsilon.
      weight_decay: added to the normalised gradient, so it passes through the momentum.
      mask: which leaves to decay: a tree of booleans, or a function that makes one.
      grad_averaging: average into the momentum instead of summing.
      amsgrad: divide by the largest second moment so far.
      reinitialize: restart a second moment that is exactly 0; False: only on the first step.
      axes: a spec with batch axes gives each layer of a stacked leaf its own norm.
      mu_dtype: dtype of the momentum; float32 or wider by default.

    Returns:
      The optimizer. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range.

    References:
      Ginsburg et al. 2019, arXiv 1905.11286; official code NVIDIA/DeepLearningExamples (Jasper),
      whose default b2 is 0 where the paper's, and ours, is 0.98.
    """
    return optax.chain(
        scale_by_novograd(
            b1=b1,
            b2=b2,
            eps=eps,
            eps_root=eps_root,
            weight_decay=weight_decay,
            mask=mask,
            grad_averaging=grad_averaging,
            amsgrad=amsgrad,
            reinitialize=reinitialize,
            axes=axes,
            mu_dtype=mu_dtype,
        ),
        optax.scale_by_learning_rate(learning_rate),
    )
