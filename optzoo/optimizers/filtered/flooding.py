"""Flooding: training that stays at a loss of more than zero."""

import jax
import optax

from optzoo.primitives.base import transformation
from optzoo.primitives.second import flood
from optzoo.registry import Trait, wrapper


@wrapper(
    title="Do We Need Zero Training Loss After Achieving Zero Training Error?",
    authors=(
        "Takashi Ishida",
        "Ikko Yamane",
        "Tomoya Sakai",
        "Gang Niu",
        "Masashi Sugiyama",
    ),
    year=2020,
    arxiv="2002.08709",
    code="https://github.com/takashiishida/flooding",
    traits=(Trait.VALUE,),
)
@transformation
def flooding(
    tx: optax.GradientTransformation, level: jax.typing.ArrayLike
) -> optax.GradientTransformation:
    """Hands `tx` the gradient turned round wherever the loss is below a level.

    Rule:
      g ← sign(L − level)·g

    When to use:
      Classifiers that reach a training loss near zero and get worse in validation from then on.
      Not where the training loss stays above any level worth choosing.

    Args:
      tx: the optimizer that gets these gradients; a decay in it goes on as before.
      level: the training loss to stay at, in the loss's units; the authors try 0 to 0.2 for
        cross-entropy. Batches whose loss is on different sides of it are turned apart.

    Returns:
      The optimizer, with the state of `tx`. It needs `value` in `update`.

    Raises:
      ValueError: for `update` without value.

    References:
      Ishida et al. 2020, arXiv 2002.08709; official code takashiishida/flooding, which takes
      |L − level| + level as the loss.
    """
    return optax.chain(flood(level), tx)
