"""GradientStabilizer: every layer's gradient with the norm that its history suggests."""

import optax

from optzoo.primitives.axes import AxesLike
from optzoo.primitives.base import Decay, NonNegative, transformation
from optzoo.primitives.spikes import stabilize_norm
from optzoo.registry import Trait, wrapper


@wrapper(
    title="GradientStabilizer: Fix the Norm, Not the Gradient",
    authors=(
        "Tianjin Huang",
        "Zhangyang Wang",
        "Haotian Hu",
        "Zhenyu Zhang",
        "Gaojie Jin",
        "Xiang Li",
        "Li Shen",
        "Jiaxing Shang",
        "Tianlong Chen",
        "Ke Li",
        "Lu Liu",
        "Qingsong Wen",
        "Shiwei Liu",
    ),
    year=2026,
    arxiv="2502.17055",
    url="https://arxiv.org/abs/2502.17055v3",
    code="https://github.com/TianjinYellow/GradientStabilizer",
    traits=(Trait.SHAPED,),
)
@transformation
def gradient_stabilizer(
    tx: optax.GradientTransformation,
    *,
    gamma1: Decay = 0.6,
    gamma2: Decay = 0.999,
    eps: NonNegative = 1e-12,
    bias_correction: bool = True,
    axes: AxesLike = None,
) -> optax.GradientTransformation:
    """Hands `tx` each layer's gradient with a norm from running averages, whatever its own norm.

    Rule:
      layer by layer, n the layer's usable gradients so far
      r = |g|;   A ← gamma1·A + (1 − gamma1)·r;   B ← gamma2·B + (1 − gamma2)·r²
      g ← g·(A/(1 − gamma1^n)) / (√(B/(1 − gamma2^n)) + eps) / max(r, eps)

    When to use:
      In front of any rule whose gradients jump; directions stay as they are. A single huge gradient
      comes out with a norm of up to (1 − gamma1)/√(1 − gamma2), 12.6 by default, however huge.
      Not where norms of gradients carry information, as they do for SGD near a minimum.

    Args:
      tx: the optimizer that gets these gradients.
      gamma1: decay of the norms, in [0, 1).
      gamma2: decay of the squared norms, in [0, 1).
      eps: added to the root, and the smallest norm to divide by.
      bias_correction: correct the averages for their start at zero.
      axes: a spec with batch axes gives each stacked layer its own norm; see
        `optzoo.primitives.axes`.

    Returns:
      The optimizer. A layer whose gradient is 0 or not finite passes as it is and does not count.

    Raises:
      ValueError: for an argument out of range.

    References:
      Huang et al. 2026, arXiv 2502.17055v3, the third version of Stable-SPAM's paper under a new
      title; official code TianjinYellow/GradientStabilizer.
    """
    stabilized = stabilize_norm(
        gamma1,
        gamma2,
        eps,
        floor=eps,
        debias=bias_correction,
        skip_unusable=True,
        axes=axes,
    )
    return optax.chain(stabilized, tx)
