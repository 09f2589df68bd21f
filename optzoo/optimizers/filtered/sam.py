"""SAM and ASAM: gradients from a little uphill, for minima with flat surroundings."""

import optax

from optzoo.primitives.base import Mask, NonNegative, transformation
from optzoo.primitives.second import second_gradient
from optzoo.registry import Trait, wrapper

TRAITS = (Trait.COUPLED, Trait.VALUE_FN)


@wrapper(
    title="Sharpness-Aware Minimization for Efficiently Improving Generalization",
    authors=("Pierre Foret", "Ariel Kleiner", "Hossein Mobahi", "Behnam Neyshabur"),
    year=2020,
    arxiv="2010.01412",
    code="https://github.com/google-research/sam",
    traits=TRAITS,
    gradients=2,
)
@transformation
def sam(
    tx: optax.GradientTransformation, *, rho: NonNegative = 0.05
) -> optax.GradientTransformation:
    """Hands `tx` the gradient of the same batch at the steepest point nearby.

    Rule:
      g ← ∇L(p + rho·g/|g|), |g| over all leaves; at g = 0 it stays 0

    When to use:
      Long training that ends in overfitting: image classifiers from scratch, noisy labels, classes
      of very different size. Each step costs two gradients, so compare it with twice the steps of
      `tx`. Not where one pass over the data is all there is.

    Args:
      tx: the optimizer, with its learning rate; its decay acts at p.
      rho: how far uphill; try 0.02 to 0.2.

    Returns:
      The optimizer, with the state of `tx`. It needs the parameters in `update`, and `value_fn`,
      which gets float32 where parameters are narrower. For loops that cannot hand it over,
      `optzoo.primitives.ascend_then_descend(tx)` is the same rule in two ordinary updates.

    Raises:
      ValueError: for an argument out of range, or `update` without parameters or value_fn.

    References:
      Foret et al. 2020, arXiv 2010.01412; official code google-research/sam, which takes the norm
      of each device's gradient by default, where this is of the whole batch, and puts the decay
      into the loss; davda54/sam's is, as here, the optimizer's.
    """
    return second_gradient(tx, "unit", rho)


@wrapper(
    title="ASAM: Adaptive Sharpness-Aware Minimization for Scale-Invariant Learning of Deep "
    "Neural Networks",
    authors=("Jungmin Kwon", "Jeongseop Kim", "Hyunseo Park", "In Kwon Choi"),
    year=2021,
    arxiv="2102.11600",
    code="https://github.com/SamsungLabs/ASAM",
    traits=TRAITS,
    gradients=2,
)
@transformation
def asam(
    tx: optax.GradientTransformation,
    *,
    rho: NonNegative = 0.5,
    eta: NonNegative = 0.0,
    mask: Mask = None,
) -> optax.GradientTransformation:
    """SAM whose way uphill is longer for large weights than for small ones.

    Rule:
      T = |p| + eta where the mask is True, 1 elsewhere
      g ← ∇L(p + rho·T²·g/|T·g|), the norm over all leaves

    When to use:
      As `sam`, where layers may be scaled against each other without changing the model, as with
      ReLU or normalisation. Not for weights that start at zero, which are never moved uphill
      unless eta is positive.

    Args:
      tx: the optimizer, with its learning rate; its decay acts at p.
      rho: how far uphill, about ten times SAM's; try 0.2 to 2.
      eta: the size that a weight of zero has. The authors' code has 0.01.
      mask: where the way is scaled by size: a tree of booleans, or a function that makes one; None
        for all. The authors leave out biases and gains.

    Returns:
      The optimizer, with the state of `tx`. It needs the parameters in `update`, and `value_fn`,
      which gets float32 where parameters are narrower. For loops that cannot hand it over,
      `optzoo.primitives.ascend_then_descend(tx, "adaptive", 0.5)` is the same rule in two ordinary
      updates.

    Raises:
      ValueError: for an argument out of range, or `update` without parameters or value_fn.

    References:
      Kwon et al. 2021, arXiv 2102.11600; official code SamsungLabs/ASAM; the defaults for eta and
      mask are those of davda54/sam.
    """
    return second_gradient(tx, "adaptive", rho, eta=eta, mask=mask)
