"""Square roots of positive semi-definite matrices and their inverses, for preconditioners."""

import math
from collections.abc import Callable
from typing import Annotated, Literal, TypeAlias

import jax
import jax.numpy as jnp

from optzoo.primitives.base import NonNegative, Range, checked
from optzoo.primitives.norms import root
from optzoo.primitives.polynomials import Coefficients, polar_express

Root: TypeAlias = Callable[[jax.Array], jax.Array]
Side = Literal["short", "in", "out"]
Degree = Annotated[int, Range("[1, inf)")]


def on_inputs(side: Side, fan_in: int, fan_out: int) -> bool:
    """Whether a side is that of the inputs: of a square, the short side is."""
    return side == "in" or (side == "short" and fan_in <= fan_out)


def gram(matrices: jax.Array, side: Side = "short") -> jax.Array:
    """The products of a matrix's rows or columns, G·Gᵀ or Gᵀ·G.

    Args:
      matrices: a stack (…, in, out).
      side: "in" for (…, in, in), "out" for (…, out, out), or the shorter.

    Returns:
      The stack of products.
    """
    transposed = jnp.swapaxes(matrices, -1, -2)
    if on_inputs(side, *matrices.shape[-2:]):
        return matrices @ transposed
    return transposed @ matrices


@checked
def inverse_root(
    method: Literal["polynomial", "newton_schulz", "eigh", "pade"] = "polynomial",
    *,
    steps: Degree = 10,
    coefficients: Coefficients | None = None,
    eps: NonNegative = 1e-10,
) -> Root:
    """A function that takes stacks of positive semi-definite matrices V to about V^(−1/2).

    Rule:
      "polynomial": c = 1.01·|V + eps·I|, Y = V/c, Z = I; each step, with T = ZY and
      B = aI + bT + cT²: Y ← YB, Z ← BZ; in the end Z/√c
      "newton_schulz": the same with Y = (V + eps·I)/(|V| + eps) and (2, -1.5, 0.5) for all steps
      "eigh": 1/(√w + eps) for every eigenvalue w; with eps = 0 the pseudo-inverse
      "pade": the inverse of `pade_root(5)`, which damps what is far below |V|

    A matrix with a number that is not finite becomes the identity.

    Args:
      method: as above; the first two need only matrix products.
      steps: how many iterations.
      coefficients: (a, b, c) of each iteration of "polynomial"; the last one repeats.
        `polar_express(8)` by default.
      eps: keeps a singular matrix from an infinite root.

    Returns:
      A function from a stack of matrices (…, n, n) to one of the same shape.

    Raises:
      ValueError: for an argument out of range.

    Source: An et al. 2025, arXiv 2503.20762; Song et al. 2022, arXiv 2201.08663.
    """
    path = polar_express(8) if coefficients is None else coefficients
    if method == "newton_schulz":
        path = ((2.0, -1.5, 0.5),)
    path = (*path[:steps], *path[-1:] * (steps - len(path)))

    def iterated(matrices):
        ridged = matrices + eps * _identity(matrices)
        if method == "newton_schulz":
            size = _norm(matrices) + eps
            y = _over(ridged, size)
        else:
            size = 1.01 * _norm(ridged)
            y = _over(matrices, size)
        z = _identity(y)
        for a, b, c in path:
            t = z @ y
            # Not a·Y + Y·(bT + cT²): compilers fuse the first terms of all steps into one chain of
            # sums, and what it rounds differently from the Y in products grows by a in each step.
            factor = a * _identity(t) + b * t + c * (t @ t)
            y, z = y @ factor, factor @ z
        return _over(z, jnp.sqrt(size))

    def exact(matrices):
        values, basis = jnp.linalg.eigh(matrices)
        values = jnp.maximum(values, 0)
        smallest = jnp.max(values, axis=-1, keepdims=True, initial=0.0) * matrices.shape[-1]
        kept = (values > smallest * jnp.finfo(values.dtype).eps) | (eps > 0)
        inverse = jnp.where(kept, 1 / jnp.where(kept, jnp.sqrt(values) + eps, 1), 0)
        return (basis * inverse[..., None, :]) @ jnp.swapaxes(basis, -1, -2)

    methods = {"eigh": exact, "pade": pade_root(inverse=True)}

    def inverse(matrices: jax.Array) -> jax.Array:
        finite = jnp.isfinite(matrices).all(axis=(-2, -1), keepdims=True)
        safe = jnp.where(finite, matrices, _identity(matrices))
        found = methods.get(method, iterated)(safe)
        return jnp.where(finite, found, safe)

    return inverse


@checked
def pade_root(degree: Degree = 5, *, inverse: bool = False) -> Root:
    """The Padé approximant of the square root of positive definite matrices, differentiable.

    Rule, with A = M/|M| and n = 2·degree + 1:
      N = Σ over j of binomial(n, 2j)·A^j;   D = Σ over j of binomial(n, 2j + 1)·A^j
      returns √|M|·D⁻¹N, or its inverse N⁻¹D/√|M|

    Eigenvalues far below |M| are not resolved: zero becomes √|M|/n.

    Args:
      degree: of numerator and denominator.
      inverse: return the inverse root.

    Returns:
      A function from a stack of matrices (…, n, n) to one of the same shape.

    Raises:
      ValueError: for a degree below 1.

    Source: Song et al. 2022, arXiv 2201.08663, in closed form.
    """
    odd = 2 * degree + 1
    even_terms, odd_terms = (
        [float(math.comb(odd, 2 * j + first)) for j in range(degree + 1)] for first in (0, 1)
    )

    def approximant(matrices: jax.Array) -> jax.Array:
        size = _norm(matrices)
        unit = _over(matrices, size)
        numerator, denominator = _horner(even_terms, unit), _horner(odd_terms, unit)
        if inverse:
            return _over(jnp.linalg.solve(numerator, denominator), root(size))
        return root(size) * jnp.linalg.solve(denominator, numerator)

    return approximant


@checked
def taylor_root(degree: Degree = 10) -> Root:
    """The Taylor polynomial of the square root of positive definite matrices, differentiable.

    Rule, with A = M/|M|:
      √|M|·(the polynomial of √(1 − z) at z = I − A)

    It needs no linear system, and errs by 0.18·√|M| at zero where the default stops.

    Args:
      degree: of the polynomial.

    Returns:
      A function from a stack of matrices (…, n, n) to one of the same shape.

    Raises:
      ValueError: for a degree below 1.

    Source: Song et al. 2022, arXiv 2201.08663.
    """
    terms = [1.0]
    for k in range(1, degree + 1):
        terms.append(terms[-1] * (k - 1.5) / k)

    def polynomial(matrices: jax.Array) -> jax.Array:
        size = _norm(matrices)
        return root(size) * _horner(terms, _identity(matrices) - _over(matrices, size))

    return polynomial


def _identity(matrices: jax.Array) -> jax.Array:
    return jnp.broadcast_to(jnp.eye(matrices.shape[-1], dtype=matrices.dtype), matrices.shape)


def _norm(matrices: jax.Array) -> jax.Array:
    return root(jnp.sum(jnp.square(matrices), axis=(-2, -1), keepdims=True))


def _over(matrices: jax.Array, size: jax.Array) -> jax.Array:
    return matrices / jnp.where(size == 0, 1, size)


def _horner(terms: list[float], x: jax.Array) -> jax.Array:
    """Σ terms[k]·x^k for matrices."""
    identity = _identity(x)
    total = terms[-1] * identity
    for term in reversed(terms[:-1]):
        total = total @ x + term * identity
    return total
