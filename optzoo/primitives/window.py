"""The last gradients, kept whole: their mean, and what their products tell."""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.base import (
    Positive,
    Size,
    Tree,
    checked,
    common_dtype,
    real,
    transformation,
)
from optzoo.primitives.combine import gradient
from optzoo.primitives.stacks import automatic

Weights = Callable[[jax.Array, jax.Array], jax.Array]


class WindowState(NamedTuple):
    """How many steps are finished, and the last gradients in a ring."""

    steps: jax.Array
    window: Tree

    @classmethod
    def empty(cls, size: int, params: Tree) -> "WindowState":
        """`size` gradients of zeros, each laid out as its parameter."""
        window = jax.tree.map(
            lambda p: jnp.broadcast_to(jnp.zeros_like(p)[None], (size, *p.shape)) + 0, params
        )
        return cls(jnp.zeros([], jnp.int32), window)

    def entered(self, place: jax.Array, updates: Tree) -> "WindowState":
        """With the newest gradient in the place of the oldest, steps mod size."""
        window = jax.tree.map(
            lambda ring, g: ring.at[place].set(g.astype(ring.dtype)), self.window, updates
        )
        return WindowState(optax.safe_increment(self.steps), window)


@transformation
def window_mean(
    size: Size, *, reduce: Literal["mean", "sum"] = "mean", full_only: bool = True
) -> optax.GradientTransformation:
    """The mean or the sum of the last `size` gradients.

    Args:
      size: how many gradients are kept; each costs as much memory as the parameters.
      reduce: the mean of those that there are, or their sum.
      full_only: return zeros until there are `size` of them.

    Returns:
      A transformation with `WindowState`.

    Raises:
      ValueError: for an argument out of range.
    """

    def update(updates, state, params=None):
        del params
        state = state.entered(state.steps % size, updates)
        many = jnp.minimum(real(state.steps), size) if reduce == "mean" else jnp.ones([])
        shown = (state.steps >= size) | (not full_only)
        out = jax.tree.map(
            lambda ring: jnp.where(shown, jnp.sum(ring, axis=0) / many.astype(ring.dtype), 0),
            state.window,
        )
        return out, state

    return optax.GradientTransformation(lambda params: WindowState.empty(size, params), update)


class LastState(NamedTuple):
    """How many steps are finished, and the last gradients, the newest last.

    Each is a tree of its own, so that meshes shard it as the parameters.
    """

    steps: jax.Array
    last: tuple[Tree, ...]


@transformation
def window_extrapolation(size: Size, damping: Positive = 1e-3) -> optax.GradientTransformation:
    """Where the last `size` gradients of each leaf are going: their regularised extrapolation.

    Rule, for a leaf's gradients x₁, …, x_s, the newest last:
      U = the differences of neighbours;   z = (UᵀU + damping·I)^(−1)·1
      returns Σ z·x / Σz, x the later one of each difference, and the newest while s < 3

    Args:
      size: how many gradients are kept; each costs as much memory as the parameters. Fewer than 3
        keep nothing, and give the newest.
      damping: added to every eigenvalue.

    Returns:
      A transformation with `LastState`.

    Raises:
      ValueError: for an argument out of range.

    Source: Wang et al. 2019, arXiv 1903.01435.
    """
    if size < 3:
        return gradient

    def init(params):
        zeros = tuple(optax.tree.zeros_like(params) for _ in range(size))
        return LastState(jnp.zeros([], jnp.int32), zeros)

    def shares(last, seen):
        """The weights of each leaf's later gradients; one system for all, to be compiled once."""
        known = jnp.arange(size - 1, dtype=seen.dtype) >= size - seen
        dtype = jnp.finfo(common_dtype(last)).dtype

        def gram(*gradients):
            rows = jnp.stack(gradients)
            numbers = tuple(range(1, rows.ndim))
            moves = jnp.where(jnp.expand_dims(known, numbers), rows[1:] - rows[:-1], 0)
            return jnp.tensordot(moves.conj(), moves, (numbers, numbers)).real.astype(dtype)

        grams = jnp.stack(jax.tree.leaves(jax.tree.map(gram, *last)))
        ridge = damping + jnp.finfo(dtype).eps * jnp.trace(grams, axis1=1, axis2=2)
        systems = grams + ridge[:, None, None].astype(dtype) * jnp.eye(size - 1, dtype=dtype)[None]
        ones = jnp.broadcast_to(known.astype(dtype)[None], grams.shape[:2])
        z = jax.vmap(partial(jax.scipy.linalg.solve, assume_a="pos"))(systems, ones)
        total = jnp.sum(z, axis=1, keepdims=True)
        return z / jnp.where(total > 0, total, 1)

    def predicted(last, seen):
        *_, newest = last
        leaves, structure = jax.tree.flatten(newest)
        every = [jax.tree.leaves(gradients) for gradients in last[1:]]
        out = []
        for place, (g, share) in enumerate(zip(leaves, shares(last, seen), strict=True)):
            weighed = (w.astype(g.dtype) * x[place] for w, x in zip(share, every, strict=True))
            out.append(jnp.where(seen < 3, g, sum(weighed, jnp.zeros_like(g))))
        return structure.unflatten(out)

    def update(updates, state, params=None):
        del params
        last = (*state.last[1:], updates)
        count = optax.safe_increment(state.steps)
        if not jax.tree.leaves(updates):
            return updates, LastState(count, last)
        out = automatic(predicted, updates, last, jnp.minimum(count, size))
        return out, LastState(count, last)

    return optax.GradientTransformation(init, update)


class ProductState(NamedTuple):
    """The last gradients, and their inner products."""

    last: WindowState
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
      A transformation with `ProductState`.

    Raises:
      ValueError: for an argument out of range.
    """

    def init(params):
        products = jnp.zeros((size, size), common_dtype(params))
        return ProductState(WindowState.empty(size, params), products)

    def combined(last, products, updates):
        place = last.steps % size
        kept = last.entered(place, updates)
        row = jnp.zeros(size, products.dtype)
        for ring, g in zip(jax.tree.leaves(kept.window), jax.tree.leaves(updates), strict=True):
            row = row + jnp.tensordot(ring, g, g.ndim).astype(row.dtype)
        fine = jnp.isfinite(row).all()
        window = jax.tree.map(lambda new, old: jnp.where(fine, new, old), kept.window, last.window)
        new = products.at[place].set(row).at[:, place].set(row)
        products = jnp.where(fine, new, products)
        w = jnp.where(fine, weights(products, place), 0)
        out = jax.tree.map(lambda ring: jnp.tensordot(w.astype(ring.dtype), ring, 1), window)
        return ProductState(WindowState(kept.steps, window), products), out

    def update(updates, state, params=None):
        del params
        state, out = automatic(combined, (state, updates), *state, updates)
        return out, state

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
        # What rounding makes negative would be no second moment.
        ridge = damping + jnp.finfo(mean.dtype).eps * jnp.trace(mean)
        system = mean + ridge.astype(mean.dtype) * jnp.eye(size, dtype=mean.dtype)
        newest = jnp.zeros(size, mean.dtype).at[place].set(1)
        # By LU: under a mesh that cuts the ring, Cholesky's factors are wrong in JAX 0.10.
        return jnp.linalg.solve(system, newest)

    return weights
