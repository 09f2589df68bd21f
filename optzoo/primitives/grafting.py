"""The length of an update: a fixed one, or another update's."""

import math

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.axes import Axes, AxesLike, map_with_axes
from optzoo.primitives.base import NonNegative, transformation
from optzoo.primitives.combine import merge
from optzoo.primitives.norms import layer_energy, root


def _lengthened(spec: Axes | None, x: jax.Array, length: jax.Array | float, eps) -> jax.Array:
    norm = root(layer_energy(spec, x)) + eps
    # Where squares overflow there is no length to go by: no step, unless x itself is not finite.
    factor = jnp.where(jnp.isinf(norm), 0, length / jnp.where(norm == 0, 1, norm))
    return x * factor


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
        return map_with_axes(
            lambda spec, x, y: _lengthened(spec, x, root(layer_energy(spec, y)), eps), axes, x, y
        )

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

    def matched(spec, x):
        layers = math.prod(x.shape[axis] for axis in spec.batch) if spec else 1
        return _lengthened(spec, x, value * math.sqrt(x.size / max(layers, 1)), eps)

    return optax.stateless(lambda updates, _: map_with_axes(matched, axes, updates))
