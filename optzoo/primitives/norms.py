"""Sizes of leaves and trees, as the rules measure them."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from optzoo.primitives.axes import Axes
from optzoo.primitives.base import Tree


def abs_sq(x: jax.Array) -> jax.Array:
    """|x|², without the root that a complex absolute value would take."""
    return jnp.square(x.real) + jnp.square(x.imag) if jnp.iscomplexobj(x) else jnp.square(x)


def root(x: jax.Array) -> jax.Array:
    """√x whose derivative at 0 is finite, for norms of what may be zero."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), x)


def sum_of_squares(tree: Tree) -> jax.Array:
    """Σ |x|² over every number of a tree; 0 for a tree without any."""
    squares = [jnp.sum(abs_sq(leaf)) for leaf in jax.tree.leaves(tree)]
    return functools.reduce(jnp.add, squares) if squares else jnp.zeros([])


def size(tree: Tree) -> int:
    """How many numbers a tree holds."""
    return sum(math.prod(jnp.shape(leaf)) for leaf in jax.tree.leaves(tree))


def layer_energy(spec: Axes | None, x: jax.Array) -> jax.Array:
    """Σ |x|² of a layer: a scalar, or one number a stacked layer where the axes have a batch."""
    return _over_layer(jnp.sum, spec, abs_sq(x))


def layer_maximum(spec: Axes | None, x: jax.Array) -> jax.Array:
    """The largest |x| of a layer, 0 for an empty one, in the shape of `layer_energy`."""
    return _over_layer(functools.partial(jnp.max, initial=0), spec, jnp.abs(x))


def _over_layer(reduce: Callable[..., jax.Array], spec: Axes | None, x: jax.Array) -> jax.Array:
    batch = spec.batch if spec else ()
    reduced = tuple(axis for axis in range(x.ndim) if axis not in batch)
    return reduce(x, axis=reduced, keepdims=bool(batch))


def unit_norm(spec: Axes | None, x: jax.Array) -> jax.Array:
    """The norm of what feeds each output, with kept axes; of the whole leaf without axes."""
    axis = spec.input if spec else None
    return root(jnp.sum(abs_sq(x), axis=axis, keepdims=True))
