"""GradES: matrices that stop training once they hardly move."""

import optax

from optzoo.primitives.base import Count, Mask, NonNegative, transformation
from optzoo.primitives.freezing import Statistic, freeze
from optzoo.primitives.labels import kernel_mask
from optzoo.registry import Trait, wrapper


@wrapper(
    title="GradES: Significantly Faster Training in Transformers with Gradient-Based Early "
    "Stopping",
    authors=(
        "Qifu Wen",
        "Xi Zeng",
        "Zihan Zhou",
        "Shuaijun Liu",
        "Mehdi Hosseinzadeh",
        "Ningxin Su",
        "Reza Rawassizadeh",
    ),
    year=2025,
    arxiv="2509.01842",
    code="https://github.com/IXZZZ9/GradES",
    traits=(Trait.SHAPED,),
)
@transformation
def grades(
    tx: optax.GradientTransformation,
    *,
    tau: NonNegative = 1e-4,
    start: NonNegative = 1000,
    every: Count = 1,
    statistic: Statistic = "update",
    mask: Mask = kernel_mask,
) -> optax.GradientTransformation:
    """Any optimizer, without the matrices that have come to rest.

    Rule:
      after start steps, whenever their number is a multiple of every
      s = Σ|u|, u the change of a matrix since it was last looked at
      where s < tau, the matrix stays as it is from then on
      gradient: s = Σ|g|;   gradient change: s = Σ|g − g₀|, g₀ the one of the step before

    When to use:
      Fine-tuning, where parts of a model are finished long before others. The update of a frozen
      matrix costs nothing to apply, but its gradient is computed as before, until the loss is
      traced anew with `jax.lax.stop_gradient` where `optzoo.frozen_leaves` says True.
      Not with a schedule that falls to 0, at the end of which all are at rest.

    Args:
      tx: the optimizer, with its learning rate; it gets a gradient of 0 for what is frozen.
      tau: the bound, a sum over the matrix: of updates it grows with the learning rate, the
        matrix and `every`. The authors have 1e-4 to 2.4.
      start: the grace period in steps; the authors take 0.3 to 0.55 of the run.
      every: how many steps lie between two looks; the first freezes nothing.
      statistic: what is small: the "update", as in the authors' code; the "gradient", as in the
        first version's text, which keeps no state; or the "gradient_change", as in the third's.
      mask: which leaves may freeze: a tree of booleans, or a function that makes one; None for all,
        by default all that are more than vectors. Stacked layers freeze together.

    Returns:
      The optimizer; `optzoo.frozen_leaves` tells what is frozen.

    Raises:
      ValueError: for an argument out of range.

    References:
      Wen et al. 2025, arXiv 2509.01842; official code IXZZZ9/GradES, whose first look sees no
      change and freezes everything if the grace period is over by then, and which takes the two
      matrices of a LoRA pair as one.
    """
    return freeze(tx, tau, statistic, start=start, every=every, mask=mask)
