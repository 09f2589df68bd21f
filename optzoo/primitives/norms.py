"""Sizes of leaves and trees, as the rules measure them."""

import functools
import math

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
    batch = spec.batch if spec else ()
    summed = tuple(axis for axis in range(x.ndim) if axis not in batch)
    return jnp.sum(abs_sq(x), axis=summed, keepdims=bool(batch))


def layer_peak(spec: Axes | None, x: jax.Array) -> jax.Array:
    """The largest |x| of a layer, shaped like `layer_energy`; 0 for a layer without numbers."""
    batch = spec.batch if spec else ()
    axes = tuple(axis for axis in range(x.ndim) if axis not in batch)
    return jnp.max(jnp.abs(x), axis=axes, keepdims=bool(batch), initial=0)


def unit_norm(spec: Axes | None, x: jax.Array) -> jax.Array:
    """The norm of what feeds each output, with kept axes; of the whole leaf without axes."""
    axis = spec.input if spec else None
    return root(jnp.sum(abs_sq(x), axis=axis, keepdims=True))
