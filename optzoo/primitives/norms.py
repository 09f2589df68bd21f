"""Sizes of leaves and trees, as the rules measure them."""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec

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


def packed(tree: Tree, order: Sequence[int] | None = None) -> jax.Array:
    """Every number of a tree as one vector: how a state keeps a few numbers a leaf.

    Kept as a tree they would look shaped like the parameters: Flax would box them with the
    parameters' partition specs, and `optax.tree.map_params` shard them alike.

    Args:
      tree: the numbers.
      order: the leaves in the order in which they lie; by default the tree's.
    """
    leaves = [_replicated(leaf) for leaf in jax.tree.leaves(tree)]
    dtype = max((leaf.dtype for leaf in leaves), key=lambda d: d.itemsize, default=float)
    lying = leaves if order is None else [leaves[place] for place in order]
    return jnp.concatenate([jnp.zeros(0, dtype), *(jnp.ravel(x).astype(dtype) for x in lying)])


def unpacked(vector: jax.Array, like: Tree, order: Sequence[int] | None = None) -> Tree:
    """The tree whose numbers `packed` put into a vector, in the shapes and dtypes of `like`."""
    leaves, structure = jax.tree.flatten(like)
    order = range(len(leaves)) if order is None else order
    end = 0
    for place in order:
        leaf = leaves[place]
        start, end = end, end + leaf.size
        leaves[place] = vector[start:end].reshape(leaf.shape).astype(leaf.dtype)
    return jax.tree.unflatten(structure, leaves)


def _replicated(x: jax.Array) -> jax.Array:
    """The whole of an array on every device of an explicit mesh, whose types must agree."""
    if AxisType.Explicit not in jax.sharding.get_abstract_mesh().axis_types:
        return x
    return jax.sharding.reshard(x, PartitionSpec(*[None] * x.ndim))


def layer_energy(spec: Axes | None, x: jax.Array) -> jax.Array:
    """Σ |x|² of a layer: a scalar, or one number a stacked layer where the axes have a batch."""
    return layer_sum(spec, abs_sq(x))


def layer_sum(spec: Axes | None, x: jax.Array) -> jax.Array:
    """The sum of a layer's numbers, in the shape of `layer_energy`."""
    return _over_layer(jnp.sum, spec, x)


def layer_maximum(spec: Axes | None, x: jax.Array) -> jax.Array:
    """The largest |x| of a layer, 0 for an empty one, in the shape of `layer_energy`."""
    return _over_layer(functools.partial(jnp.max, initial=0), spec, jnp.abs(x))


def _over_layer(reduce: Callable[..., jax.Array], spec: Axes | None, x: jax.Array) -> jax.Array:
    batch = spec.batch if spec else ()
    reduced = tuple(axis for axis in range(x.ndim) if axis not in batch)
    return reduce(x, axis=reduced, keepdims=bool(batch))


def layer_norm(spec: Axes | None, x: jax.Array) -> jax.Array:
    """The norm of a layer, shaped like `layer_energy`, of numbers whose squares may overflow."""
    peak = layer_maximum(spec, x)
    scale = jnp.where((peak > 0) & jnp.isfinite(peak), peak, 1)
    return scale * root(layer_energy(spec, x / scale))


def normalized(tree: Tree) -> Tree:
    """A tree divided by its norm over all leaves, whatever the size of its numbers; 0 stays 0."""
    norm = layer_norm(None, packed(jax.tree.map(functools.partial(layer_norm, None), tree)))
    scale = jnp.where(norm > 0, norm, 1)
    return jax.tree.map(lambda x: jnp.where(norm > 0, x / scale.astype(x.real.dtype), 0), tree)


def unit_norm(spec: Axes | None, x: jax.Array) -> jax.Array:
    """The norm of what feeds each output, with kept axes; of the whole leaf without axes."""
    axis = spec.input if spec else None
    return root(jnp.sum(abs_sq(x), axis=axis, keepdims=True))
