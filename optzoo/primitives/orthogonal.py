"""Replacing a matrix by the nearest (semi-)orthogonal one: Muon's and AdaGO's direction."""

import itertools
import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.axes import Axes, AxesLike, map_with_axes
from optzoo.primitives.base import DType, transformation

Orthogonalizer = Callable[[jax.Array], jax.Array]
Coefficients = tuple[tuple[float, float, float], ...]

RESTART = 3
"""Steps multiplied out on the Gram matrix at a time: more would lose the small singular values."""

KELLER_JORDAN: Coefficients = ((3.4445, -4.7750, 2.0315),)
"""Quintic coefficients of the original Muon; singular values land in about [0.68, 1.13]."""


def newton_schulz(
    steps: int = 5,
    *,
    coefficients: Coefficients = KELLER_JORDAN,
    eps: float = 1e-7,
    clamp_norm: bool = False,
    dtype: DType = None,
) -> Orthogonalizer:
    """An orthogonaliser that iterates a quintic polynomial: matrix products only, no SVD.

    Rule, on the wide orientation of X (rows ≤ columns):
      X ← X/(|X| + eps), then `steps` times:   A = XXᵀ;   X ← aX + (bA + cAA)X

    Where rows are few against columns, the polynomials are first multiplied out on the small A and
    X is multiplied once every three steps, which is fewer operations for the same result; a wide
    `dtype` only, because the powers of A need its digits.

    Args:
      steps: how many iterations.
      coefficients: (a, b, c) of each iteration; the last one repeats.
      eps: keeps the zero matrix at zero.
      clamp_norm: divide by max(|X|, eps) instead, as torch.optim.Muon does.
      dtype: dtype of the products' factors: bfloat16 as in the original, the matrices' by default;
        sums stay in the matrices' dtype.

    Returns:
      A function from a stack of matrices (…, m, n) to one of the same shape.

    Raises:
      ValueError: for negative steps or no coefficients.

    Source: Jordan et al. 2024, github.com/KellerJordan/Muon.
    """
    if steps < 0 or not coefficients:
        raise ValueError(
            "newton_schulz: steps must be at least 0 and coefficients not empty; got "
            f"steps={steps!r}, coefficients={coefficients!r}"
        )
    schedule = [coefficients[min(step, len(coefficients) - 1)] for step in range(steps)]

    groups = [schedule[start : start + RESTART] for start in range(0, steps, RESTART)]

    def product(x, y):
        # Only the factors are rounded: rounded coefficients would be another polynomial.
        factors = (x, y) if dtype is None else (x.astype(dtype), y.astype(dtype))
        return jnp.matmul(*factors, preferred_element_type=x.dtype)

    def direct(x, group):
        for a, b, c in group:
            gram = product(x, x.mT)
            x = a * x + product(b * gram + c * product(gram, gram), x)
        return x

    def by_gram(x, group):
        gram = product(x, x.mT)
        identity = jnp.broadcast_to(jnp.eye(gram.shape[-1], dtype=gram.dtype), gram.shape)
        factor = None
        for last, (a, b, c) in zip(range(1 - len(group), 1), group, strict=True):
            step = a * identity + b * gram + c * product(gram, gram)
            factor = step if factor is None else product(step, factor)
            if last < 0:
                gram = product(product(step, gram), step)
        return product(factor, x)

    def orthogonalizer(matrices: jax.Array) -> jax.Array:
        tall = matrices.shape[-2] > matrices.shape[-1]
        x = matrices.mT if tall else matrices
        norm = jnp.sqrt(jnp.sum(jnp.square(x), axis=(-2, -1), keepdims=True))
        x = x / (jnp.maximum(norm, eps) if clamp_norm else norm + eps)
        rows, columns = x.shape[-2:]
        narrow = dtype is not None and jnp.finfo(dtype).bits < 32
        for group in groups:
            direct_cost = len(group) * (4 * columns + 2 * rows)
            gram_cost = 4 * columns + (8 * len(group) - 6) * rows
            x = (direct if narrow or direct_cost <= gram_cost else by_gram)(x, group)
        return x.mT if tall else x

    return orthogonalizer


def polar() -> Orthogonalizer:
    """An orthogonaliser that takes the exact polar factor UVᵀ of X = USVᵀ, by SVD.

    Directions whose singular value is zero to rounding stay zero, as the pseudo-inverse has it.

    Returns:
      A function from a stack of matrices (…, m, n) to one of the same shape.
    """

    def orthogonalizer(matrices: jax.Array) -> jax.Array:
        u, s, vt = jnp.linalg.svd(matrices, full_matrices=False)
        cutoff = jnp.max(s, axis=-1, keepdims=True, initial=0.0) * jnp.finfo(s.dtype).eps
        kept = s > cutoff * max(matrices.shape[-2:])
        return jnp.where(kept[..., None, :], u, 0) @ vt

    return orthogonalizer


