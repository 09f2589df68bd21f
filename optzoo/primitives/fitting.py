"""Fitting preconditioners on Lie groups: P → the inverse root of what curvature there is (PSGD)."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from optzoo.primitives.base import Decay, Fraction, NonNegative, checked
from optzoo.primitives.kronecker import kept_finite, on_axis, second_moment

Fit = Literal["q0p5eq1p5", "qeq", "qep", "eq", "quad", "pro4p", "quad4p"]
Bound: TypeAlias = Callable[..., jax.Array]
Rows: TypeAlias = Callable[[int], jax.Array]
DIRECT = ("pro4p", "quad4p")
"""The forms that fit P itself; all others fit Q with P = QᵀQ."""


def norm_bound(rows: Rows | None = None) -> Bound:
    """A lower bound of the spectral norm of a symmetric or skew-symmetric matrix, close to it.

    Rule:
      v = the largest row of A, or rows ± that row;   twice: v ← v·A/|v·A|, v ← v·A
      returns the largest |v|

    Args:
      rows: a function from the matrix's size to random rows that widen the search; None for none.

    Returns:
      A function of a matrix, and of whether it is skew-symmetric.

    Source: Li 2024, arXiv 2402.11858; lixilinx/psgd_torch.
    """

    def bound(matrix: jax.Array, skew: bool = False) -> jax.Array:
        tiny = jnp.finfo(matrix.dtype).tiny
        largest = jnp.abs(matrix) if skew else jnp.diagonal(matrix)
        scale = jnp.max(largest, initial=0.0) + tiny
        unit = matrix / scale
        row = unit[jnp.argmax(jnp.sum(jnp.square(unit), axis=1))]
        v = row[None]
        if rows is not None:
            drawn = jnp.asarray(rows(len(matrix)), matrix.dtype)
            v = v + jnp.sign(drawn @ row)[:, None] * drawn
        for _ in range(2):
            v = v @ unit
            v = v / (jnp.sqrt(jnp.sum(jnp.square(v), axis=1, keepdims=True)) + tiny)
            v = v @ unit
        return scale * jnp.sqrt(jnp.max(jnp.sum(jnp.square(v), axis=1)))

    return bound


def turned_upright(q: jax.Array, bound: Bound, *, largest: float, third: bool = False) -> jax.Array:
    """A matrix nearer to a symmetric one, by one rotation from the left (Procrustes).

    Args:
      q: the matrix.
      bound: estimates the norm of its skew part.
      largest: the longest rotation.
      third: expand the rotation to third order instead of second.
    """
    skew = q.T - q
    r = skew / (bound(skew, skew=True) + jnp.finfo(q.dtype).tiny)
    rq = r @ q
    rrq = r @ rq
    first, second = jnp.trace(rq), jnp.trace(rrq)
    if not third:
        best = -first / jnp.where(second < 0, second, -1)
        a = jnp.where(second < 0, jnp.minimum(best, largest), largest).astype(q.dtype)
        return q + a * (rq + 0.5 * a * rrq)
    rrrq = r @ rrq
    cube = jnp.trace(rrrq)
    helps = (first > 0) & (cube < 0)
    inside = jnp.where(helps, jnp.square(second) - 1.5 * first * cube, 0)
    a = (-second - jnp.sqrt(inside)) / (0.75 * jnp.where(helps, cube, -1))
    a = jnp.where(helps, jnp.minimum(a, largest), 0)
    return q + a * (rq + 0.5 * a * (rrq + 0.25 * a * rrrq))


def _upright(q: jax.Array, bound: Bound) -> jax.Array:
    """`turned_upright` until a thousandth of asymmetry is left, ten times at most."""

    def goes_on(state):
        count, q = state
        askew = jnp.max(jnp.abs(q.T - q)) >= 0.001 * jnp.max(jnp.abs(q))
        return (count == 0) | ((count < 10) & askew)

    def step(state):
        count, q = state
        return count + 1, turned_upright(q, bound, largest=1 / 3, third=True)

    return jax.lax.while_loop(goes_on, step, (jnp.zeros([], jnp.int32), q))[1]


def moved_factor(
    fit: Fit, q: jax.Array, t1: jax.Array, t2: jax.Array, step: jax.Array, bound: Bound
) -> jax.Array:
    """A factor after one step of its fit, towards where t1 = t2; diagonals are vectors."""
    e = t1 - t2
    if q.ndim == 1:
        if fit in ("quad", "quad4p"):
            return q * jnp.square(1 - (step / 2 if fit == "quad" else step) * e)
        return q * (1 - step * e)
    if fit == "eq":
        return q - step * (jnp.triu(e) @ q)
    if fit == "qeq":
        return q - step * (q @ e)
    if fit in ("quad", "quad4p"):
        half = step / 2 if fit == "quad" else step
        w = q - half * (e @ q)
        w = w - half * (w @ e)
        return (w + w.T) / 2
    q = q - step * (e @ q)
    if fit == "qep":
        return q
    return _upright(q, bound) if fit == "pro4p" else turned_upright(q, bound, largest=1 / 8)


def smoothed(old: jax.Array, now: jax.Array, beta: jax.typing.ArrayLike) -> jax.Array:
    """A running largest value that forgets slowly: a bound of the fit's smoothness."""
    return jnp.maximum(beta * old + (1 - beta) * now, now)


