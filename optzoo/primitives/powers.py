"""Negative powers of positive semi-definite matrices, for preconditioners of any exponent."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from optzoo.primitives.base import NonNegative, Size, checked
from optzoo.primitives.kronecker import unit_size

Power: TypeAlias = Callable[[jax.Array, float], jax.Array]
Largest: TypeAlias = Callable[[jax.Array], jax.Array]


@checked
def eigen_power(
    eps: NonNegative = 1e-12, *, relative: bool = False, largest: Largest | None = None
) -> Power:
    """Exact powers, by eigenvalues.

    Rule:
      ridge = eps, or eps·λ with relative, λ being the largest eigenvalue of V
      every eigenvalue w of V becomes max(w + ridge, ridge)^(−exponent)

    Eigenvalues that are rounding beside the largest count as that rounding, not as less.

    Args:
      eps: keeps singular matrices from infinite powers.
      relative: eps times the largest eigenvalue.
      largest: finds λ for the ridge, `power_largest()` say; the exact one by default.

    Returns:
      A function of a matrix and an exponent.

    Raises:
      ValueError: for an argument out of range.
    """

    def power(matrix: jax.Array, exponent: float) -> jax.Array:
        if not len(matrix):
            return matrix
        unit, size = unit_size(matrix)
        values, vectors = jnp.linalg.eigh(unit)
        values = values * size
        top = values[-1] if largest is None else largest(matrix)
        ridge = eps * top if relative else jnp.asarray(eps, matrix.dtype)
        rounding = len(matrix) * jnp.finfo(matrix.dtype).eps * values[-1]
        values = jnp.maximum(values + ridge, jnp.maximum(ridge, rounding))
        inverse = jnp.where(values > 0, values, 1) ** -exponent
        return (vectors * inverse[None, :]) @ vectors.T

    return power


@checked
def newton_power(
    eps: NonNegative = 1e-6,
    *,
    relative: bool = True,
    largest: Largest | None = None,
    tolerance: NonNegative = 1e-6,
    steps: Size = 100,
    tries: Size = 6,
) -> Power:
    """Powers −1/p with a whole p, by coupled Newton iterations: products of matrices only.

    Rule, with A = V + ridge·I and z = (1 + p)/(2|A|):
      M = z·A, H = z^(1/p)·I;   then T = (1 + 1/p)·I − M/p, M ← T^p·M, H ← H·T
      until |M − I| ≤ tolerance; a step that enlarges it by a fifth is taken back and ends it
      where it stays above 0.05, again with ten times the ridge

    Args:
      eps: the ridge, or the ridge over the largest eigenvalue.
      relative: eps times the largest eigenvalue.
      largest: finds the largest eigenvalue; `power_largest()` by default.
      tolerance: largest entry of |M − I| that ends the iterations.
      steps: how many iterations at most.
      tries: how many ridges at most.

    Returns:
      A function of a matrix and an exponent 1/p. What does not converge becomes NaN.

    Raises:
      ValueError: for an argument out of range.

    Source: Anil et al. 2020, arXiv 2002.09018; google-research/precondition.
    """
    find = power_largest() if largest is None else largest

    def power(matrix: jax.Array, exponent: float) -> jax.Array:
        if not len(matrix):
            return matrix
        p, identity = round(1 / exponent), jnp.eye(len(matrix), dtype=matrix.dtype)
        ridge = jnp.asarray(eps, matrix.dtype) * (find(matrix) if relative else 1)

        def error(m):
            return jnp.max(jnp.abs(m - identity), initial=0.0)

        def step(state):
            count, m, h, _, old, _ = state
            t = (1 + 1 / p) * identity - m / p
            new = jnp.linalg.matrix_power(t, p) @ m
            return count + 1, new, h @ t, h, error(new), error(new) < 1.2 * old

        def goes_on(state):
            count, *_, left, shrinks = state
            return (count < steps) & (left > tolerance) & shrinks

        def attempt(state):
            number, *_ = state
            damped = matrix + ridge * 10.0**number * identity
            z = (1 + p) / (2 * jnp.linalg.norm(damped))
            m, h = z * damped, z ** (1 / p) * identity
            start = jnp.zeros([], jnp.int32), m, h, h, error(m), jnp.ones([], bool)
            _, m, h, before, left, shrinks = jax.lax.while_loop(goes_on, step, start)
            return number + 1, jnp.where(shrinks, h, before), left

        def fails(state):
            number, _, left = state
            return (number < tries) & ~(left <= 0.05)

        unknown = jnp.asarray(jnp.inf, matrix.dtype)
        start = jnp.zeros([], matrix.dtype), identity, unknown
        _, root, left = jax.lax.while_loop(fails, attempt, start)
        return jnp.where(left < 0.1, root, jnp.nan)

    return power


@checked
def power_largest(tolerance: NonNegative = 1e-6, *, steps: Size = 100, seed: int = 1729) -> Largest:
    """The largest eigenvalue, by power iteration from a fixed vector.

    Args:
      tolerance: the change that ends the iteration, and the smallest result.
      steps: how many iterations at most.
      seed: of NumPy's old generator, which draws the vector from [-1, 1).

    Returns:
      A function of a matrix.

    Raises:
      ValueError: for an argument out of range.
    """

    def find(matrix: jax.Array) -> jax.Array:
        drawn = np.random.RandomState(seed).uniform(-1.0, 1.0, len(matrix))
        vector = jnp.asarray(drawn, matrix.dtype)

        def step(state):
            count, vector, old, _ = state
            norm = jnp.linalg.norm(vector)
            unit = vector / jnp.where(norm == 0, 1, norm)
            image = matrix @ unit
            new = unit @ image
            return count + 1, image, new, jnp.abs(new - old) > tolerance

        def goes_on(state):
            count, *_, changes = state
            return (count < steps) & changes

        zero = jnp.zeros([], matrix.dtype)
        start = jnp.zeros([], jnp.int32), vector, zero, jnp.ones([], bool)
        _, _, value, _ = jax.lax.while_loop(goes_on, step, start)
        return jnp.maximum(value, jnp.asarray(tolerance, matrix.dtype))

    return find
