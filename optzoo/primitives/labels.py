"""Which leaves are matrices to orthogonalise, recognised by path and shape."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, TypeAlias

import jax
import numpy as np
import optax
from jax.tree_util import tree_leaves_with_path

from optzoo.primitives.axes import (
    PROJECTION,
    Axes,
    AxesLike,
    ancestry,
    axes_reader,
    by_path,
    is_function,
    is_vector,
    owner_name,
    path_name,
    plain,
)
from optzoo.primitives.base import Tree

Selection: TypeAlias = str | Sequence[str] | Callable[[Tree], Tree] | Tree | None


def matrix_labels(
    params: Tree,
    *,
    axes: AxesLike = None,
    include: Selection = None,
    exclude: Selection = None,
) -> Tree:
    """Which leaves are matrices to orthogonalise, and which go to the other optimizer.

    Hidden matrices and convolution kernels are "matrix". "other" are: vectors and scalars,
    embeddings (positional ones, too), output heads, routers of experts, depthwise kernels and
    matrices of a single row or column. All are recognised by path and shape: a last layer without
    a telling name (`Dense_2`) is a head only if it sits beside an embedding whose shape it
    mirrors and counts as hidden otherwise, and a convolution that reads a single channel counts
    as depthwise. `exclude` and `include` overrule; `optzoo.describe` prints the outcome.

    Args:
      params: parameters or updates; their shapes are enough.
      axes: what the axes of each leaf mean; see `map_with_axes`. No axes, no matrix.
      include: the leaves that are matrices whatever they are called, if they have axes: regular
        expressions (one or several) searched in the paths "a/b/c", or a mask as in
        `optax.masked` (a tree of booleans, a prefix of it, or a function from `params` to one).
      exclude: the leaves that are not, in the same forms; it wins over `include`.

    Returns:
      The tree of "matrix" and "other".

    Raises:
      ValueError: if a regular expression matches no path; the message gives the nearest paths.
        In a masked tree, which hides leaves, that is no error.
    """
    labels = [route.label for route in routes(params, axes, include, exclude)]
    return jax.tree.unflatten(jax.tree.structure(params), labels)


def linear_mask(
    params: Tree,
    *,
    axes: AxesLike = None,
    include: Selection = None,
    exclude: Selection = None,
    shaped: bool = False,
) -> Tree:
    """Which leaves are the matrices of linear maps, embeddings and heads among them.

    Those are the leaves with one input and one output axis, besides batch axes, and the kernels of
    attention however their heads are arranged; vectors, scalars and convolution kernels are not.

    Args:
      params: parameters or updates; their shapes are enough.
      axes: what the axes of each leaf mean; see `map_with_axes`.
      include: leaves to count as linear maps whatever they look like; see `matrix_labels`.
      exclude: leaves never to count; it wins over `include`.
      shaped: count no leaf without axes, whatever `include` says.

    Returns:
      The tree of booleans.

    Raises:
      ValueError: if a regular expression matches no path; the message gives the nearest paths.
    """
    axes_of = axes_reader(axes)
    included = _selector("include", include, params)
    excluded = _selector("exclude", exclude, params)

    def linear(path: str, leaf: Any) -> bool:
        spec = axes_of(path, leaf)
        matrix = spec is not None and (
            len(spec.input) == len(spec.output) == 1 or _in_attention(path)
        )
        chosen = matrix or (included(path) and not (shaped and spec is None))
        return chosen and not excluded(path)

    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: linear(path_name(path), leaf), params
    )


@dataclass(frozen=True)
class Route:
    """Where `matrix_labels` sends one leaf, and why."""

    path: str
    leaf: Any
    axes: Axes | None
    label: Literal["matrix", "other"]
    reason: str


def routes(
    params: Tree,
    axes: AxesLike = None,
    include: Selection = None,
    exclude: Selection = None,
) -> list[Route]:
    """One `Route` for each leaf, in the order of the tree; arguments as for `matrix_labels`."""
    axes_of = axes_reader(axes)
    included = _selector("include", include, params)
    excluded = _selector("exclude", exclude, params)
    leaves = [(path_name(path), leaf) for path, leaf in tree_leaves_with_path(params)]
    specs = [axes_of(path, leaf) for path, leaf in leaves]
    obstacles = [_obstacle(*leaf, spec) for leaf, spec in zip(leaves, specs, strict=True)]
    tied = _shapes_of_heads(leaves, obstacles)

    def route(path: str, leaf: Any, spec: Axes | None, obstacle: str) -> Route:
        if spec is None:
            return Route(path, leaf, spec, "other", obstacle)
        if (_scope(path), spec.matrix_shape(np.shape(leaf))) in tied:
            obstacle = obstacle or "output head"
        if excluded(path):
            return Route(path, leaf, spec, "other", "excluded")
        if obstacle and not included(path):
            return Route(path, leaf, spec, "other", obstacle)
        return Route(path, leaf, spec, "matrix", "included" if obstacle else "hidden matrix")

    return [
        route(*leaf, *why)
        for leaf, why in zip(leaves, zip(specs, obstacles, strict=True), strict=True)
    ]


def _shapes_of_heads(leaves: list[tuple[str, Any]], obstacles: list[str]) -> set[tuple[Any, ...]]:
    """Where and in what shape (in, out) a layer is the head although its name does not say so.

    It is the mirror of the embedding (vocabulary, width) that it sits beside.
    """
    found = [(path, leaf, why) for (path, leaf), why in zip(leaves, obstacles, strict=True)]
    headed = {_scope(path) for path, _, why in found if why == "output head"}
    return {
        (_scope(path), np.shape(leaf)[::-1])
        for path, leaf, why in found
        if why == "embedding" and _scope(path) not in headed and not _POSITION.search(path.lower())
    }


def _scope(path: str) -> str:
    """Where a leaf's module sits: "a" for "a/Dense_0/kernel"."""
    return path.rpartition("/")[0].rpartition("/")[0]


