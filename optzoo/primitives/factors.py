"""Kronecker factors of a second moment, and steps that their roots turn and scale."""

from collections import defaultdict
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.base import Decay, NonNegative, Size, Tree, branch, real, transformation
from optzoo.primitives.kronecker import (
    Layout,
    kept_finite,
    on_axis,
    renewal_shifts,
    require_real,
    second_moment,
    unit_size,
)
from optzoo.primitives.powers import Power, eigen_power
from optzoo.primitives.stacks import after, automatic, map_equal


class FactorState(NamedTuple):
    """For each leaf, under its path, a factor and its root for each block and axis.

    Both are matrices, or vectors where the axis is diagonal, with a leading axis of stacked layers.
    """

    steps: jax.Array
    factors: Tree
    roots: Tree


@transformation
def kronecker_roots(
    layout: Layout,
    decay: Decay | None = None,
    *,
    exponent: NonNegative | None = None,
    eps: NonNegative = 1e-12,
    inverse: Power | None = None,
    debias: bool = True,
    initial: NonNegative = 0.0,
    first: Size = 1,
    every: Size = 1,
    stats_every: Size = 1,
    max_size: Size | None = None,
    stagger: bool = False,
) -> optax.GradientTransformation:
    """A branch for `merge` that returns the inverse roots for `apply_roots` (Shampoo).

    Rule, for each axis of a block of k axes:
      L ← L + F, or decay·L + (1 − decay)·F, from initial·I, F being g·gᵀ over all other axes
      R ← (L/c)^(−exponent), c = 1 − decay^t or 1 without debias, in the step `first` and after
      every `every` more; before, R = I

    Args:
      layout: how leaves are cut into blocks.
      decay: of L, in [0, 1); None for the sum.
      exponent: of every axis; None for 1/(2k).
      eps: of the default inverse and of diagonal axes, to which it is added.
      inverse: makes the powers; `eigen_power(eps)` by default.
      debias: correct the average for its start.
      initial: what L starts from.
      first: the first step that makes roots.
      every: steps in a period, from one root to the next.
      stats_every: steps from one change of L to the next.
      max_size: an axis longer than this keeps the diagonal of L only.
      stagger: spread renewals over the steps of a period, by their cost.

    Returns:
      A transformation with `FactorState` whose output is what `apply_roots` takes.

    Raises:
      ValueError: for an argument out of range; from `init`, for complex parameters.
    """
    power = eigen_power(eps) if inverse is None else inverse

    def start(params, value):
        def filled(count, size, dtype):
            if max_size and size > max_size:
                return jnp.full((count, size), value, dtype)
            matrix = jnp.asarray(value, dtype) * jnp.eye(size, dtype=dtype)
            return jnp.broadcast_to(matrix, (count, size, size)) + jnp.zeros([], dtype)

        leaves = zip(layout.tensors(params), jax.tree.leaves(params), strict=True)
        kept = [
            tuple(filled(view.count, size, leaf.dtype) for size in shape)
            for view, leaf in leaves
            for shape in view.shapes
        ]
        return layout.pack(kept, params)

    def init(params):
        require_real(params, "kronecker_roots")
        return FactorState(jnp.zeros([], jnp.int32), start(params, initial), start(params, 1.0))

    def accumulated(updates, factors):
        def accumulate(x, kept):
            def new(axis, old):
                if old.ndim == 1:
                    others = [other for other in range(x.ndim) if other != axis]
                    now = jnp.sum(jnp.square(x), axis=others)
                else:
                    now = second_moment(x, axis)
                total = old + now if decay is None else decay * old + (1 - decay) * now
                return kept_finite(total, old)

            return tuple(new(axis, old) for axis, old in enumerate(kept))

        blocks = zip(layout.split(updates), layout.unpack(factors, updates), strict=True)
        return layout.pack(map_equal(accumulate, [*blocks]), updates)

    def renewed(steps, updates, factors, roots):
        blocks = layout.unpack(factors, updates)
        made = [[*axes] for axes in layout.unpack(roots, updates)]
        correction = 1 - decay ** real(steps) if debias and decay is not None else None
        new: list[jax.Array] = []
        for shift, places in renewal_shifts(blocks, every if stagger else 1).items():

            def renew(matrices, old, places=places):
                return rooted(matrices, old, [len(blocks[block]) for block, _ in places])

            due = (steps == first) | ((steps > first) & ((steps - first + shift) % every == 0))
            new = branch(
                due.astype(jnp.int32),
                [lambda matrices, old: old, renew],
                after(new, [_corrected(blocks[block][axis], correction) for block, axis in places]),
                [made[block][axis] for block, axis in places],
            )
            for (block, axis), root in zip(places, new, strict=True):
                made[block][axis] = root
        return layout.pack(map(tuple, made), updates)

    def rooted(matrices, old, orders):
        groups = defaultdict(list)
        for place, order in enumerate(orders):
            groups[order].append(place)
        roots = list(old)
        for order, members in groups.items():
            by = 1 / (2 * order) if exponent is None else exponent

            def root(factor, before, by=by):
                found = power(factor, by) if factor.ndim == 2 else (factor + eps) ** -by
                return kept_finite(found, before)

            parts = [(matrices[place], old[place]) for place in members]
            for place, made in zip(members, map_equal(root, parts, spread=True), strict=True):
                roots[place] = made
        return roots

    def update(updates, state, params=None):
        del params
        steps = optax.safe_increment(state.steps)
        factors = branch(
            ((steps - 1) % stats_every == 0).astype(jnp.int32),
            [
                lambda _, factors: factors,
                lambda *trees: automatic(accumulated, state.factors, *trees),
            ],
            updates,
            state.factors,
        )
        roots = automatic(renewed, state.roots, steps, updates, factors, state.roots)
        return roots, FactorState(steps, factors, roots)

    return optax.GradientTransformation(init, update)


def _corrected(factor: jax.Array, correction: jax.Array | None) -> jax.Array:
    return factor if correction is None else factor / correction.astype(factor.dtype)


def apply_roots(layout: Layout, roots: Tree, tree: Tree) -> Tree:
    """What `kronecker_roots` returned, applied to every axis of every block of a tree."""

    def applied(x, kept):
        for axis, root in enumerate(kept):
            if root.ndim == 1:
                x = x * root.reshape([-1 if other == axis else 1 for other in range(x.ndim)])
            else:
                x = on_axis(root, x, axis)
        return x

    def all_blocks(tree, roots):
        blocks = zip(layout.split(tree), layout.unpack(roots, tree), strict=True)
        return layout.join(map_equal(applied, [*blocks]), tree)

    return automatic(all_blocks, tree, tree, roots)


def lengthened(layout: Layout, direction: Tree, length: Tree) -> Tree:
    """Each block of `direction` with the norm of the same block of `length`."""

    def norm(x):
        unit, size = unit_size(x)
        return size * jnp.sqrt(jnp.sum(jnp.square(unit)))

    def scaled(x, y):
        size = norm(x)
        return x * (norm(y) / jnp.where(size == 0, 1, size))

    def all_blocks(direction, length):
        blocks = zip(layout.split(direction), layout.split(length), strict=True)
        return layout.join(map_equal(scaled, [*blocks]), direction)

    return automatic(all_blocks, direction, direction, length)
