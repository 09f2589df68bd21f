"""Gradient norms, recorded in the state of whatever optimizer they go to."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.base import Size, transformation
from optzoo.primitives.norms import layer_norm, packed


class RecordState(NamedTuple):
    """Norms of the latest gradients, one row a step and one column a leaf, in turns."""

    steps: jax.Array
    l1: jax.Array
    l2: jax.Array


class GradientNorms(NamedTuple):
    """Norms of gradients, oldest first.

    Attributes:
      l1, l2: of the whole gradient, one number a step.
      leaf_l1, leaf_l2: one row a step and one column a leaf, in the order of `jax.tree.leaves`.
    """

    l1: jax.Array
    l2: jax.Array
    leaf_l1: jax.Array
    leaf_l2: jax.Array


@transformation
def record_norms(length: Size = 1) -> optax.GradientTransformation:
    """Passes gradients on and keeps their norms, for monitoring and for `refined` schedules.

    `recorded_norms` reads them: `optax.chain(record_norms(total_steps), adamw)` records a run.

    Args:
      length: of how many steps to keep the norms, the latest ones; a plain number. It takes two
        numbers a step and leaf.

    Returns:
      A transformation with `RecordState`.

    Raises:
      ValueError: for a length below 1.
    """

    def norms(tree):
        l1 = packed(jax.tree.map(lambda g: jnp.sum(jnp.abs(g)), tree))
        return l1, packed(jax.tree.map(lambda g: layer_norm(None, g), tree))

    def init(params):
        row, _ = jax.eval_shape(norms, params)

        def table():
            return jnp.zeros((length, *row.shape), row.dtype)

        return RecordState(jnp.zeros([], jnp.int32), table(), table())

    def update(updates, state, params=None):
        del params
        place = state.steps % length
        l1, l2 = norms(updates)
        count = optax.safe_increment(state.steps)
        return updates, RecordState(count, state.l1.at[place].set(l1), state.l2.at[place].set(l2))

    return optax.GradientTransformation(init, update)


def recorded_norms(opt_state: Any) -> GradientNorms:
    """The gradient norms that `record_norms` has kept in a state, wherever it sits.

    `refined(peak, recorded_norms(state).l2)` makes the next run's schedule for SGD, and for Adam's
    kind `refined(peak, recorded_norms(state).l1, power=1.0)`.

    Args:
      opt_state: the state of any optax transformation.

    Returns:
      The norms, oldest first; zeros before the first step.

    Raises:
      ValueError: where the state has no record, or more than one.
    """

    def is_record(node):
        return isinstance(node, RecordState)

    nodes = jax.tree.leaves(opt_state, is_leaf=is_record)
    records = [node for node in nodes if is_record(node)]
    if len(records) != 1:
        raise ValueError(
            "recorded_norms: opt_state must hold one record, made by "
            f"optax.chain(record_norms(…), …); it holds {len(records)}"
        )
    steps, *tables = records[0]
    # The row that is overwritten next is the oldest.
    l1, l2 = (jnp.roll(table, -(steps % len(table)), axis=0) for table in tables)
    peak = jnp.max(l2, axis=1, initial=0)
    scale = jnp.where((peak > 0) & jnp.isfinite(peak), peak, 1)
    total = scale * jnp.sqrt(jnp.sum(jnp.square(l2 / scale[:, None]), axis=1))
    return GradientNorms(jnp.sum(l1, axis=1), total, l1, l2)
