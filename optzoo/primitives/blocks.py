"""Fused projections as the matrices that they are made of."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import tree_leaves_with_path

from optzoo.primitives.axes import Axes, AxesLike, blocks_reader
from optzoo.primitives.base import Tree
from optzoo.primitives.evidence import path_name


def in_blocks(
    make: Callable[[AxesLike], optax.GradientTransformation], axes: AxesLike = None
) -> optax.GradientTransformation:
    """A transformation that sees every block of a fused kernel as a leaf of its own.

    Leaves whose `Axes` have a `split` are cut before `make(axes)` and joined after it, so that
    each query, key, value or head is a matrix to every part of a rule: blocks join the stacks of
    other matrices of their shape, and factors of the shape are those of the block. Where no axes
    are given, so are `c_attn`, and `in_proj` in attention: queries, keys and values side by side.
    State of a leaf that is cut is a tuple with one entry a block. Where nothing is split, this is
    `make(axes)`.

    Args:
      make: makes the transformation from the axes of its leaves.
      axes: how leaves are matrices; see `optzoo.primitives.axes`.

    Returns:
      The transformation.

    Raises:
      ValueError: from `init` and `update`, where a split does not fit its leaf.
    """
    # Made at once, so that arguments are checked where they are given.
    whole = optax.with_extra_args_support(make(axes))

    def init(params):
        specs = _specs(axes, params)
        if not _any_split(specs):
            return whole.init(params)
        return make(_of_blocks(specs, params)).init(_cut(specs, params))

    def update(updates, state, params=None, **extra_args):
        specs = _specs(axes, updates)
        if not _any_split(specs):
            return whole.update(updates, state, params, **extra_args)
        tx = optax.with_extra_args_support(make(_of_blocks(specs, updates)))
        parts = None if params is None else _cut(specs, params)
        out, state = tx.update(_cut(specs, updates), state, parts, **extra_args)
        return _joined(specs, updates, out), state

    return optax.GradientTransformationExtraArgs(init, update)


Specs = list[Axes | None]


def _specs(axes: AxesLike, tree: Tree) -> Specs:
    axes_of = blocks_reader(axes, tree)
    return [axes_of(path_name(path), leaf) for path, leaf in tree_leaves_with_path(tree)]


def _any_split(specs: Specs) -> bool:
    return any(spec is not None and spec.split != 1 for spec in specs)


def _per_leaf(fn: Callable[[Axes, Any], Any], specs: Specs, tree: Tree, otherwise: Any) -> Tree:
    """fn of the split leaves, `otherwise` of the spec and the leaf for the others."""
    leaves, structure = jax.tree.flatten(tree)
    results = [
        fn(spec, leaf) if spec is not None and spec.split != 1 else otherwise(spec, leaf)
        for spec, leaf in zip(specs, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, results)


def _of_blocks(specs: Specs, tree: Tree) -> Tree:
    """The axes of the tree of blocks."""

    def repeated(spec, leaf):
        return (spec.whole,) * len(spec.blocks(leaf.shape))

    return _per_leaf(repeated, specs, tree, lambda spec, _: spec)


def _cut(specs: Specs, tree: Tree) -> Tree:
    def cut(spec, leaf):
        ends = list(itertools.accumulate(spec.blocks(leaf.shape)))
        return tuple(jnp.split(leaf, ends[:-1], axis=spec.output[-1]))

    return _per_leaf(cut, specs, tree, lambda _, leaf: leaf)


def _joined(specs: Specs, like: Tree, blocks: Tree) -> Tree:
    parts = []
    jax.tree.map(lambda _, part: parts.append(part), like, blocks)
    results = [
        jnp.concatenate(part, axis=spec.output[-1]) if spec and isinstance(part, tuple) else part
        for spec, part in zip(specs, parts, strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(like), results)
