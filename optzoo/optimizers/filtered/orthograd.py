"""⊥Grad: gradients without their part along the weights."""

import optax

from optzoo.primitives.axes import AxesLike
from optzoo.primitives.base import Mask, transformation
from optzoo.primitives.directions import remove_parallel
from optzoo.registry import wrapper


@wrapper(
    title="Grokking at the Edge of Numerical Stability",
    authors=("Lucas Prieto", "Melih Barsbey", "Pedro A. M. Mediano", "Tolga Birdal"),
    year=2025,
    arxiv="2501.04697",
    code="https://github.com/LucasPrietoAl/grokking-at-the-edge-of-numerical-stability",
)
@transformation
def orthograd(
    tx: optax.GradientTransformation,
    *,
    rescale: bool = True,
    mask: Mask = None,
    axes: AxesLike = None,
) -> optax.GradientTransformation:
    """Hands `tx` the gradient without its part along the weights, at its old length.

    Rule:
      q = g − ⟨p, g⟩/⟨p, p⟩·p;   g ← q·|g|/|q|, leaf by leaf
      0 where |q| is rounding, as in a leaf of one number

    When to use:
      Small algorithmic data on which training accuracy is perfect long before the test's: the loss
      is then lowered by mere growth of the logits, which this prevents without weight decay.
      Not for weights that must find their length: leave out gains and temperatures by `mask`.

    Args:
      tx: the optimizer that gets these gradients; a decay in it acts along the weights as before.
      rescale: give what is left the gradient's length, as the code does and the paper's rule
        does not.
      mask: which leaves to treat: a tree of booleans, or a function that makes one; None for all.
      axes: where a leaf stacks several layers, a spec with batch axes treats each alone.

    Returns:
      The optimizer. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range, or `update` without parameters.

    References:
      Prieto et al. 2025, arXiv 2501.04697; official code
      LucasPrietoAl/grokking-at-the-edge-of-numerical-stability, which in a leaf of one number
      enlarges the rounding to the gradient's length; the guard is pytorch_optimizer's.
    """
    return optax.chain(remove_parallel(rescale=rescale, mask=mask, axes=axes), tx)
