"""Who got what: a table of the leaves and of the transformation that holds each."""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import jax
import numpy as np
import optax
from jax.tree_util import DictKey, GetAttrKey, tree_leaves_with_path

from optzoo.primitives.axes import AxesLike
from optzoo.primitives.base import Tree
from optzoo.primitives.evidence import path_name
from optzoo.primitives.labels import Route, Selection, routes


def describe(
    tx: optax.GradientTransformation | None,
    params: Tree,
    *,
    axes: AxesLike = None,
    include: Selection = None,
    exclude: Selection = None,
) -> str:
    """A table of what a transformation does with each leaf, so that nobody has to guess.

    The group of a leaf is read off the state that `tx` makes for these parameters: it is the
    label under which `optax.partition` holds the leaf (for Muon and AdaGO "matrix" or "other"),
    "all" without a partition. Nothing is computed: shapes are enough.

    Args:
      tx: any optax transformation; None shows where `matrix_labels` sends each leaf.
      params: the parameters, or their `jax.ShapeDtypeStruct`s.
      axes: as given to `tx`; see `map_with_axes`.
      include: as given to `tx`; see `matrix_labels`.
      exclude: as given to `tx`; see `matrix_labels`.

    Returns:
      One line a leaf: path, shape, dtype, group, the matrix it is seen as (in × out, with the
      number of stacked matrices in front), bytes of state, and the reason for its group; then
      one line a group. Where the state has Kronecker factors, a column shows them, axis by axis:
      n² for a matrix, n for its diagonal, — for nothing, with the number of equal blocks in front.
      Where the state contradicts the reason, the reason reads "overruled"; a question mark behind
      it is followed by what was assumed of the axes without proof.
    """
    found = routes(params, axes, include, exclude)
    held = [_Held({route.label}) for route in found] if tx is None else _holdings(tx, params, found)
    groups = [" ".join(sorted(hold.groups)) or "all" for hold in held]
    columns = {
        "leaf": [route.path for route in found],
        "shape": [str(np.shape(route.leaf)) for route in found],
        "dtype": [str(jax.dtypes.result_type(route.leaf)) for route in found],
        "group": groups,
        "in × out": [_matrix(route) for route in found],
        "factors": [hold.factors for hold in held],
        "state bytes": ["" if tx is None else f"{hold.bytes:,}" for hold in held],
        "why": [_reason(route, group) for route, group in zip(found, groups, strict=True)],
    }
    if not any(columns["factors"]):
        del columns["factors"]
    head, rows = tuple(columns), zip(*columns.values(), strict=True)
    return "\n".join([_aligned([head, *rows]), "", *_totals(found, groups, held)])


@dataclass
class _Held:
    """What a state keeps for one leaf, and under which labels."""

    groups: set[str] = field(default_factory=set)
    bytes: int = 0
    factors: str = ""


def _holdings(tx: optax.GradientTransformation, params: Tree, found: list[Route]) -> list[_Held]:
    """What the state of `tx` holds for each leaf: state trees end in the parameters' paths.

    Those of a leaf that is split go on with the number of the block.
    """
    paths = [path for path, _ in tree_leaves_with_path(params)]
    held = {path: _Held() for path in paths}
    # What keeps several arrays of a leaf has them under its path, as a name.
    named = {DictKey(path_name(path)): path for path in paths}
    split = {
        path
        for path, route in zip(paths, found, strict=True)
        if route.axes is not None and route.axes.split != 1
    }
    labels: set[str] = set()
    state = jax.eval_shape(tx.init, params)
    for _, factors in optax.tree.get_all_with_path(state, "factors"):
        for key, path in named.items():
            if isinstance(factors, dict) and key.key in factors:
                held[path].factors = _factors(factors[key.key])
    for path, node in tree_leaves_with_path(state, is_leaf=_is_empty):
        label = {str(key.key) for field, key in pairwise(path) if field == _PARTITION}
        labels |= label
        owner = next((path[start:] for start in range(len(path)) if path[start:] in held), ())
        owner = owner or next((named[key] for key in path if key in named), ())
        owner = owner or next(
            (path[start:-1] for start in range(len(path)) if path[start:-1] in split), ()
        )
        if owner in held and not _is_empty(node):
            held[owner].groups |= label
            held[owner].bytes += math.prod(node.shape) * node.dtype.itemsize
    # A group that keeps nothing for its leaves (SGD, say) is known by elimination.
    stateless = labels.difference(*(hold.groups for hold in held.values()))
    for hold in held.values():
        if not hold.groups:
            hold.groups = stateless
    return [held[path] for path in paths]


_PARTITION = GetAttrKey("inner_states")


def _factors(blocks: tuple[tuple[Any, ...], ...]) -> str:
    """What each axis of each block keeps, of several layers where they are stacked."""
    counts: dict[str, int] = defaultdict(int)
    for axes in blocks:
        # Stacked layers come first; then a matrix has two axes and a diagonal one.
        kept = [axis for axis in axes if not isinstance(axis, tuple)]
        signs = ("—" if isinstance(a, tuple) else f"{a.shape[1]}{'²' * (a.ndim > 2)}" for a in axes)
        counts[" × ".join(signs)] += kept[0].shape[0] if kept else 1
    return " + ".join(f"{n} of {sizes}" if n > 1 else sizes for sizes, n in counts.items())


def _is_empty(node: Any) -> bool:
    return isinstance(node, optax.EmptyState)


def _matrix(route: Route) -> str:
    if route.axes is None:
        return ""
    shape = np.shape(route.leaf)
    *batch, rows, columns = route.axes.matrix_shape(shape)
    # Along the last output axis; any others come on top.
    blocks = route.axes.blocks(shape) if route.axes.split != 1 else (1,)
    parts = [columns * block // sum(blocks) for block in blocks]
    if len(set(parts)) == 1:
        batch, parts = (batch + [len(parts)] if len(parts) > 1 else batch), parts[:1]
    outputs = str(parts[0]) if len(parts) == 1 else f"({' + '.join(map(str, parts))})"
    return "".join(f"{size} of " for size in batch) + f"{rows} × {outputs}"


def _reason(route: Route, group: str) -> str:
    """Why a leaf is in its group; only matrix_labels' own groups have reasons."""
    if group not in ("matrix", "other"):
        return ""
    if group != route.label:
        return "overruled"
    return f"{route.reason}? {route.doubt}" if route.doubt else route.reason


def _totals(found: list[Route], groups: list[str], held: list[_Held]) -> list[str]:
    totals: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(3, int))
    for route, group, hold in zip(found, groups, held, strict=True):
        totals[group] += (1, math.prod(np.shape(route.leaf)), hold.bytes)
    return [
        f"{group}: leaves {leaves:,}, numbers {numbers:,}, state bytes {size:,}"
        for group, (leaves, numbers, size) in totals.items()
    ]


def _aligned(rows: Iterable[tuple[str, ...]]) -> str:
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = ("  ".join(map(str.ljust, row, widths)) for row in rows)
    return "\n".join(line.rstrip() for line in cells)
