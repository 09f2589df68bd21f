"""PCGrad: each objective's gradient without what runs against the others."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.base import random_key, transformation
from optzoo.primitives.objectives import Objectives, Weights, weigh_objectives
from optzoo.registry import Trait, wrapper


@wrapper(
    title="Gradient Surgery for Multi-Task Learning",
    authors=(
        "Tianhe Yu",
        "Saurabh Kumar",
        "Abhishek Gupta",
        "Sergey Levine",
        "Karol Hausman",
        "Chelsea Finn",
    ),
    year=2020,
    arxiv="2001.06782",
    code="https://github.com/tianheyu927/PCGrad",
    traits=(Trait.GRADIENTS, Trait.COUPLED, Trait.RANDOM),
)
@transformation
def pcgrad(
    tx: optax.GradientTransformation, *, shuffle: bool = True, key: Any = None
) -> optax.GradientTransformation:
    """Hands `tx` the sum of the objectives' gradients, each without its conflicts with the others.

    Rule:
      q_i = g_i, then for every other j in turn
        q_i ← q_i − min(⟨q_i, g_j⟩, 0)/⟨g_j, g_j⟩·g_j
      g ← Σ q_i

    When to use:
      Two or a few tasks that share weights. With three or more what comes last in the order has the
      last word, and a step may still harm one of them, which `upgrad` rules out. Not where one loss
      is the aim and others help: that is `bloop`.

    Args:
      tx: the optimizer that gets the gradient; it is a sum, m times as large as a mean.
      shuffle: draw the order of the others anew for every gradient and step; otherwise it is the
        one given.
      key: a `jax.random` key for the orders, or an integer seed; 0 by default.

    Returns:
      The optimizer, with a key beside the state of `tx`; it needs `gradients` in `update`. Orders
      given there as `order`, m rows of m numbers from 0, take the place of its own.

    Raises:
      ValueError: for an argument out of range, or `update` without gradients.

    References:
      Yu et al. 2020, arXiv 2001.06782; official code tianheyu927/PCGrad, which throws its shuffled
      order away, so that the order is fixed, and gives NaN for a gradient of zero.
    """

    def init():
        return jnp.array(random_key(0 if key is None else key), copy=True)

    def weigh(objectives: Objectives, state: jax.Array) -> tuple[jax.Array, jax.Array]:
        products, count = objectives.products(), objectives.count
        order = objectives.extra_args.get("order")
        if order is None:
            order = jnp.tile(jnp.arange(count), (count, 1))
            if shuffle:
                state, mine = jax.random.split(state)
                order = jax.random.permutation(mine, order, axis=1, independent=True)
        sizes = jnp.diagonal(products)

        def against_next(place, rows):
            """Row i holds q_i as a sum of gradients."""
            j, own = order[:, place].astype(jnp.int32), jnp.arange(count, dtype=jnp.int32)
            dot = jnp.sum(rows * products[:, j].T, axis=1)
            share = jnp.minimum(dot, 0) / jnp.where(sizes[j] == 0, 1, sizes[j])
            return rows.at[own, j].add(jnp.where(j == own, 0, -share))

        whole = jax.lax.fori_loop(0, count, against_next, jnp.eye(count, dtype=products.dtype))
        return whole.sum(0), state

    return optax.chain(weigh_objectives(Weights(init, weigh)), tx)
