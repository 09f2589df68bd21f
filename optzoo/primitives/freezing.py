"""Leaves that stop for good once they hardly change."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.base import Count, Mask, NonNegative, Tree, transformation
from optzoo.primitives.combine import select
from optzoo.primitives.norms import packed

Statistic = Literal["update", "gradient", "gradient_change"]


class FreezeState(NamedTuple):
    """A wrapped optimizer, what the statistic is taken of, and who is frozen, `packed`."""

    inner: optax.OptState
    steps: jax.Array
    kept: Tree
    frozen: jax.Array


@transformation
def freeze(
    tx: optax.GradientTransformation,
    below: NonNegative,
    statistic: Statistic = "update",
    *,
    start: NonNegative = 0,
    every: Count = 1,
    mask: Mask = None,
) -> optax.GradientTransformation:
    """Stops a leaf for good when the sum of its |changes| falls below a bound.

    Rule, in every step whose number is a multiple of `every`:
      s = Σ|the sum of the updates since the last such step|, Σ|g|, or Σ|g − g of the step before|
      a leaf with s < below freezes, after `start` steps and not at the first look

    A frozen leaf gets no update, and `tx` a gradient of 0 for it.

    Args:
      tx: the optimizer.
      below: the bound, a sum over the leaf in units of what is summed.
      statistic: "update", which freezes from the next step on; or "gradient", which keeps nothing,
        and "gradient_change", which freeze at once.
      start: how many steps are finished before any leaf freezes.
      every: how many steps lie between two looks.
      mask: which leaves may freeze: a tree of booleans, or a function that makes one; None for all.

    Returns:
      A transformation with `FreezeState`; `frozen_leaves` tells which leaves are frozen.

    Raises:
      ValueError: for an argument out of range.

    Source: Wen et al. 2025, arXiv 2509.01842.
    """
    inner = optax.with_extra_args_support(tx)

    def init(params):
        kept = () if statistic == "gradient" else optax.tree.zeros_like(params)
        flags = packed(jax.tree.map(lambda _: jnp.asarray(False), params)).astype(bool)
        return FreezeState(inner.init(params), jnp.zeros([], jnp.int32), kept, flags)

    def update(updates, state, params=None, **extra_args):
        count = optax.safe_increment(state.steps)
        allowed = mask(updates) if callable(mask) else mask
        looks = count % every == 0
        # At its first look there is no earlier one to compare with.
        judges = looks & ((count > every) | (statistic == "gradient"))

        def verdicts(changes, finished):
            def small(change):
                return judges & (finished >= start) & (jnp.sum(jnp.abs(change)) < below)

            found = jax.tree.map(small, changes)
            none = jax.tree.map(jnp.zeros_like, found)
            return packed(select(allowed, found, none)).astype(bool)

        frozen = state.frozen
        if statistic == "gradient":
            frozen |= verdicts(updates, state.steps)
        elif statistic == "gradient_change":
            frozen |= verdicts(optax.tree.sub(updates, state.kept), state.steps)

        def stopped(tree, flags):
            leaves, structure = jax.tree.flatten(tree)
            parts = zip(leaves, flags, strict=True)
            return jax.tree.unflatten(structure, [jnp.where(flag, 0, x) for x, flag in parts])

        moves, inner_state = inner.update(
            stopped(updates, frozen), state.inner, params, **extra_args
        )
        moves = stopped(moves, frozen)
        kept = state.kept
        if statistic == "gradient_change":
            kept = updates
        elif statistic == "update":
            total = optax.tree.add(kept, moves)
            frozen |= verdicts(total, count)
            kept = jax.tree.map(lambda sum_: jnp.where(looks, 0, sum_), total)
        return moves, FreezeState(inner_state, count, kept, frozen)

    return optax.GradientTransformationExtraArgs(init, update)


def frozen_leaves(opt_state: Any, params: Tree) -> Tree:
    """Which leaves `freeze` has stopped, wherever its state sits, as a tree of booleans.

    A gradient that is not computed for them saves its time: trace the loss anew with
    `jax.lax.stop_gradient` on these leaves, whenever there are more.

    Args:
      opt_state: the state of a transformation with one `freeze` in it.
      params: the parameters.

    Raises:
      ValueError: where there is no such state, or it covers other leaves.
    """
    states = [
        node
        for node in jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, FreezeState))
        if isinstance(node, FreezeState)
    ]
    leaves, structure = jax.tree.flatten(params)
    if len(states) != 1 or states[0].frozen.shape != (len(leaves),):
        raise ValueError(
            f"frozen_leaves needs one state of freeze over {len(leaves)} leaves; found "
            f"{[len(state.frozen) for state in states]}"
        )
    return jax.tree.unflatten(structure, list(states[0].frozen))
