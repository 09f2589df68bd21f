"""The algebra: transformations that see the same gradient, combined into one.

`optax.chain` hands each transformation only what the one before it made. `merge` and
`merge_leaves` run their branches side by side on the same updates and combine the results, so
that a rule which needs the gradient, the parameters and several moments at once is an expression.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.base import (
    Mask,
    Tree,
    real_dtype,
    require_params,
    require_values,
    same_structure,
    widened,
)


def merge(
    fn: Callable[..., Tree], *branches: optax.GradientTransformation
) -> optax.GradientTransformationExtraArgs:
    """Runs every branch on the same updates and combines their outputs: fn(out₁, out₂, …).

    Args:
      fn: takes one output tree a branch and returns the updates.
      *branches: the transformations to run side by side. Each gets the same updates, parameters
        and extra arguments, and keeps its own state.

    Returns:
      A transformation whose state is the tuple of the branches' states, as with `optax.chain`.

    Raises:
      ValueError: without any branch.
    """
    if not branches:
        raise ValueError("merge needs at least one branch; got none")
    return _merge(lambda updates, *outputs: fn(*outputs), branches)


def merge_leaves(
    fn: Callable[..., jax.Array], *branches: optax.GradientTransformation
) -> optax.GradientTransformationExtraArgs:
    """`merge` leaf by leaf: fn(leaf of out₁, leaf of out₂, …) makes the leaf of the update.

    A branch may return one scalar a leaf, or a single scalar for the whole tree: it broadcasts.
    That is how step sizes work.

    Args:
      fn: takes one array a branch and returns one array.
      *branches: as for `merge`.

    Returns:
      A transformation whose state is the tuple of the branches' states.

    Raises:
      ValueError: without any branch.
    """
    if not branches:
        raise ValueError("merge_leaves needs at least one branch; got none")

    def combine(updates, *outputs):
        def spread(output):
            if same_structure(output, updates):
                return output
            # In the leaf's precision: a rate stays real where the leaf is complex.
            dtype = jnp.result_type if jnp.iscomplexobj(output) else real_dtype
            return jax.tree.map(lambda leaf: jnp.asarray(output, dtype(leaf)), updates)

        return jax.tree.map(fn, *(spread(output) for output in outputs))

    return _merge(combine, branches)


def _merge(combine: Callable[..., Tree], branches) -> optax.GradientTransformationExtraArgs:
    branches = tuple(optax.with_extra_args_support(branch) for branch in branches)

    def init(params):
        return tuple(branch.init(params) for branch in branches)

    def update(updates, state, params=None, **extra_args):
        results = [
            branch.update(updates, branch_state, params, **extra_args)
            for branch, branch_state in zip(branches, state, strict=True)
        ]
        outputs, state = zip(*results, strict=True)
        return combine(updates, *outputs), state

    return widened(optax.GradientTransformationExtraArgs(init, update))


def _pass_params(updates: Tree, params: Tree) -> Tree:
    del updates
    require_params(params, "this transformation")
    return params


gradient: optax.GradientTransformation = optax.identity()
parameters: optax.GradientTransformation = optax.stateless(_pass_params)


def select(mask: Mask, chosen: Tree, other: Tree) -> Tree:
    """`chosen` where the mask is True, `other` elsewhere; `chosen` itself for the mask None."""
    if mask is None:
        return chosen
    tree = mask(other) if callable(mask) else mask
    return jax.tree.map(lambda use, x, y: x if use else y, tree, chosen, other)


def only(mask: Mask, tx: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """`tx` where the mask is True and zero elsewhere; `tx` itself for the mask None.

    `optax.masked` lets unmasked gradients pass, which a branch of a sum must not do, and its state
    tells whether there is a mask. Here the state is that of `tx` on all leaves, whatever the mask.

    Args:
      mask: a tree of booleans like the parameters, or a prefix of it, or a function that makes one.
      tx: what to apply where the mask is True.

    Returns:
      A transformation.
    """
    inner = optax.with_extra_args_support(tx)

    def update(updates, state, params=None, **extra_args):
        out, state = inner.update(updates, state, params, **extra_args)
        return select(mask, out, optax.tree.zeros_like(out)), state

    return optax.GradientTransformationExtraArgs(inner.init, update)


def multiply(x: jax.Array, factor: Any) -> jax.Array:
    """x · factor."""
    return x * factor


def divide(x: jax.Array, divisor: Any) -> jax.Array:
    """x / divisor."""
    return x / divisor


def add(x: jax.Array, y: jax.Array) -> jax.Array:
    """x + y."""
    return x + y


def copied(params: Tree) -> Tree:
    """Fresh buffers with the parameters' values: state must not alias what a step donates.

    Raises:
      ValueError: for shapes without values.
    """
    require_values(params, "this optimizer")
    return jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), params)