def rate_over(rate: jax.typing.ArrayLike, smoothness: jax.Array) -> jax.Array:
    """rate/smoothness, and 0 where nothing has been seen."""
    seen = smoothness > 0
    return jnp.where(seen, rate / jnp.where(seen, smoothness, 1), 0).astype(smoothness.dtype)


def preconditioned(fit: Fit, factors: tuple[jax.Array, ...], x: jax.Array) -> jax.Array:
    """P·x for the factors of a fit."""
    for axis, q in enumerate(factors):
        x = applied(q, x, axis)
        if fit not in DIRECT:
            x = applied(q if q.ndim == 1 else q.T, x, axis)
    return x


def applied(q: jax.Array, x: jax.Array, axis: int) -> jax.Array:
    """A factor, or the diagonal of one, applied to an axis."""
    if q.ndim == 1:
        return x * q.reshape([-1 if other == axis else 1 for other in range(x.ndim)])
    return on_axis(q, x, axis)


def fitted(
    fit: Fit,
    factors: tuple[jax.Array, ...],
    smoothness: tuple[jax.Array, ...],
    h: jax.Array,
    v: jax.Array | None,
    rate: jax.typing.ArrayLike,
    beta: jax.typing.ArrayLike,
    bound: Bound,
) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
    """One step of a Kronecker preconditioner of one tensor.

    Args:
      fit: which form.
      factors: a matrix, or the diagonal of one, for each axis.
      smoothness: one number for each axis.
      h: what P is to whiten: a gradient, or a Hessian times v.
      v: the probe; None for the mean over all, the identity.
      rate: length of the step, at most 1.
      beta: how slowly the smoothness forgets.
      bound: estimates norms.

    Returns:
      The new factors and smoothness. Where they would not be finite they stay.
    """
    if fit == "qep":
        factors = balanced(factors)
    a: Any
    b: Any
    if fit == "eq":
        a = h
        for axis, q in enumerate(factors):
            a = applied(q, a, axis)
        b = _solved(factors, v)
    else:
        a, b = preconditioned(fit, factors, h), v
    new, smooth = [], []
    for axis, (q, old) in enumerate(zip(factors, smoothness, strict=True)):
        mine = applied(q, a, axis) if fit == "qep" else a
        t1 = _moment(mine, axis, q)
        if b is None:
            share = h.size / max(len(q), 1)
            if fit == "qep":
                t2 = share * (jnp.square(q) if q.ndim == 1 else q @ q.T)
            else:
                t2 = share * (jnp.ones_like(q) if q.ndim == 1 else jnp.eye(len(q), dtype=q.dtype))
        else:
            t2 = _moment(applied(q, b, axis) if fit == "qep" else b, axis, q)
        if b is None and fit != "qep":
            size = (jnp.max(t1, initial=0.0) if q.ndim == 1 else bound(t1)) + share
        else:
            size = jnp.max(t1 + t2, initial=0.0) if q.ndim == 1 else bound(t1 + t2)
        now = smoothed(old, size, beta)
        moved = moved_factor(fit, q, t1, t2, rate_over(rate, now), bound)
        fine = jnp.isfinite(moved).all() & jnp.isfinite(now)
        new.append(jnp.where(fine, moved, q))
        smooth.append(jnp.where(fine, now, old))
    return tuple(new), tuple(smooth)


