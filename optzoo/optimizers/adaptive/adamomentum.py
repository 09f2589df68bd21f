"""AdaMomentum, later AdaM3: Adam that measures its momentum instead of the gradient."""

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
from optzoo.primitives.combine import divide, merge_leaves
from optzoo.primitives.decay import add_decayed_weights
from optzoo.primitives.moments import debias, ema, rms
from optzoo.registry import optimizer


@transformation
def scale_by_adamomentum(
    *,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: Positive = 1e-16,
    mu_dtype: DType = None,
    nu_dtype: DType = None,
) -> optax.GradientTransformation:
    """The direction of `adamomentum`; see there for the arguments."""
    # An eps that every step adds to v is one under the corrected root, for good.
    root = rms(b2, 0.0, eps_root=eps / (1 - b2), dtype=nu_dtype)
    return optax.chain(
        ema(b1, debias=False, dtype=mu_dtype), merge_leaves(divide, debias(b1), root)
    )


@optimizer(
    title="Rethinking Adam: A Twofold Exponential Moving Average Approach",
    authors=(
        "Yizhou Wang",
        "Yue Kang",
        "Can Qin",
        "Huan Wang",
        "Yi Xu",
        "Yulun Zhang",
        "Yun Fu",
    ),
    year=2021,
    arxiv="2106.11514",
    code="https://github.com/wyzjack/AdaM3",
)
@transformation
def adamomentum(
    learning_rate: LearningRate = 1e-3,
    *,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: Positive = 1e-16,
    weight_decay: NonNegative = 0.0,
    mask: Mask = None,
    decoupled: bool = True,
    mu_dtype: DType = None,
    nu_dtype: DType = None,
) -> optax.GradientTransformation:
    """Adam with the second moment of its own momentum, so that noisy entries move faster.

    Rule:
      m ← b1·m + (1 − b1)·d;   v ← b2·v + (1 − b2)·m² + eps, with d = g
      u = m/(1 − b1^t) / √(v/(1 − b2^t))
      p ← p − learning_rate·(u + weight_decay·p)
      without decoupled, d = g + weight_decay·p and p ← p − learning_rate·u

    Against Adam:
      Adam divides by the size of the gradient, which noise enlarges; this divides by the size of
      its average, which noise leaves small.

    When to use:
      Image classifiers and GANs like the paper's; it has few users. Not without a warm-up: v sees
      the uncorrected m, so that the first step is 1/(1 − b1) times Adam's.

    Tuning:
      Adam's learning rate, with a warm-up. The authors train CIFAR with a coupled decay of 5e-4 and
      eps = 1e-8, ImageNet with a decoupled one of 1e-2.

    Args:
      learning_rate: a number, or a schedule of the number of finished steps.
      b1: decay of the first moment, in [0, 1); the plain number 0 is RMSprop and keeps no buffer;
        the plain number 0 keeps no buffer for it.
      b2: decay of the second moment, in [0, 1).
      eps: added to v in every step, above 0; it accumulates to eps/(1 − b2).
      weight_decay: the decay's strength.
      mask: which leaves to decay: a tree of booleans, or a function that makes one.
      decoupled: apply the decay to the step; False adds it to the gradient.
      mu_dtype: dtype of the first moment; float32 or wider by default.
      nu_dtype: dtype of the second moment; float32 or wider by default.

    Returns:
      The optimizer. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range.

    References:
      Wang et al. 2021, arXiv 2106.11514, first called AdaMomentum; official code wyzjack/AdaM3. Its
      options amsgrad, fixed_decay and rectify, the last on in its GAN copies alone, are not
      offered.
    """
    direction = scale_by_adamomentum(b1=b1, b2=b2, eps=eps, mu_dtype=mu_dtype, nu_dtype=nu_dtype)
    decay = add_decayed_weights(weight_decay, mask)
    steps = (direction, decay) if decoupled else (decay, direction)
    return optax.chain(*steps, optax.scale_by_learning_rate(learning_rate))
