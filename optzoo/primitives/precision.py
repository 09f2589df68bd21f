"""Few bits: wrappers for parameters and states too narrow for what they hold.

The members let bfloat16 and float16 parameters move by less than they resolve.
Look here when memory decides, and half-precision training stalls.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.base import (
    Key,
    Tree,
    cast_like,
    is_narrow,
    random_key,
    require_params,
    require_values,
    wide,
)
from optzoo.primitives.evaluation import eval_params, train_params, where_kept
from optzoo.registry import Trait, wrapper


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


@wrapper(
    title="Mixed Precision Training",
    authors=(
        "Paulius Micikevicius",
        "Sharan Narang",
        "Jonah Alben",
        "Gregory Diamos",
        "Erich Elsen",
        "David Garcia",
        "Boris Ginsburg",
        "Michael Houston",
        "Oleksii Kuchaiev",
        "Ganesh Venkatesh",
        "Hao Wu",
    ),
    year=2017,
    arxiv="1710.03740",
    code=None,
)
def master_weights(tx: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Runs `tx` on float32 copies of half-precision parameters, so that no small step is lost.

    Leaves in float32 or wider keep no copy and cost nothing. Change half-precision parameters only
    through the updates: the copies do not see other changes.

    Rule:
      master ← master + u(g, master), for leaves narrower than float32
      p ← master, rounded

    When to use:
      With bfloat16 or float16 parameters whose steps are smaller than their last digit. Not where
      memory is short: `stochastic_round` needs no copy.

    Args:
      tx: the optimizer; it sees gradients and parameters in float32 or wider.

    Returns:
      A transformation with `MasterWeightsState`. It needs the parameters in `update`.

    Raises:
      ValueError: from `update` without parameters.

    References:
      Micikevicius et al. 2017, arXiv 1710.03740; without its scaling of the loss.
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


@wrapper(
    title="Deep Learning with Limited Numerical Precision",
    authors=("Suyog Gupta", "Ankur Agrawal", "Kailash Gopalakrishnan", "Pritish Narayanan"),
    year=2015,
    arxiv="1502.02551",
    code=None,
    traits=(Trait.RANDOM,),
)
def stochastic_round(
    tx: optax.GradientTransformation, key: Key
) -> optax.GradientTransformationExtraArgs:
    """Rounds the new half-precision parameters up or down at random, right on average.

    Rule:
      a and b are the representable neighbours of p + u, for leaves narrower than float32
      p ← b with probability (p + u − a)/(b − a), otherwise a

    When to use:
      With bfloat16 parameters where memory is short: it keeps no copy of them. Not where four bytes
      a number are to be had, for `master_weights` is exact.

    Args:
      tx: the optimizer; it sees gradients and parameters in float32 or wider.
      key: a `jax.random` key, or an integer seed.

    Returns:
      A transformation with `StochasticRoundState`. It needs the parameters in `update`.

    Raises:
      ValueError: from `update` without parameters.

    References:
      Gupta et al. 2015, arXiv 1502.02551; here the moved parameters are rounded, not products.
    """
    inner = optax.with_extra_args_support(tx)

    def init(params):
        start = jnp.array(random_key(key), copy=True)
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
