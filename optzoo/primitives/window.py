"""The last gradients, and what their products tell."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.base import Positive, Size, Tree, checked, common_dtype, transformation
from optzoo.primitives.stacks import automatic

Weights = Callable[[jax.Array, jax.Array], jax.Array]


class WindowState(NamedTuple):
    """How many steps are finished, the last gradients in a ring, and their inner products."""

    steps: jax.Array
    window: Tree
    products: jax.Array


@transformation
def gradient_window(size: Size, weights: Weights) -> optax.GradientTransformation:
    """Combines the last gradients, by weights that their inner products give.

    Rule:
      d[t mod size] ← g;   K = the inner products of all d over all leaves
      returns Σ w·d, w = weights(K, t mod size)

    Of K only the new row is computed. Gradients that were never there are zeros. A gradient whose
    products are not finite does not enter, and its step is zero.

    Args:
      size: how many gradients to keep.
      weights: a function of K (size, size) and of the row of the newest gradient.

    Returns:
      A transformation with `WindowState`.

    Raises:
      ValueError: for an argument out of range.
    """

    def init(params):
        window = jax.tree.map(
            lambda p: jnp.broadcast_to(jnp.zeros_like(p)[None], (size, *p.shape)) + 0, params
        )
        return WindowState(
            jnp.zeros([], jnp.int32), window, jnp.zeros((size, size), common_dtype(params))
        )

    def combined(steps, window, products, updates):
        place = steps % size
        kept = jax.tree.map(lambda ring, g: ring.at[place].set(g), window, updates)
        row = jnp.zeros(size, products.dtype)
        for ring, g in zip(jax.tree.leaves(kept), jax.tree.leaves(updates), strict=True):
            row = row + jnp.tensordot(ring, g, g.ndim).astype(row.dtype)
        fine = jnp.isfinite(row).all()
        window = jax.tree.map(lambda new, old: jnp.where(fine, new, old), kept, window)
        new = products.at[place].set(row).at[:, place].set(row)
        products = jnp.where(fine, new, products)
        w = jnp.where(fine, weights(products, place), 0)
        out = jax.tree.map(lambda ring: jnp.tensordot(w.astype(ring.dtype), ring, 1), window)
        return window, products, out

    def update(updates, state, params=None):
        del params
        _, window, products = state
        like = window, products, updates
        window, products, out = automatic(combined, like, *state, updates)
        steps = optax.safe_increment(state.steps)
        return out, WindowState(steps, window, products)

    return optax.GradientTransformation(init, update)


@checked
def inverse_fisher(damping: Positive = 1e-5) -> Weights:
    """Weights that apply the inverse of the damped mean of d·dᵀ to the newest d.

    Rule, for a window of m gradients, the newest in row i:
      w = column i of (damping·I + K/m)^(−1), so that Σ w·d = (damping·I + Σ d·dᵀ/m)^(−1)·d

    Args:
      damping: added to every eigenvalue.

    Returns:
      A function for `gradient_window`.

    Raises:
      ValueError: for an argument out of range.
    """

    def weights(products: jax.Array, place: jax.Array) -> jax.Array:
        size = len(products)
        mean = products / size
        # What rounding makes negative would have no Cholesky factor.
        ridge = damping + jnp.finfo(mean.dtype).eps * jnp.trace(mean)
        system = mean + ridge.astype(mean.dtype) * jnp.eye(size, dtype=mean.dtype)
        newest = jnp.zeros(size, mean.dtype).at[place].set(1)
        return jax.scipy.linalg.solve(system, newest, assume_a="pos")

    return weights
