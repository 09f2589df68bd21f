"""The length of an update: a fixed one, or another update's."""

import math

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.axes import AxesLike, map_with_axes
from optzoo.primitives.base import NonNegative, Tree, transformation
from optzoo.primitives.combine import merge
from optzoo.primitives.norms import layer_energy, packed, root, unpacked


def _lengthened(tree: Tree, lengths: Tree, eps: NonNegative, axes: AxesLike) -> Tree:
    """Layers with the same directions and other lengths."""
    energies = map_with_axes(layer_energy, axes, tree)
    # As one vector, few kernels do for many layers.
    norms = root(packed(energies)) + eps
    # Where squares overflow there is no length to go by: no step, unless x itself is not finite.
    safe = jnp.where(norms == 0, 1, norms)
    factors = jnp.where(jnp.isinf(norms), 0, packed(lengths) / safe)
    return jax.tree.map(lambda x, by: x * by, tree, unpacked(factors, energies))


@transformation
def graft(
    magnitude: optax.GradientTransformation,
    direction: optax.GradientTransformation,
    *,
    eps: NonNegative = 1e-10,
    axes: AxesLike = None,
) -> optax.GradientTransformation:
    """The direction of one transformation with the length of another.

    Rule, for the outputs x of `direction` and y of `magnitude`, leaf by leaf:
      x·|y|/(|x| + eps)

    Args:
      magnitude: makes the length.
      direction: makes the direction.
      eps: added to the norm; a zero direction stays zero.
      axes: where a leaf stacks several layers, a spec with batch axes gives each its own length.

    Returns:
      A transformation whose state is the pair of both states.

    Raises:
      ValueError: for an argument out of range.

    Source: Agarwal et al. 2020, arXiv 2002.11803.
    """

    def grafted(y, x):
        lengths = map_with_axes(lambda spec, leaf: root(layer_energy(spec, leaf)), axes, y)
        return _lengthened(x, lengths, eps, axes)

    return merge(grafted, magnitude, direction)


@transformation
def match_rms(
    value: NonNegative = 0.2, *, eps: NonNegative = 1e-8, axes: AxesLike = None
) -> optax.GradientTransformation:
    """Gives each leaf a fixed root mean square.

    Rule, for a leaf or stacked layer u of n numbers:
      value·√n·u/(|u| + eps)

    Args:
      value: the root mean square; 0.2 is about that of Adam's steps.
      eps: added to the norm; zero stays zero.
      axes: where a leaf stacks several layers, a spec with batch axes gives each its own.

    Returns:
      A stateless transformation.

    Raises:
      ValueError: for an argument out of range.
    """

    def length(spec, x):
        energy = layer_energy(spec, x)
        return jnp.full_like(energy, value * math.sqrt(x.size / max(energy.size, 1)))

    def matched(updates, _):
        return _lengthened(updates, map_with_axes(length, axes, updates), eps, axes)

    return optax.stateless(matched)
