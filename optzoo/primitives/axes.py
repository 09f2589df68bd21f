"""The one place that knows what the axes of a leaf mean.

Flax keeps kernels as (in, out) and convolutions as (spatial…, in, out): the output axis is last.
Every rule that looks at a leaf as a matrix asks here, so that another layout is one argument.
Paths and shapes are all that is looked at: nothing here depends on a leaf's numbers.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeGuard

import jax
import numpy as np
from optax.contrib import MuonDimensionNumbers

from optzoo.primitives.base import Tree
from optzoo.primitives.evidence import (
    PROJECTION,
    Seen,
    ancestry,
    gather,
    in_attention,
    is_vector,
    judge,
    owner_name,
    path_name,
)


@dataclass(frozen=True)
class Axes:
    """Which axes of a leaf are inputs, which are outputs, and which count separate matrices.

    Attributes:
      input: the axes that the layer sums over; of a convolution, the channels come last.
      output: the axes of the layer's result.
      batch: the axes along which independent matrices are stacked (scanned layers, experts; the
        heads, for an attention kernel that is to be seen head by head).

      split: the matrices that a fused kernel is made of, side by side along its last output axis:
        how many of equal size (3 for queries, keys and values, the heads for each head), or the
        size of each. Rules that send matrices and others to different optimizers, and what is
        wrapped in `in_blocks`, see each block as a leaf of its own.

    Axes may be counted from the end (-1 is the last); together they must be every axis once.
    """

    input: tuple[int, ...]
    output: tuple[int, ...]
    batch: tuple[int, ...] = ()
    split: int | tuple[int, ...] = 1

    @property
    def whole(self) -> "Axes":
        """The same axes of a kernel that is not split."""
        return replace(self, split=1)

    def blocks(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The sizes of the blocks of a leaf along its last output axis.

        Raises:
          ValueError: if the split does not fill that axis.
        """
        size = shape[self.output[-1]]
        sizes = (
            (size // max(self.split, 1),) * self.split
            if isinstance(self.split, int)
            else self.split
        )
        if sum(sizes) != size or not all(part > 0 for part in sizes):
            raise ValueError(
                f"axes: split must fill the last output axis, {size}, with whole blocks; "
                f"got split={self.split!r} for a leaf of shape {shape}"
            )
        return sizes

    @property
    def order(self) -> tuple[int, ...]:
        """All axes in the order of `to_matrix`: batch, input, output."""
        return (*self.batch, *self.input, *self.output)

    def resolved(self, ndim: int) -> "Axes":
        """The same axes counted from the front.

        Raises:
          ValueError: if they are not the axes of a leaf of rank `ndim`, each once.
        """
        if sorted(axis + ndim * (axis < 0) for axis in self.order) != list(range(ndim)):
            raise ValueError(f"axes must name each of the {ndim} axes of a leaf once; got {self}")
        groups = (self.input, self.output, self.batch)
        inputs, outputs, batch = (tuple(axis % ndim for axis in group) for group in groups)
        return Axes(inputs, outputs, batch, self.split)

    def matrix_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape (batch…, in, out) in which `to_matrix` arranges a leaf of `shape`."""
        spec = self.resolved(len(shape))
        batch = (shape[axis] for axis in spec.batch)
        fans = (math.prod(shape[axis] for axis in group) for group in (spec.input, spec.output))
        return (*batch, *fans)

    def to_matrix(self, leaf: jax.Array) -> jax.Array:
        """The leaf as a stack of matrices (batch…, in, out)."""
        order = self.resolved(leaf.ndim).order
        return leaf.transpose(order).reshape(self.matrix_shape(leaf.shape))

    def from_matrix(self, matrix: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """The inverse of `to_matrix` for a leaf of `shape`."""
        order = self.resolved(len(shape)).order
        return matrix.reshape([shape[axis] for axis in order]).transpose(np.argsort(order))


Spec: TypeAlias = Axes | MuonDimensionNumbers | None
AxesOf: TypeAlias = Callable[[str, Any], Spec]
AxesLike: TypeAlias = Spec | AxesOf | Tree


def map_with_axes(fn: Callable[..., Any], axes: AxesLike, tree: Tree, *rest: Tree) -> Tree:
    """fn(axes of the leaf or None, leaf, *leaves of rest) for every leaf of a tree.

    Args:
      fn: what to do with each leaf; its `Axes` count from the front.
      axes: None for Flax's layout (`flax_axes`); a function of a leaf's path ("a/b/c") and the
        leaf, such as `torch_axes`; an `Axes` for the leaves of its rank, biases and scales
        excepted; or a tree of these, the parameters' or a prefix of it, None meaning "not a
        matrix". Optax's `MuonDimensionNumbers` may stand for an `Axes`: the axes it does not
        name are batch axes.
      tree: parameters or updates; their shapes are enough.
      *rest: trees of the same structure.

    Returns:
      The tree of results.

    Raises:
      ValueError: if a spec does not fit its leaf or a tree of specs leaves one out; the message
        gives the path, the shape and the spec. Also for a spec with a `split`.
    """
    axes_of = axes_reader(axes, tree)

    def mapped(path, leaf, *others):
        spec = axes_of(path_name(path), leaf)
        if spec is not None and spec.split != 1:
            raise ValueError(
                f"axes: {path_name(path)!r} is split, which only what is wrapped in "
                f"`optzoo.primitives.in_blocks` can follow; got {spec}"
            )
        return fn(spec, leaf, *others)

    return jax.tree_util.tree_map_with_path(mapped, tree, *rest)


def flax_axes(path: str, leaf: Any) -> Axes | None:
    """The axes of a leaf of a Flax model (linen or nnx), recognised by its path and shape.

    - Rank 0 and 1, and whatever is named as a bias, a scale or a part of a norm: None.
    - Kernels of the query, key and value projections, (d, heads, head_dim): input d, output the
      rest; fused as (d, 3, heads, head_dim), the 3 is a batch axis.
    - All others (dense, convolution, attention output): the last axis is the output.
    - Leading batch axes for modules lifted by `nn.scan` or `nn.vmap` under their own names
      (ScanBlock_0), for those called layers, blocks, experts, scan… or stacked… without an index
      after it, and for the bare weights of a mixture of experts; two axes are always left.

    That is what one leaf tells. As the `axes` of a whole tree (it is the default) its neighbours
    are asked first, and the model's own names of its axes, where its leaves carry them:

    - Scales of norms with a second axis prove that layers are stacked, and along which axis.
    - The size of the norms is the model's width: the input of queries, keys, values and gates, in
      whichever order their axes come, and the output of what leads back.
    - A bias beside a kernel has the shape of its outputs: (a, b) beside (a,) is (out, in).

    Args:
      path: "a/b/c".
      leaf: an array, or anything with a shape.

    Returns:
      The axes, or None where the leaf is not a matrix.
    """
    return _flax_axes(_alone(path, leaf))


def torch_axes(path: str, leaf: Any) -> Axes | None:
    """The axes of a leaf in the layout of Equinox and PyTorch: (out, in, spatial…).

    Vectors and batch axes are recognised as in `flax_axes`.

    Args:
      path: "a/b/c".
      leaf: an array, or anything with a shape.

    Returns:
      The axes, or None where the leaf is not a matrix.
    """
    return _torch_axes(_alone(path, leaf))


def _alone(path: str, leaf: Any) -> Seen:
    shape = np.shape(leaf)
    return judge(((path, shape, (None,) * len(shape)),))[path]


def _flax_axes(leaf: Seen) -> Axes | None:
    if leaf.vector:
        return None
    rest, batch = leaf.rest, leaf.stacked
    if _is_transposed(leaf, leaf.sizes[-1], leaf.sizes[0]):
        return _torch_order(rest, batch)
    if len(rest) > 2 and not is_convolution(leaf):
        return _projection(leaf)
    if len(rest) > 2 and leaf.bias == leaf.sizes[-2:-1] != leaf.sizes[-1:]:
        return Axes((*rest[:-2], rest[-1]), rest[-2:-1], batch)
    return Axes(rest[:-1], rest[-1:], batch)


def _torch_axes(leaf: Seen) -> Axes | None:
    if leaf.vector:
        return None
    output, channels, *spatial = leaf.rest
    if len(leaf.bias or ()) == 1 and leaf.bias == leaf.sizes[1:2] != leaf.sizes[:1]:
        output, channels = channels, output
    return Axes((*spatial, channels), (output,), leaf.stacked)


def _is_transposed(leaf: Seen, ordinary: int, other: int) -> bool:
    """Whether the bias beside a kernel, or those of its neighbours, show it as (out, in, …)."""
    if len(leaf.bias or ()) == 1 and ordinary != other and leaf.bias in ((ordinary,), (other,)):
        return leaf.bias == (other,)
    return len(leaf.rest) == 2 and bool(leaf.transposed)


def _torch_order(rest: tuple[int, ...], batch: tuple[int, ...]) -> Axes:
    output, channels, *spatial = rest
    return Axes((*spatial, channels), (output,), batch)


def is_convolution(leaf: Seen) -> bool:
    """Whether a leaf of rank 3 and more slides over its leading axes, so that the last is output.

    A kernel as high as it is wide does, and one that has only two axes to multiply over.
    """
    *spatial, _, _ = leaf.sizes
    if "conv" in leaf.path.lower():
        return True
    if sum(size > 1 for size in leaf.sizes) < 3:
        return not re.fullmatch(PROJECTION, owner_name(leaf.path))
    return len(spatial) > 1 and len(set(spatial)) == 1 and not in_attention(leaf.path)


# What the words of a name say of a layer: which part of attention, and which way it leads.
_PARTS = {"q", "k", "v", "query", "key", "value", "queries", "keys", "values", "wq", "wk", "wv"}
_FUSED = {"qkv": {3}, "wqkv": {3}, "kv": {2}, "wkv": {2}, "in": {2, 3}}
_READS = {*_PARTS, *_FUSED, "gate", "gating", "up", "wi"}
_WRITES = {"o", "wo", "out", "output", "down", "vec"}


def _projection(leaf: Seen) -> Axes:
    """A kernel of rank 3 and more between the model's width and heads, or several in one."""
    rest, sizes = leaf.rest, leaf.sizes
    found = set(leaf.words)
    reads, writes = bool(found & _READS), bool(found & _WRITES)
    named = [at for at, axis in enumerate(rest) if leaf.names[axis] == "embed"]
    places = named or [at for at, size in enumerate(sizes) if size == leaf.width]
    known = len(leaf.bias or ())
    if reads and places and not known:
        reading = places[:1]
    elif known and leaf.bias == sizes[-known:] and known < len(sizes):
        reading = list(range(len(sizes) - known))
    elif writes and places:
        written = places[-1]
        inputs = tuple(axis for at, axis in enumerate(rest) if at != written)
        return Axes(inputs, (rest[written],), leaf.stacked)
    elif places and places[-1] == len(sizes) - 1:
        reading = list(range(len(sizes) - 1))
    elif named or (places and in_attention(leaf.path)):
        reading = places[:1]
    elif re.fullmatch(PROJECTION, owner_name(leaf.path)):
        reading = [0]
    else:
        reading = list(range(len(sizes) - 1))
    inputs = tuple(rest[at] for at in reading)
    outputs = tuple(axis for axis in rest if axis not in inputs)
    batch = leaf.stacked
    if len(reading) == 1 and len(outputs) > 1 and (fused := _fused_axis(leaf, reading[0])):
        batch, outputs = (*batch, *fused), tuple(axis for axis in outputs if axis not in fused)
    return Axes(inputs, outputs, tuple(sorted(batch)))


def _fused_axis(leaf: Seen, place: int) -> tuple[int, ...]:
    """The axis that counts what is fused in a projection that reads at `place`: 2 or 3."""
    parts = [word for word in leaf.words if word in _PARTS]
    counts = next((_FUSED[word] for word in leaf.words if word in _FUSED), {len(parts) or 2})
    at, counts = (0, {2, 3}) if place and counts != {1} else (1, counts - {1})
    axis = leaf.rest[at]
    return (axis,) if leaf.sizes[at] in counts and leaf.names[axis] in (None, "qkv") else ()


# The same side by side along one axis, by the words of a name without those for a layer: how many
# matrices. There is one order by the names of GPT-2's projection and of PyTorch's attention; by the
# others, some models have heads or gates by turns.
_KNOWN = {("c", "attn"): 3, ("in",): 3}
_PERHAPS = {
    **dict.fromkeys([("qkv",), ("wqkv",), ("to", "qkv"), ("query", "key", "value")], 3),
    **dict.fromkeys([("kv",), ("wkv",), ("to", "kv"), ("gate", "up")], 2),
}
_LAYER_WORDS = {"proj", "projection", "dense", "linear", "weight", "kernel"}


def _fused(leaf: Seen, spec: Axes, counts: dict[tuple[str, ...], int]) -> int:
    """How many matrices of equal size a kernel holds, by its name and where its shape allows it."""
    count = counts.get(tuple(word for word in leaf.words if word not in _LAYER_WORDS), 1)
    if len(spec.input) != 1 or len(spec.output) != 1:
        return 1
    inputs, outputs = leaf.shape[spec.input[0]], leaf.shape[spec.output[0]]
    gates = "gate" in leaf.words and outputs % count == 0 and outputs > inputs
    attention = in_attention(leaf.path) and outputs == count * inputs
    return count if gates or attention else 1


def blocks_reader(axes: AxesLike, tree: Tree) -> Callable[[str, Any], Axes | None]:
    """`axes_reader` for what can follow a `split`: two names tell of fused kernels by themselves.

    With the library's own axes, the queries, keys and values of `c_attn`, and of `in_proj` in
    attention, are blocks where the kernel is three times as wide as its input. What is fused under
    other names, interleaved, or of unequal parts needs an `Axes` with a split.
    """
    axes_of = axes_reader(axes, tree)
    if not _are_own(axes):
        return axes_of
    seen = gather(tree)

    def read(path: str, leaf: Any) -> Axes | None:
        spec = axes_of(path, leaf)
        return spec and replace(spec, split=_fused(seen[path], spec, _KNOWN))

    return read


def _are_own(axes: AxesLike) -> bool:
    """Whether axes are recognised by paths and shapes."""
    return axes is None or axes is flax_axes or axes is torch_axes


def axes_reader(axes: AxesLike, tree: Tree) -> Callable[[str, Any], Axes | None]:
    """The function of path and leaf that `axes` stands for; its results fit those of `tree`."""
    if _are_own(axes):
        seen = gather(tree)
        read_axes = _torch_axes if axes is torch_axes else _flax_axes
        return lambda path, leaf: read_axes(seen[path])
    if _is_spec(axes):
        return lambda path, leaf: _where_it_fits(axes, path, leaf)
    if is_function(axes):
        return lambda path, leaf: _fitted(axes(path, leaf), path, leaf)
    entries = by_path(axes, _is_spec)

    def read(path: str, leaf: Any) -> Axes | None:
        for owner in ancestry(path):
            if owner in entries:
                spec = entries[owner]
                if is_function(spec):
                    spec, owner = spec(path, leaf), path
                apply = _fitted if owner == path else _where_it_fits
                return apply(spec, path, leaf)
        raise ValueError(
            f"axes: no entry for {path!r} of shape {np.shape(leaf)}; None marks what is no matrix"
        )

    return read


def _fitted(spec: Spec, path: str, leaf: Any) -> Axes | None:
    shape = np.shape(leaf)
    try:
        if isinstance(spec, MuonDimensionNumbers):
            return _from_optax(spec, len(shape))
        return None if spec is None else spec.resolved(len(shape))
    except ValueError as error:
        message = f"axes: {spec} does not fit {path!r} of shape {shape}"
        raise ValueError(message) from error


def _where_it_fits(spec: Spec, path: str, leaf: Any) -> Axes | None:
    """The axes where one spec stands for many leaves: those of its rank that are matrices."""
    ndim = len(np.shape(leaf))
    if spec is None or is_vector(path, ndim):
        return None
    try:
        return _fitted(spec, path, leaf)
    except ValueError:
        return None


def _from_optax(spec: MuonDimensionNumbers, ndim: int) -> Axes:
    groups = [np.atleast_1d(np.asarray(group, int)).tolist() for group in spec]
    inputs, outputs = ([axis + ndim * (axis < 0) for axis in group] for group in groups)
    batch = set(range(ndim)).difference(inputs, outputs)
    return Axes(tuple(inputs), tuple(outputs), tuple(sorted(batch))).resolved(ndim)


def _is_spec(node: Any) -> bool:
    return node is None or isinstance(node, Axes | MuonDimensionNumbers)


def is_function(value: Any) -> TypeGuard[Callable[..., Any]]:
    """Whether a value is a function and not a callable tree, such as an Equinox module."""
    return callable(value) and jax.tree_util.all_leaves([value])


def by_path(tree: Tree, is_leaf: Callable[[Any], bool] | None = None) -> dict[str, Any]:
    """The leaves of a tree under their paths."""
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_leaf)
    return {path_name(path): leaf for path, leaf in leaves}


def doubt(leaf: Seen, spec: Axes, axes: AxesLike) -> str:
    """What `flax_axes` and `torch_axes` take for granted of a leaf where nothing tells its axes."""
    if not _are_own(axes):
        return ""
    if leaf.guessed:
        return "its first axis is taken for a stack, by a name alone; `axes` settles it"
    if (count := _fused(leaf, spec, _PERHAPS)) > 1:
        return (
            f"it is taken for one matrix, though its name speaks of {count}: an `Axes` with a "
            "split in `axes` takes them apart"
        )
    if leaf.vector or len(leaf.rest) < 3 or leaf.bias or leaf.width or any(leaf.names):
        return ""
    order = leaf.sizes[::-1] if axes is torch_axes else leaf.sizes
    square = len(order) > 3 and len(set(order[:-2])) == 1
    if square or "conv" in leaf.path.lower() or re.fullmatch(PROJECTION, owner_name(leaf.path)):
        return ""
    output = "first" if axes is torch_axes else "last"
    return f"the {output} axis is taken for the output; `axes` settles it"
