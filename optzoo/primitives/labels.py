"""Which leaves are matrices to orthogonalise, recognised by path and shape."""

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, TypeAlias

import jax
import numpy as np
import optax
from jax.tree_util import tree_leaves_with_path

from optzoo.primitives.axes import (
    Axes,
    AxesLike,
    axes_reader,
    blocks_reader,
    by_path,
    doubt,
    is_function,
    map_with_axes,
)
from optzoo.primitives.base import Tree
from optzoo.primitives.evidence import ancestry, gather, in_attention, path_name
from optzoo.primitives.obstacles import GUESSED_HEAD, Layer, obstacles

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
    embeddings (positional ones, too), output heads, routers of experts, depthwise kernels, the
    bare parameters of state-space models and matrices of a single row or column. All are
    recognised by path and shape, and by the shapes of the other leaves:

    - A last layer without a telling name (`Dense_2`, `layers/1`) is a head if it mirrors an
      embedding beside it, or if it is the highest-numbered of its kind near the top and no other
      leaf makes or reads its outputs. A last layer as wide as the others counts as hidden.
    - A layer inside a head whose outputs the head reads again or normalises is hidden.
    - A convolution that reads a single channel counts as depthwise.

    `exclude` and `include` overrule; `optzoo.describe` prints the outcome. Where something is
    assumed without proof, a `RoutingWarning` names the leaves, once a process: which axes of a
    matrix are which where nothing tells; a stack of which a name alone tells; one matrix whose name
    speaks of several; a head that no layer of its kind leads to.

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
    found = routes(params, axes, include, exclude)
    warn_of_doubts(found)
    return jax.tree.unflatten(jax.tree.structure(params), [route.label for route in found])


class RoutingWarning(UserWarning):
    """What some leaves are is a guess, which an argument that the message names would settle."""


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
    axes_of = axes_reader(axes, params)
    included = _selector("include", include, params)
    excluded = _selector("exclude", exclude, params)

    def linear(path: str, leaf: Any) -> bool:
        spec = axes_of(path, leaf)
        matrix = spec is not None and (
            len(spec.input) == len(spec.output) == 1 or in_attention(path)
        )
        chosen = matrix or (included(path) and not (shaped and spec is None))
        return chosen and not excluded(path)

    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: linear(path_name(path), leaf), params
    )


def kernel_mask(params: Tree) -> Tree:
    """Which leaves are more than vectors: all but biases, gains and scalars, stacked ones included.

    Args:
      params: parameters or updates in any layout; their shapes are enough.

    Returns:
      The tree of booleans.
    """
    return map_with_axes(lambda spec, _: spec is not None, None, params)


@dataclass(frozen=True)
class Route:
    """Where `matrix_labels` sends one leaf, and why; `doubt` is what was assumed without proof."""

    path: str
    leaf: Any
    axes: Axes | None
    label: Literal["matrix", "other"]
    reason: str
    doubt: str = ""


def routes(
    params: Tree,
    axes: AxesLike = None,
    include: Selection = None,
    exclude: Selection = None,
) -> list[Route]:
    """One `Route` for each leaf, in the order of the tree; arguments as for `matrix_labels`."""
    axes_of = blocks_reader(axes, params)
    included = _selector("include", include, params)
    excluded = _selector("exclude", exclude, params)
    seen = gather(params)
    pairs = [(path_name(path), leaf) for path, leaf in tree_leaves_with_path(params)]
    layers = [Layer(seen[path], axes_of(path, leaf)) for path, leaf in pairs]
    why = obstacles(layers)

    def route(path: str, leaf: Any, layer: Layer) -> Route:
        spec, obstacle = layer.axes, why[path]
        if spec is None:
            return Route(path, leaf, spec, "other", obstacle)
        if excluded(path):
            return Route(path, leaf, spec, "other", "excluded")
        if obstacle and not included(path):
            guess = _GUESSED if obstacle == GUESSED_HEAD else ""
            return Route(path, leaf, spec, "other", obstacle, guess)
        hidden = "hidden matrix" if spec.split == 1 else "fused hidden matrices"
        reason = "included" if obstacle else hidden
        return Route(path, leaf, spec, "matrix", reason, doubt(layer.seen, spec, axes))

    return [route(*pair, layer) for pair, layer in zip(pairs, layers, strict=True)]


_GUESSED = (
    "no other leaf makes or reads its outputs, so it goes to the other optimizer; `exclude` "
    "confirms it, `include` overrules"
)


def warn_of_doubts(found: list[Route]) -> None:
    """Warns of what is assumed of leaves without proof, of the same ones once a process."""
    doubtful = [route for route in found if route.doubt]
    if not doubtful:
        return
    named = "; ".join(
        f"{route.path!r} of shape {np.shape(route.leaf)}: {route.doubt}" for route in doubtful[:3]
    )
    more = f" and {len(doubtful) - 3} more" if len(doubtful) > 3 else ""
    message = f"where the parameters leave it open, this is assumed: {named}{more}"
    if message not in _SAID:
        _SAID.add(message)
        warnings.warn(message, RoutingWarning, stacklevel=3)


_SAID: set[str] = set()


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
