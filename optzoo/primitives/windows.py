"""The last few gradients, kept whole."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.base import Tree, real, transformation


class WindowState(NamedTuple):
    """The last gradients, the newest in place (steps − 1) mod size."""

    steps: jax.Array
    window: Tree


@transformation
def window_mean(
    size: int, *, reduce: Literal["mean", "sum"] = "mean", full_only: bool = True
) -> optax.GradientTransformation:
    """The mean or the sum of the last `size` gradients.

    Args:
      size: how many gradients are kept; each costs as much memory as the parameters. It is the
        shape of the state, so no traced value.
      reduce: the mean of those that there are, or their sum.
      full_only: return zeros until there are `size` of them.

    Returns:
      A transformation with `WindowState`.

    Raises:
      ValueError: for a size that is no whole number from 1 up.
    """
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"window_mean: size must be a whole number from 1 up; got {size!r}")

    def init(params):
        window = jax.tree.map(lambda p: jnp.zeros((size, *p.shape), p.dtype), params)
        return WindowState(jnp.zeros([], jnp.int32), window)

    def update(updates, state, params=None):
        del params
        count = optax.safe_increment(state.steps)
        place = state.steps % size
        window = jax.tree.map(
            lambda kept, g: kept.at[place].set(g.astype(kept.dtype)), state.window, updates
        )
        many = jnp.minimum(real(count), size) if reduce == "mean" else jnp.ones([])
        shown = (count >= size) | (not full_only)
        out = jax.tree.map(
            lambda kept: jnp.where(shown, jnp.sum(kept, axis=0) / many.astype(kept.dtype), 0),
            window,
        )
        return out, WindowState(count, window)

    return optax.GradientTransformation(init, update)
