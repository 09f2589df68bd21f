"""Leaves as tensors with one matrix for each axis: what Kronecker preconditioners share."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import jax
import jax.numpy as jnp

from optzoo.primitives.axes import Axes, AxesLike, by_path, map_with_axes
from optzoo.primitives.base import Size, Tree, checked

Shape: TypeAlias = tuple[int, ...]
Merge: TypeAlias = Callable[[Shape], Shape]


@checked
def merge_axes(limit: Size, *, keep: Size = 1, last_first: bool = False) -> Merge:
    """A function that merges neighbouring axes of a shape while their product is small.

    Args:
      limit: the largest merged axis; a longer one stays as it is.
      keep: stop when so many axes are left.
      last_first: begin with the last two axes instead of the first two.

    Returns:
      A function from one shape to another of as many numbers.

    Raises:
      ValueError: for an argument out of range.
    """

    def merged(shape: Shape) -> Shape:
        ahead = list(shape[::-1] if last_first else shape)
        done = ahead[:1]
        for number, size in enumerate(ahead[1:], 1):
            left = len(done) + len(ahead) - number
            if left > keep and (done[-1] * size <= limit or 1 in (done[-1], size)):
                done[-1] *= size
            else:
                done.append(size)
        return tuple(done[::-1] if last_first else done)

    return merged


@dataclass(frozen=True)
class Tensors:
    """A leaf as tensors that are treated alike: stacked layers apart, axes merged, long ones cut.

    Attributes:
      order: the leaf's axes, those that stack layers first.
      count: how many layers are stacked.
      rank: how many axes a layer has before merging.
      dims: the axes of one layer, merged.
      block: the longest piece of an axis; None for whole axes.
    """

    order: Shape
    count: int
    rank: int
    dims: Shape
    block: int | None

    @classmethod
    def of(
        cls, spec: Axes | None, shape: Shape, merge: Merge | None = None, block: int | None = None
    ) -> "Tensors":
        """The tensors of a leaf of a shape, of whose axes the spec's batch stacks layers."""
        batch = spec.batch if spec else ()
        own = tuple(axis for axis in range(len(shape)) if axis not in batch)
        dims = tuple(shape[axis] for axis in own)
        if merge:
            dims = merge(dims)
        count = math.prod(shape[axis] for axis in batch)
        return cls((*batch, *own), count, len(own), dims, block)

    @property
    def cuts(self) -> tuple[Shape, ...]:
        """The lengths of the pieces of each axis."""
        return tuple(tuple(_pieces(size, self.block)) for size in self.dims)

    @property
    def shapes(self) -> list[Shape]:
        """The shape of each piece of a layer, the last axis counted fastest."""
        shapes: list[Shape] = [()]
        for pieces in self.cuts:
            shapes = [(*shape, size) for shape in shapes for size in pieces]
        return shapes

    def split(self, leaf: jax.Array) -> list[jax.Array]:
        """The leaf's pieces, each with a leading axis that counts layers."""
        parts = [leaf.transpose(self.order).reshape(self.count, *self.dims)]
        for axis, pieces in enumerate(self.cuts, 1):
            if len(pieces) > 1:
                ends = [sum(pieces[:number]) for number in range(1, len(pieces))]
                parts = [piece for part in parts for piece in jnp.split(part, ends, axis)]
        return parts

    def join(self, parts: Sequence[jax.Array], shape: Shape) -> jax.Array:
        """The leaf of a shape whose pieces these are."""
        parts = list(parts)
        for axis, pieces in reversed([*enumerate(self.cuts, 1)]):
            if len(pieces) > 1:
                groups = [
                    parts[start : start + len(pieces)]
                    for start in range(0, len(parts), len(pieces))
                ]
                parts = [jnp.concatenate(group, axis) for group in groups]
        turned = parts[0].reshape([shape[axis] for axis in self.order])
        return turned.transpose([self.order.index(axis) for axis in range(len(shape))])


def _pieces(size: int, block: int | None) -> Iterator[int]:
    if not block or size <= block:
        yield size
        return
    for start in range(0, size, block):
        yield min(block, size - start)


