"""Layca: layers that turn by a set angle each step and keep their norms."""

import optax

from optzoo.primitives.axes import AxesLike
from optzoo.primitives.base import LearningRate, Mask, NonNegative, transformation
from optzoo.primitives.trust import rotate
from optzoo.registry import Trait, wrapper


@wrapper(
    title="Layer rotation: a surprisingly powerful indicator of generalization in deep networks?",
    authors=("Simon Carbonnelle", "Christophe De Vleeschouwer"),
    year=2018,
    arxiv="1806.01603",
    code="https://github.com/ispgroupucl/layer-rotation-tools",
    traits=(Trait.SHAPED,),
)
@transformation
def layca(
    tx: optax.GradientTransformation,
    learning_rate: LearningRate,
    *,
    threshold: NonNegative = 1e-7,
    freeze: bool = True,
    mask: Mask = None,
    axes: AxesLike = None,
) -> optax.GradientTransformation:
    """Any optimizer as a rotation: each layer turns by the same angle a step and keeps its norm.

    Rule:
      d = u − ⟨u, p⟩/⟨p, p⟩·p a layer, u the update of tx
      d ← |p|·d/|d|, or 0 where |d| ≤ threshold
      q = p + learning_rate·d;   p ← |p|·q/|q|

    When to use:
      To control how far every layer turns from its start, which `optzoo.layer_rotation` measures:
      networks whose layers all reach a cosine distance of 1 generalise best in the paper. Not for
      layers that start at zero, which stay there, nor where the size of weights must change.

    Tuning:
      Each step turns by arctan(learning_rate). Try 0.1 to 0.003; only the directions of tx count.

    Args:
      tx: the optimizer; its learning rate only shifts the threshold, a decay in it does nothing.
      learning_rate: tangent of the angle of a step: a number, or a schedule of the number of
        finished steps.
      threshold: the longest update of tx across the weights that does not count as a direction.
      freeze: hold the leaves that the mask leaves out, as the authors' code does; False: they get
        the update of tx.
      mask: which leaves to turn: a tree of booleans, or a function that makes one; None for all
        but vectors and scalars, True for all.
      axes: where a leaf stacks several layers, a spec with batch axes turns each alone.

    Returns:
      The optimizer. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range, or `update` without parameters.

    References:
      Carbonnelle and De Vleeschouwer 2018, arXiv 1806.01603; official code
      ispgroupucl/layer-rotation-tools.
    """
    return optax.chain(
        tx, rotate(learning_rate, threshold=threshold, freeze=freeze, mask=mask, axes=axes)
    )