_ATTENTION = re.compile(r"\w*(attention|attn|multihead)\w*")
_EXPERTS = re.compile(r"\w*(moe|expert|mixture)\w*")
_HEAD = re.compile(r"\w*(head|logits?|classifier|readout)|logits\w*|\w*unembed\w*")
_LAST = re.compile(r"out|outputs?|(output|out|final|last)(layer|dense|linear|proj|projection)")
_EMBEDDING = re.compile(r"\w*embed\w*|\w*emb|wte|wpe|pos|posenc|position\w*|cls|\w*tokens?")
_POSITION = re.compile("pos|wpe")
_ROUTER = re.compile(r"\w*router")


def _obstacle(path: str, leaf: Any, axes: Axes | None) -> str:
    """Why a leaf is no matrix to orthogonalise; empty where it is one."""
    shape = np.shape(leaf)
    if axes is None:
        return "vector or scalar" if is_vector(path, len(shape)) else "no matrix by its axes"
    owner = owner_name(path)
    names = [plain(name) for name in path.split("/") if name != "params"]
    near, top_level = names[-3:], len(names) <= 2
    rows, columns = axes.matrix_shape(shape)[-2:]
    if top_level and _LAST.fullmatch(owner):
        return "output head"
    if not _in_attention(path) and any(map(_HEAD.fullmatch, near)):
        return "output head"
    if any(map(_EMBEDDING.fullmatch, near)):
        return "embedding"
    if any(map(_ROUTER.fullmatch, near)):
        return "router"
    # A bare "gate" is a router among experts, but half of a SwiGLU layer where it widens.
    if owner == "gate" and (columns < rows or any(map(_EXPERTS.fullmatch, names))):
        return "router"
    if min(rows, columns) < 2:
        return "single row or column"
    if len(axes.input) > 1 and shape[axes.input[-1]] == 1:
        return "depthwise kernel"
    return ""


def _in_attention(path: str) -> bool:
    """Whether a leaf's path names attention or one of its projections."""
    names = map(plain, path.split("/"))
    return bool(PROJECTION.fullmatch(owner_name(path))) or any(map(_ATTENTION.fullmatch, names))


def _selector(argument: str, selection: Selection, params: Tree) -> Callable[[str], bool]:
    """The predicate on paths that `include` or `exclude` stands for."""
    if selection is None:
        return lambda path: False
    patterns: Any = [selection] if isinstance(selection, str | re.Pattern) else selection
    if isinstance(patterns, Sequence) and all(isinstance(p, str | re.Pattern) for p in patterns):
        for pattern in patterns:
            _check_matches(argument, pattern, params)
        return lambda path: any(re.search(pattern, path) for pattern in patterns)
    mask = by_path(selection(params) if is_function(selection) else selection)
    return lambda path: any(mask.get(owner, False) for owner in ancestry(path))


def _check_matches(argument: str, pattern: str | re.Pattern[str], params: Tree) -> None:
    def is_hidden(node: Any) -> bool:
        return node is None or isinstance(node, optax.MaskedNode)

    leaves = tree_leaves_with_path(params, is_leaf=is_hidden)
    paths = [path_name(path) for path, _ in leaves]
    if not paths or any(isinstance(leaf, optax.MaskedNode) for _, leaf in leaves):
        return
    if not any(re.search(pattern, path) for path in paths):
        text = pattern if isinstance(pattern, str) else pattern.pattern
        near = get_close_matches(text, paths, n=3, cutoff=0)
        raise ValueError(f"{argument}: {text!r} matches no path; the nearest are {near}")
