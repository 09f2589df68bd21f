"""Equally shaped matrices of a tree as one stack, spread over the devices of a mesh."""

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Sequence

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
    (result,), _ = update_stacks(lambda stack: (fn(stack),), axes, (tree,))
    return result


def update_stacks(
    fn: Callable[..., tuple[jax.Array, ...]],
    axes: AxesLike,
    trees: tuple[Tree, ...],
    states: tuple[Tree, ...] = (),
) -> tuple[tuple[Tree, ...], tuple[Tree, ...]]:
    """`map_stacks` for functions of several trees that keep something of each matrix.

    Args:
      fn: takes a stack of matrices for each of `trees` and one of whatever is kept for each of
        `states`, and returns as many, of the same shapes, in a tuple.
      axes: how leaves of `trees` are matrices; leaves that are none pass.
      trees: trees of the same structure and shapes.
      states: trees of arrays of `matrix_shapes`.

    Returns:
      The new trees and the new states.
    """
    return automatic(
        lambda trees, states: _update_stacks(fn, axes, trees, states),
        (trees, states),
        trees,
        states,
    )


def automatic(fn: Callable[..., Tree], like: Tree, *args: Tree) -> Tree:
    """fn(*args), whose explicit mesh axes become automatic inside.

    Args:
      fn: returns a tree of the structure and shapes of `like`.
      like: what the results are sharded like.
      *args: trees of arrays.
    """
    if AxisType.Explicit not in jax.sharding.get_abstract_mesh().axis_types:
        return fn(*args)
    shardings = jax.tree.map(lambda leaf: jax.typeof(leaf).sharding, like)
    return jax.sharding.auto_axes(fn, out_sharding=shardings)(*args)


def map_equal(
    fn: Callable[..., Tree], parts: Sequence[tuple[Tree, ...]], *, spread: bool = False
) -> list[Tree]:
    """fn(*part) for every part, called once for all that are equally shaped.

    Args:
      fn: a function of trees of arrays, written for one part without the leading axis.
      parts: tuples of trees; a leading axis of every array counts independent parts.
      spread: for LAPACK's decompositions: under a mesh, each device takes its share of whole parts,
        as in `map_stacks`, and one shape waits for the other.

    Returns:
      The results in the order of the parts.
    """
    devices = _devices() if spread else {}
    groups = defaultdict(list)
    for place, part in enumerate(parts):
        leaves, structure = jax.tree.flatten(part)
        kinds = tuple((leaf.shape[1:], leaf.dtype) for leaf in leaves)
        groups[structure, kinds].append((place, leaves))
    results: list[Tree] = [None] * len(parts)
    made: Tree = ()
    for (structure, _), members in groups.items():

        def together(*stacks, structure=structure):
            return jax.vmap(fn)(*structure.unflatten(stacks))

        joined = [_joined(stacks) for stacks in zip(*(m for _, m in members), strict=True)]
        if spread:
            joined = after(made, joined)
        made = _spread(together, joined, devices) if devices else together(*joined)
        end = 0
        for place, leaves in members:
            start, end = end, end + len(leaves[0])
            results[place] = _sliced(made, start, end, single=len(members) == 1)
    return results


def after(previous: Tree, arrays: list[jax.Array]) -> list[jax.Array]:
    """The arrays unchanged, but not before an array of `previous` is there.

    Batches of LAPACK's decompositions that run at the same time can lock up XLA's threads on CPUs.
    """
    first = next((leaf for leaf in jax.tree.leaves(previous) if leaf.size and is_float(leaf)), None)
    if first is None:
        return arrays
    # Never true of what LAPACK returns, which the compiler cannot know.
    late = first.reshape(-1)[0] > jnp.finfo(first.dtype).max
    return [x + jnp.where(late, 1, 0).astype(x.dtype) for x in arrays]


def is_float(x: jax.Array) -> bool:
    """Whether an array holds real floating-point numbers."""
    return jnp.issubdtype(x.dtype, jnp.floating)


def _joined(stacks: Sequence[jax.Array]) -> jax.Array:
    return jnp.concatenate(stacks) if len(stacks) > 1 else stacks[0]


def _sliced(tree: Tree, start: int, end: int, *, single: bool) -> Tree:
    return tree if single else jax.tree.map(lambda stack: stack[start:end], tree)


def matrix_shapes(
    shape: Callable[[int, int], tuple[int, ...]], axes: AxesLike, params: Tree
) -> Tree:
    """The shapes of what is kept of each matrix of a tree, (batch…, *shape(in, out)) a leaf.

    A state keeps such a tree `packed`, since matrices seldom take the parameters' shardings.

    Args:
      shape: what to keep of a matrix with so many inputs and outputs.
      axes: how leaves are matrices; see `optzoo.primitives.axes`.
      params: the leaves.

    Returns:
      The tree of shapes and dtypes; nothing, (0,), is kept of a leaf that is no matrix.
    """

    def kept(spec, leaf):
        if spec is None:
            return jax.ShapeDtypeStruct((0,), leaf.dtype)
        *batch, fan_in, fan_out = spec.matrix_shape(leaf.shape)
        return jax.ShapeDtypeStruct((*batch, *shape(fan_in, fan_out)), leaf.dtype)

    return map_with_axes(kept, axes, params)