def balanced(factors: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    """The same product of factors with equal largest entries."""
    if len(factors) < 2:
        return factors
    sizes = jnp.stack([jnp.max(jnp.abs(q), initial=0.0) for q in factors])
    mean = jnp.exp(jnp.mean(jnp.log(sizes)))
    return tuple(kept_finite(q * (mean / size), q) for q, size in zip(factors, sizes, strict=True))


def _moment(x: jax.Array, axis: int, q: jax.Array) -> jax.Array:
    if q.ndim == 2:
        return second_moment(x, axis)
    return jnp.sum(jnp.square(x), axis=[other for other in range(x.ndim) if other != axis])


def _solved(factors: tuple[jax.Array, ...], v: Any) -> Any:
    """Q^(−T)·v for triangular factors."""
    for axis, q in enumerate(factors):
        if q.ndim == 1:
            v = applied(1 / q, v, axis)
        else:
            front = jnp.moveaxis(v, axis, 0)
            flat = front.reshape(len(q), -1)
            solved = jax.scipy.linalg.solve_triangular(q, flat, trans=1)
            v = jnp.moveaxis(solved.reshape(front.shape), 0, axis)
    return v


class HessianFit(NamedTuple):
    """What `fit_hessian` goes on from: Q, or P where the form fits that, and its smoothness."""

    factor: jax.Array
    smoothness: jax.Array
    preconditioner: jax.Array


@checked
def fit_hessian(
    state: HessianFit | int,
    v: jax.Array,
    h: jax.Array,
    *,
    fit: Fit = "q0p5eq1p5",
    rate: Fraction = 0.1,
    beta: Decay = 0.9,
    init_scale: NonNegative = 1.0,
) -> HessianFit:
    """One step of fitting a dense P to the inverse of |H|, from a pair v and h = H·v.

    Rule, with a = P·h and E = a·aᵀ − v·vᵀ:
      L ← max(beta·L + (1 − beta)·(|a|² + |v|²), |a|² + |v|²);   Q ← Q − rate/L·E·Q, then upright

    Args:
      state: the last result, or the size of H to begin with.
      v: a normal probe.
      h: the Hessian times v, or any other product.
      fit: "q0p5eq1p5" as above; the others differ in where E stands, see the source.
      rate: length of the step.
      beta: how slowly L forgets.
      init_scale: P begins with its square.

    Returns:
      A `HessianFit`, whose `preconditioner` is P.

    Raises:
      ValueError: for an argument out of range.

    Source: Li 2024, arXiv 2402.11858; lixilinx/psgd_torch.
    """
    if isinstance(state, int):
        scale = init_scale**2 if fit in DIRECT else init_scale
        start = jnp.asarray(scale, h.dtype) * jnp.eye(state, dtype=h.dtype)
        state = HessianFit(start, jnp.zeros([], h.dtype), start)
    q, old, _ = state
    bound = norm_bound()
    if fit == "eq":
        a, b = q @ h, _solved((q,), v)
    else:
        a, b = preconditioned(fit, (q,), h), v
    if fit == "qep":
        a, b = q @ a, q @ v
    now = smoothed(old, a @ a + b @ b, beta)
    q = moved_factor(fit, q, jnp.outer(a, a), jnp.outer(b, b), rate_over(rate, now), bound)
    return HessianFit(q, now, q if fit in DIRECT else q.T @ q)
