"""Equally shaped matrices of a tree as one stack, spread over the devices of a mesh."""

import itertools
import math
from collections import defaultdict
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec

from optzoo.primitives.axes import Axes, AxesLike, map_with_axes
from optzoo.primitives.base import Tree


def map_stacks(fn: Callable[[jax.Array], jax.Array], axes: AxesLike, tree: Tree) -> Tree:
    """fn of every matrix of a tree, called once for all matrices of equal shape.

    Under a mesh each device gets whole matrices, its share of the stack, so that `fn` needs no
    communication however the leaves are sharded: one all-to-all for each sharded mesh axis brings
    a matrix together, and one takes it back. Stacks that the devices cannot share evenly are
    filled up with zeros; mesh axes that would not make anybody's share smaller repeat the work.

    Args:
      fn: maps a stack of matrices (k, m, n) to one of the same shape.
      axes: how leaves are matrices; see `optzoo.primitives.axes`. Leaves that are none pass.
      tree: the leaves.

    Returns:
      The tree of results, sharded like `tree` under explicit mesh axes.
    """
    if AxisType.Explicit not in jax.sharding.get_abstract_mesh().axis_types:
        return _map_stacks(fn, axes, tree)
    shardings = jax.tree.map(lambda leaf: jax.typeof(leaf).sharding, tree)
    automatic = jax.sharding.auto_axes(
        lambda leaves: _map_stacks(fn, axes, leaves), out_sharding=shardings
    )
    return automatic(tree)


def _map_stacks(fn: Callable[[jax.Array], jax.Array], axes: AxesLike, tree: Tree) -> Tree:
    mesh = jax.sharding.get_abstract_mesh()
    # The last mesh axis is the inner one where several shard a dimension: it has to leave first.
    devices = {
        name: mesh.shape[name]
        for name, kind in zip(mesh.axis_names[::-1], mesh.axis_types[::-1], strict=True)
        if kind == AxisType.Auto and mesh.shape[name] > 1
    }
    leaves, structure = jax.tree.flatten(tree)
    specs: list[Axes | None] = []
    map_with_axes(lambda spec, leaf: specs.append(spec), axes, tree)
    groups = defaultdict(list)
    for place, (spec, leaf) in enumerate(zip(specs, leaves, strict=True)):
        if spec is not None and leaf.size:
            stack = _stacked(spec, leaf)
            inputs = len(spec.input)
            if not devices:
                stack, inputs = _matrices(stack, inputs), 1
            groups[stack.shape[1:], inputs, stack.dtype].append((place, spec, stack))

    for (dims, inputs, _), members in groups.items():

        def on_matrices(stack, dims=dims, inputs=inputs):
            return fn(_matrices(stack, inputs)).reshape(-1, *dims)

        places, kinds, stacks = zip(*members, strict=True)
        joined = jnp.concatenate(stacks)
        results = _spread(on_matrices, joined, devices) if devices else on_matrices(joined)
        ends = itertools.accumulate(len(stack) for stack in stacks)
        for place, spec, stack, end in zip(places, kinds, stacks, ends, strict=True):
            leaves[place] = spec.from_matrix(results[end - len(stack) : end], leaves[place].shape)
    return jax.tree.unflatten(structure, leaves)


def _stacked(spec: Axes, leaf: jax.Array) -> jax.Array:
    """The leaf as (matrices, input axes…, output axes…)."""
    moved = leaf.transpose(spec.order)
    return moved.reshape(-1, *moved.shape[len(spec.batch) :])


def _matrices(stack: jax.Array, inputs: int) -> jax.Array:
    count, *dims = stack.shape
    return stack.reshape(count, math.prod(dims[:inputs]), math.prod(dims[inputs:]))


def _spread(
    fn: Callable[[jax.Array], jax.Array], stack: jax.Array, devices: dict[str, int]
) -> jax.Array:
    """fn(stack), each device working on its share of whole matrices."""
    count, sharing, share = len(stack), 1, len(stack)
    used: tuple[str, ...] = ()
    for name, size in devices.items():
        if -(-count // (sharing * size)) < share:
            used, sharing = (*used, name), sharing * size
            share = -(-count // sharing)
    stack = jnp.pad(stack, [(0, share * sharing - count)] + [(0, 0)] * (stack.ndim - 1))

    def spec(names, rest):
        return PartitionSpec(names or None, *[rest] * (stack.ndim - 1))

    # One mesh axis at a time, the others staying where they are, is an all-to-all each; in one
    # leap the compiler would give every device everything.
    way = [spec(used[:moved], PartitionSpec.UNCONSTRAINED) for moved in range(len(used) + 1)]
    way.append(spec(used, None))
    for stop in way:
        stack = jax.lax.with_sharding_constraint(stack, stop)
    stack = fn(stack)
    for stop in reversed(way):
        stack = jax.lax.with_sharding_constraint(stack, stop)
    return stack[:count]