def side_by_side(axes: AxesLike, tree: Tree) -> list[int]:
    """The leaves of a tree in an order in which matrices of equal shape are neighbours.

    Packed in it, what is kept of a stack of matrices is one slice of the vector, not one a leaf.
    """
    keys: list[tuple[int, ...]] = []
    map_with_axes(
        lambda spec, leaf: keys.append(spec.matrix_shape(leaf.shape)[-2:] if spec else ()),
        axes,
        tree,
    )
    return sorted(range(len(keys)), key=keys.__getitem__)


def _devices() -> dict[str, int]:
    mesh = jax.sharding.get_abstract_mesh()
    # The last mesh axis is the inner one where several shard a dimension: it has to leave first.
    return {
        name: mesh.shape[name]
        for name, kind in zip(mesh.axis_names[::-1], mesh.axis_types[::-1], strict=True)
        if kind == AxisType.Auto and mesh.shape[name] > 1
    }


def _update_stacks(fn, axes: AxesLike, trees, states):
    devices = _devices()
    flat, structures = zip(*map(jax.tree.flatten, (*trees, *states)), strict=True)
    specs: list[Axes | None] = []
    map_with_axes(lambda spec, leaf: specs.append(spec), axes, trees[0])
    groups = defaultdict(list)
    for place, (spec, *leaves) in enumerate(zip(specs, *flat, strict=True)):
        if spec is not None and leaves[0].size:
            stacks = [_stacked(spec, leaf) for leaf in leaves[: len(trees)]]
            inputs = len(spec.input)
            if not devices:
                stacks, inputs = [_matrices(stack, inputs) for stack in stacks], 1
            # What is kept comes from a vector and goes back to one: as vectors, parts that lie side
            # by side are joined again by XLA.
            kept = [leaf.reshape(-1) for leaf in leaves[len(trees) :]]
            dims = [stack.shape[1:] for stack in stacks]
            dims += [leaf.shape[len(spec.batch) :] for leaf in leaves[len(trees) :]]
            stacks += kept
            key = tuple(zip(dims, (stack.dtype for stack in stacks), strict=True))
            groups[key, inputs].append((place, spec, stacks))

    for (shapes, inputs), members in groups.items():
        shape = shapes[0][0]

        def on_matrices(*stacks, shape=shape, inputs=inputs):
            matrices = [_matrices(stack, inputs) for stack in stacks[: len(trees)]]
            results = fn(*matrices, *stacks[len(trees) :])
            whole = [result.reshape(-1, *shape) for result in results[: len(trees)]]
            return [*whole, *results[len(trees) :]]

        places, kinds, parts = zip(*members, strict=True)
        joined = [
            jnp.concatenate(stacks).reshape(-1, *shape)
            for stacks, (shape, _) in zip(zip(*parts, strict=True), shapes, strict=True)
        ]
        results = _spread(on_matrices, joined, devices) if devices else on_matrices(*joined)
        results[len(trees) :] = [result.reshape(-1) for result in results[len(trees) :]]
        counts = [len(first) for first, *_ in parts]
        ends = itertools.accumulate(counts)
        for place, spec, count, end in zip(places, kinds, counts, ends, strict=True):
            for number, (leaves, result) in enumerate(zip(flat, results, strict=True)):
                shape = leaves[place].shape
                if number < len(trees):
                    leaves[place] = spec.from_matrix(result[end - count : end], shape)
                else:
                    each = leaves[place].size // count
                    leaves[place] = result[(end - count) * each : end * each].reshape(shape)
    new = [jax.tree.unflatten(*pair) for pair in zip(structures, flat, strict=True)]
    return tuple(new[: len(trees)]), tuple(new[len(trees) :])


def _stacked(spec: Axes, leaf: jax.Array) -> jax.Array:
    """The leaf as (matrices, input axes…, output axes…)."""
    moved = leaf.transpose(spec.order)
    return moved.reshape(-1, *moved.shape[len(spec.batch) :])


def _matrices(stack: jax.Array, inputs: int) -> jax.Array:
    count, *dims = stack.shape
    return stack.reshape(count, math.prod(dims[:inputs]), math.prod(dims[inputs:]))


def _spread(fn: Callable[..., Tree], stacks: list[jax.Array], devices: dict[str, int]) -> Tree:
    """fn(*stacks), each device working on its share of whole matrices."""
    count, sharing, share = len(stacks[0]), 1, len(stacks[0])
    used: tuple[str, ...] = ()
    for name, size in devices.items():
        if -(-count // (sharing * size)) < share:
            used, sharing = (*used, name), sharing * size
            share = -(-count // sharing)

    # One mesh axis at a time, the others staying where they are, is an all-to-all each; in one
    # leap the compiler would give every device everything.
    free = PartitionSpec.UNCONSTRAINED
    way = [(used[:moved], free) for moved in range(len(used) + 1)] + [(used, None)]

    def along(way, stack):
        for names, rest in way:
            spec = PartitionSpec(names or None, *[rest] * (stack.ndim - 1))
            stack = jax.lax.with_sharding_constraint(stack, spec)
        return stack

    def there(stack):
        return along(
            way, jnp.pad(stack, [(0, share * sharing - count)] + [(0, 0)] * (stack.ndim - 1))
        )

    def back(stack):
        return along(reversed(way), stack)[:count]

    return jax.tree.map(back, fn(*map(there, stacks)))