@dataclass(frozen=True)
class Layout:
    """How the leaves of a tree become blocks, in one list, and blocks become leaves again."""

    axes: AxesLike
    merge: Merge | None
    block: int | None

    def tensors(self, tree: Tree) -> list[Tensors]:
        """How each leaf is seen."""
        found: list[Tensors] = []
        map_with_axes(
            lambda spec, leaf: found.append(Tensors.of(spec, leaf.shape, self.merge, self.block)),
            self.axes,
            tree,
        )
        return found

    def split(self, tree: Tree) -> list[jax.Array]:
        """The blocks of all leaves, one after the other."""
        views = zip(self.tensors(tree), jax.tree.leaves(tree), strict=True)
        return [block for view, leaf in views for block in view.split(leaf)]

    def join(self, blocks: Iterable[jax.Array], tree: Tree) -> Tree:
        """The tree whose leaves have these blocks and the shapes of the leaves of `tree`."""
        rest, (leaves, structure) = iter(blocks), jax.tree.flatten(tree)
        joined = [
            view.join([next(rest) for _ in view.shapes], leaf.shape)
            for view, leaf in zip(self.tensors(tree), leaves, strict=True)
        ]
        return jax.tree.unflatten(structure, joined)

    def pack(self, kept: Iterable[Tree], tree: Tree) -> Tree:
        """What is kept of each block: for each leaf, under its path, a tuple over its blocks.

        Not a tree like `tree`: some of these hold their leaves in boxes for single arrays. Of a
        tree without leaves an empty array is kept, because Optax's map_params lets such a tree
        stand for all others, and only an array may stand for what they have.
        """
        rest, names = iter(kept), by_path(tree)
        if not names:
            return jnp.zeros(0)
        return {
            name: tuple(next(rest) for _ in view.shapes)
            for name, view in zip(names, self.tensors(tree), strict=True)
        }

    def unpack(self, packed: Tree, tree: Tree) -> list[Tree]:
        """What is kept of each block, in one list."""
        return [kept for name in by_path(tree) for kept in packed[name]]


def require_real(params: Tree, who: str) -> None:
    """Raises ValueError that names a leaf of complex numbers, for which matrices are not made."""
    for name, leaf in by_path(params).items():
        if jnp.iscomplexobj(leaf):
            raise ValueError(f"{who}: parameters must be real; {name!r} is {leaf.dtype}")


def second_moment(x: jax.Array, axis: int) -> jax.Array:
    """A tensor contracted with itself over all axes but one."""
    others = [other for other in range(x.ndim) if other != axis]
    return jnp.tensordot(x, x, (others, others))


def on_axis(matrix: jax.Array, x: jax.Array, axis: int) -> jax.Array:
    """A matrix applied to one axis of a tensor."""
    return jnp.moveaxis(jnp.tensordot(matrix, x, (1, axis)), 0, axis)


def is_kept(kept: Tree) -> bool:
    """Whether something is kept of an axis: an array, not the empty tuple."""
    return not isinstance(kept, tuple)


def renewal_shifts(blocks: Sequence[Tree], bins: int) -> dict[int, list[tuple[int, int]]]:
    """Which factors, as (block, axis), are renewed so many steps before the others."""
    places = [
        (block, axis)
        for block, axes in enumerate(blocks)
        for axis, factor in enumerate(axes)
        if is_kept(factor)
    ]
    sizes = [blocks[block][axis] for block, axis in places]
    groups = defaultdict(list)
    shifts = spread_evenly([factor.size * factor.shape[-1] for factor in sizes], bins)
    for place, shift in zip(places, shifts, strict=True):
        groups[shift].append(place)
    return groups


def spread_evenly(costs: Iterable[float], bins: int) -> list[int]:
    """A bin for each cost, the largest first, so that the fullest is no fuller than need be."""
    costs = list(costs)
    loads, places = [0.0] * bins, [0] * len(costs)
    for number in sorted(range(len(costs)), key=lambda number: -costs[number]):
        places[number] = loads.index(min(loads))
        loads[places[number]] += costs[number]
    return places


def kept_finite(new: jax.Array, old: jax.Array) -> jax.Array:
    """`new` where all of it is finite, else `old`: LAPACK may never end on what is not."""
    return jnp.where(jnp.isfinite(new).all(), new, old)


def unit_size(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """An array over its largest entry, so that no square or sum overflows, and that entry.

    Zero stays zero, over 1.
    """
    largest = jnp.max(jnp.abs(x), initial=0.0)
    divisor = jnp.where(largest == 0, 1, largest)
    return x / divisor, divisor
