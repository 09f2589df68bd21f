"""Starting anew: states that are made afresh in the middle of a run."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import GetAttrKey, tree_map_with_path

from optzoo.primitives.base import transformation


class RestartState(NamedTuple):
    """The state of what is restarted, and a clock that goes on."""

    steps: jax.Array
    inner: optax.OptState


@transformation
def restart(
    tx: optax.GradientTransformation,
    when: Callable[[jax.Array], jax.Array],
    *,
    keep: tuple[str, ...] = (),
) -> optax.GradientTransformation:
    """Gives `tx` a fresh state before the steps that `when` picks.

    Args:
      tx: what is restarted.
      when: whether the step after so many finished ones starts anew.
      keep: fields of the states inside that go on, such as "steps" for counts.

    Returns:
      A transformation with `RestartState`.
    """
    inner = optax.with_extra_args_support(tx)

    def init(params):
        return RestartState(jnp.zeros([], jnp.int32), inner.init(params))

    def update(updates, state, params=None, **extra_args):
        anew = when(state.steps)
        fresh = inner.init(updates if params is None else params)

        def start(path: tuple[Any, ...], old, new):
            kept = any(GetAttrKey(name) in path for name in keep)
            return old if kept else jnp.where(anew, new, old)

        inner_state = tree_map_with_path(start, state.inner, fresh)
        out, inner_state = inner.update(updates, inner_state, params, **extra_args)
        return out, RestartState(optax.safe_increment(state.steps), inner_state)

    return optax.GradientTransformationExtraArgs(init, update)
