"""Training with parameters too narrow to hold their own updates."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.base import (
    Tree,
    cast_like,
    is_narrow,
    require_params,
    require_values,
    wide,
)
from optzoo.primitives.evaluation import eval_params, train_params, where_kept


class MasterWeightsState(NamedTuple):
    """A wrapped optimizer and float32 copies of the half-precision parameters."""

    inner: optax.OptState
    master: Tree

    def full(self, params: Tree) -> Tree:
        """The parameters in float32 or wider, from the copies where there are any."""
        return where_kept(lambda master, _: master, self.master, wide(params))

    def eval_params(self, params: Tree) -> Tree:
        return cast_like(eval_params(self.inner, self.full(params)), params)

    def train_params(self, params: Tree) -> Tree:
        return cast_like(train_params(self.inner, wide(params)), params)


def master_weights(tx: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Runs `tx` on float32 copies of half-precision parameters, so that no small step is lost.

    Rule, for leaves narrower than float32:
      master ← master + u(g, master);   the parameter becomes master, rounded

    Leaves in float32 or wider keep no copy and cost nothing. Change such parameters only through
    the updates: the copies do not see other changes.

    Args:
      tx: the optimizer; it sees gradients and parameters in float32 or wider.

    Returns:
      A transformation with `MasterWeightsState`; it needs the parameters.

    Raises:
      ValueError: from `update` without parameters.
    """
    inner = optax.with_extra_args_support(tx)

    def init(params):
        if any(map(is_narrow, jax.tree.leaves(params))):
            require_values(params, "master_weights")
        master = jax.tree.map(
            lambda p: p.astype(jnp.float32) if is_narrow(p) else optax.MaskedNode(), params
        )
        return MasterWeightsState(inner.init(wide(params)), master)

    def update(updates, state, params=None, **extra_args):
        require_params(params, "master_weights")
        full = state.full(params)
        moves, inner_state = inner.update(wide(updates), state.inner, full, **extra_args)
        moved = optax.tree.add(full, moves)

        def correct(p, new, u):
            return (new - p.astype(new.dtype)).astype(p.dtype) if is_narrow(p) else u

        master = jax.tree.map(
            lambda p, new: new if is_narrow(p) else optax.MaskedNode(), params, moved
        )
        return jax.tree.map(correct, params, moved, moves), MasterWeightsState(inner_state, master)

    return optax.GradientTransformationExtraArgs(init, update)


class StochasticRoundState(NamedTuple):
    """A wrapped optimizer and the key of the next step's rounding."""

    inner: optax.OptState
    key: jax.Array


def stochastic_round(
    tx: optax.GradientTransformation, key: Any
) -> optax.GradientTransformationExtraArgs:
    """Rounds the new half-precision parameters up or down at random, right on average.

    Rule, for leaves narrower than float32, with a and b the representable neighbours of p + u:
      p ← b with probability (p + u − a)/(b − a), otherwise a

    It needs no copy of the parameters; `master_weights` is exact and costs four bytes a number.

    Args:
      tx: the optimizer; it sees gradients and parameters in float32 or wider.
      key: a `jax.random` key, or an integer seed.

    Returns:
      A transformation with `StochasticRoundState`; it needs the parameters.

    Raises:
      ValueError: from `update` without parameters.
    """
    inner = optax.with_extra_args_support(tx)

    def init(params):
        start = jax.random.key(key) if isinstance(key, int) else jnp.array(key, copy=True)
        return StochasticRoundState(inner.init(wide(params)), start)

    def update(updates, state, params=None, **extra_args):
        require_params(params, "stochastic_round")
        full = wide(params)
        moves, inner_state = inner.update(wide(updates), state.inner, full, **extra_args)
        leaves, structure = jax.tree.flatten(params)
        next_key, now = jax.random.split(state.key)
        keys = jax.tree.unflatten(
            structure, [*jax.random.split(now, max(len(leaves), 1))][: len(leaves)]
        )

        def rounded(p, u, leaf_key):
            if not is_narrow(p):
                return u
            exact = p.astype(u.dtype) + u
            return _round(exact, p.dtype, leaf_key) - p

        return jax.tree.map(rounded, params, moves, keys), StochasticRoundState(
            inner_state, next_key
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _round(x: jax.Array, dtype: Any, key: jax.Array) -> jax.Array:
    near = x.astype(dtype)
    error = x - near.astype(x.dtype)
    away = jnp.where(error > 0, jnp.inf, -jnp.inf).astype(dtype)
    other = jnp.nextafter(near, away)
    gap = other.astype(x.dtype) - near.astype(x.dtype)
    return jnp.where(jax.random.uniform(key, x.shape, x.dtype) < error / gap, other, near)