@transformation
def orthogonalize(
    orthogonalizer: Orthogonalizer | None = None, *, axes: AxesLike = None
) -> optax.GradientTransformation:
    """Replaces each matrix of the updates by its orthogonalised form.

    Matrices of equal shape, wide or tall, are stacked and go through one call: a model of many
    equal blocks compiles to a few batched products.

    Args:
      orthogonalizer: maps a stack of matrices (k, m, n), m ≤ n, to one of the same shape;
        `newton_schulz()` by default, `polar()` for the exact one, or any callable.
      axes: how leaves are matrices; see `optzoo.primitives.axes`. Leaves that are none pass.

    Returns:
      A stateless transformation.
    """
    method = newton_schulz() if orthogonalizer is None else orthogonalizer

    def update(updates, params):
        del params
        waiting: dict[Any, list[jax.Array]] = defaultdict(list)

        def enqueue(spec, x):
            if _is_matrix(spec, x):
                stack = _wide_stack(spec, x)
                waiting[_group(stack)].append(stack)

        map_with_axes(enqueue, axes, updates)
        finished = {group: iter(_batched(method, stacks)) for group, stacks in waiting.items()}

        def fetch(spec, x):
            if not _is_matrix(spec, x):
                return x
            return _unstacked(spec, next(finished[_group(_wide_stack(spec, x))]), x)

        return map_with_axes(fetch, axes, updates)

    return optax.stateless(update)


def _is_matrix(spec: Axes | None, x: jax.Array) -> bool:
    return spec is not None and x.size > 0


def _group(stack: jax.Array) -> tuple:
    return stack.shape[1:], stack.dtype


def _wide_stack(spec: Axes, x: jax.Array) -> jax.Array:
    matrices = spec.to_matrix(x)
    matrices = matrices.reshape(-1, *matrices.shape[-2:])
    return matrices.mT if matrices.shape[-2] > matrices.shape[-1] else matrices


def _unstacked(spec: Axes, stack: jax.Array, like: jax.Array) -> jax.Array:
    shape = spec.matrix_shape(like.shape)
    return spec.from_matrix(
        (stack.mT if shape[-2] > shape[-1] else stack).reshape(shape), like.shape
    )


def _batched(method: Orthogonalizer, stacks: list[jax.Array]) -> list[jax.Array]:
    stacked = jnp.concatenate(stacks)
    result = method(stacked)
    if result.shape != stacked.shape:
        raise ValueError(
            "orthogonalizer must return the shape it was given; got "
            f"{result.shape} for {stacked.shape}"
        )
    ends = itertools.accumulate(len(stack) for stack in stacks)
    return [result[end - len(stack) : end] for stack, end in zip(stacks, ends, strict=True)]


Scale = Literal["fan", "keller_jordan", "match_rms_adamw"] | None


@transformation
def scale_by_fan(scale: Scale = "fan", *, axes: AxesLike = None) -> optax.GradientTransformation:
    """Multiplies orthogonal updates by a factor of the matrix shape, so that one rate fits all.

    Rule, for a matrix with `in` inputs and `out` outputs:
      "fan": √max(1, out/in);   "match_rms_adamw": 0.2·√max(in, out)
      "keller_jordan": "fan", but √max(1, height/width) for convolutions, as the original code

    Args:
      scale: which factor; None for 1.
      axes: how leaves are matrices; see `optzoo.primitives.axes`.

    Returns:
      A stateless transformation.

    Raises:
      ValueError: for an unknown scale.
    """

    def factor(spec, shape):
        fan_in, fan_out = (
            math.prod(shape[axis] for axis in group) for group in (spec.input, spec.output)
        )
        if scale == "match_rms_adamw":
            return 0.2 * math.sqrt(max(fan_in, fan_out))
        if scale == "keller_jordan" and len(shape) == 4:
            fan_out, fan_in = shape[0], shape[1]
        return math.sqrt(max(1, fan_out / max(fan_in, 1)))

    def scaled(spec, x):
        return x if spec is None else x * factor(spec.resolved(x.ndim), x.shape)

    if scale is None:
        return optax.identity()
    return optax.stateless(lambda updates, _: map_with_axes(scaled, axes, updates))
