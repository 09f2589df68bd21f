"""The one place that knows what the axes of a leaf mean.

Flax keeps kernels as (in, out) and convolutions as (spatial…, in, out): the output axis is last.
Every rule that looks at a leaf as a matrix asks here, so that another layout is one argument.
Paths and shapes are all that is looked at: nothing here depends on a leaf's numbers.
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeAlias, TypeGuard

import jax
import numpy as np
from optax.contrib import MuonDimensionNumbers

from optzoo.primitives.base import Tree


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
    axes_of = axes_reader(axes)

    def mapped(path, leaf, *others):
        spec = axes_of(path_name(path), leaf)
        if spec is not None and spec.split != 1:
            raise ValueError(
                f"axes: {path_name(path)!r} is split, which only what is wrapped in "
                f"`optzoo.primitives.in_blocks` can follow; got {spec}"
            )
        return fn(spec, leaf, *others)

    return jax.tree_util.tree_map_with_path(mapped, tree, *rest)


def path_name(path: tuple[Any, ...]) -> str:
    """A leaf's key path as "a/b/c", without the `.value` of Flax's boxes around arrays."""
    if len(path) > 1 and path[-1] == jax.tree_util.GetAttrKey("value"):
        path = path[:-1]
    return jax.tree_util.keystr(path, simple=True, separator="/")


def flax_axes(path: str, leaf: Any) -> Axes | None:
    """The axes of a leaf of a Flax model (linen or nnx), recognised by its path and shape.

    - Rank 0 and 1, and whatever is named as a bias, a scale or a part of a norm: None.
    - Kernels of the query, key and value projections, (d, heads, head_dim): input d, output the
      rest; fused as (d, 3, heads, head_dim), the 3 is a batch axis.
    - All others (dense, convolution, attention output): the last axis is the output.
    - Leading batch axes for modules lifted by `nn.scan` or `nn.vmap` under their own names
      (ScanBlock_0), for those called layers, blocks, experts, scan… or stacked… without an index
      after it, and for the bare weights of a mixture of experts; two axes are always left.

    Names are a convention, not a proof: a convolution inside a module called `layers` that is
    not scanned, or layers scanned along another axis than the first, need the `axes` argument.

    Args:
      path: "a/b/c".
      leaf: an array, or anything with a shape.

    Returns:
      The axes, or None where the leaf is not a matrix.
    """
    ndim = len(np.shape(leaf))
    if is_vector(path, ndim):
        return None
    stacked = _stacked(path, ndim)
    batch, axes = tuple(range(stacked)), tuple(range(stacked, ndim))
    if len(axes) > 2 and PROJECTION.fullmatch(owner_name(path)) and "conv" not in path.lower():
        if len(axes) == 4 and np.shape(leaf)[axes[1]] == 3:
            return Axes(axes[:1], axes[2:], (*batch, axes[1]))
        return Axes(axes[:1], axes[1:], batch)
    return Axes(axes[:-1], axes[-1:], batch)


def torch_axes(path: str, leaf: Any) -> Axes | None:
    """The axes of a leaf in the layout of Equinox and PyTorch: (out, in, spatial…).

    Vectors and batch axes are recognised as in `flax_axes`.

    Args:
      path: "a/b/c".
      leaf: an array, or anything with a shape.

    Returns:
      The axes, or None where the leaf is not a matrix.
    """
    ndim = len(np.shape(leaf))
    if is_vector(path, ndim):
        return None
    batch = tuple(range(_stacked(path, ndim)))
    output, channels, *spatial = range(len(batch), ndim)
    return Axes((*spatial, channels), (output,), batch)


# Names are compared in lower case, without underscores and final digits: Embed_0 is "embed".
_VECTOR = re.compile(r"\w*(bias|scale)|b|beta|gamma")
_NORM = re.compile(r"\w*norm|ln")
PROJECTION = re.compile(r"(to|w)?(q|k|v|kv|qkv|query|key|value|querykeyvalue)(proj|projection)?")
# These are compared with the name as it stands, whose case and digits tell.
_LIFTED = re.compile(r"(?:(?:Scan|Vmap|Checkpoint|Remat)(?=[A-Z]))+")
_STACK = re.compile(r"(\w*_)?(layers|blocks|experts)|(scan|stacked)\w*")
_INDEX = re.compile(r"\d+|(layer|block|expert)s?_?\d+")


def plain(name: str) -> str:
    """A name in lower case, without underscores and final digits."""
    return name.replace("_", "").rstrip("0123456789").lower()


def owner_name(path: str) -> str:
    """The name that says what a leaf is: its module's where its own is just "kernel"."""
    *modules, name = map(plain, path.split("/"))
    return modules[-1] if modules and name in ("kernel", "weight", "w") else name


def is_vector(path: str, ndim: int) -> bool:
    """Whether rank or name tell that a leaf is no matrix."""
    owner, name = owner_name(path), plain(path.rpartition("/")[2])
    normed = ndim == 2 and _NORM.fullmatch(owner)
    return ndim < 2 or bool(_VECTOR.fullmatch(name) or normed)


def _stacked(path: str, ndim: int) -> int:
    """How many leading axes of a leaf count separate matrices."""
    name = path.rpartition("/")[2]
    count = 0
    for module, child in pairwise(path.split("/")):
        if lifted := _LIFTED.match(module):
            count += len(re.findall("Scan|Vmap", lifted[0]))
        elif _STACK.fullmatch(module) and not _INDEX.fullmatch(child):
            count += 1
        elif "moe" in module.lower() and child == name and owner_name(path) == plain(name):
            count += 1
    return min(count, ndim - 2)


def axes_reader(axes: AxesLike) -> Callable[[str, Any], Axes | None]:
    """The function of path and leaf that `axes` stands for; its results fit their leaves."""
    if axes is None:
        return flax_axes
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


def ancestry(path: str) -> Iterator[str]:
    """The path, its parent, and so on up to the root, ""."""
    while path:
        yield path
        path = path.rpartition("/")[0]
    yield ""
