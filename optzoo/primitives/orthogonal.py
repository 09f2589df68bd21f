"""Replacing a matrix by the nearest (semi-)orthogonal one: Muon's and AdaGO's direction."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.axes import Axes, AxesLike, map_with_axes
from optzoo.primitives.base import DType, transformation, wide
from optzoo.primitives.polynomials import KELLER_JORDAN, Coefficients
from optzoo.primitives.stacks import map_stacks

Orthogonalizer: TypeAlias = Callable[[jax.Array], jax.Array]
Path: TypeAlias = Sequence[Coefficients]

ROUNDING = 1e-5
"""What multiplying steps out on the Gram matrix may add to the rounding of a unit matrix."""


def newton_schulz(
    steps: int = 5,
    *,
    coefficients: Coefficients = KELLER_JORDAN,
    eps: jax.typing.ArrayLike = 1e-7,
    clamp_norm: bool = False,
    dtype: DType = None,
) -> Orthogonalizer:
    """An orthogonaliser that iterates a quintic polynomial: matrix products only, no SVD.

    Rule, with A = XXᵀ (for a tall X, A = XᵀX and every product from the other side):
      X ← X/(|X| + eps), then `steps` times:   X ← aX + (bA + cA²)X

    Where one side is more than 1.5 times the other, steps are multiplied out on the small A and X
    is multiplied once every few steps: fewer operations for the same result, as long as products
    keep all digits. They do in float64 and on CPUs; other devices shorten the factors of float32
    products, and go step by step, unless `jax.default_matmul_precision("float32")` holds.

    Args:
      steps: how many iterations.
      coefficients: (a, b, c) of each iteration; the last one repeats. `KELLER_JORDAN`, `DION` or
        `polar_express(steps)`.
      eps: keeps the zero matrix at zero.
      clamp_norm: divide by max(|X|, eps) instead, as torch.optim.Muon does.
      dtype: dtype of the products and their factors: bfloat16 as in the original, which is slower
        on CPUs; the matrices' by default. X stays in float32 or wider, the original rounds it, too.

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
    schedule = (*coefficients[:steps], *coefficients[-1:] * (steps - len(coefficients)))

    def orthogonalizer(matrices: jax.Array) -> jax.Array:
        factors = matrices.dtype if dtype is None else jnp.dtype(dtype)
        x = wide(matrices)
        norm = jnp.sqrt(jnp.sum(jnp.square(x), axis=(-2, -1), keepdims=True))
        x = x / (jnp.maximum(norm, eps) if clamp_norm else norm + eps)
        short, long = sorted(x.shape[-2:])
        single = _grouped(schedule, 0)
        grouped = _grouped(schedule, ROUNDING / float(jnp.finfo(factors).eps))
        if 2 * long <= 3 * short or grouped == single:
            x = _iterated(x, single, factors)
        elif factors == jnp.float64 or _keeps_float32():
            x = _iterated(x, grouped, factors)
        else:
            x = jax.lax.platform_dependent(
                x,
                cpu=partial(_iterated, path=grouped, factors=factors),
                default=partial(_iterated, path=single, factors=factors),
            )
        return x.astype(matrices.dtype)

    return orthogonalizer


def _grouped(schedule: Coefficients, amplification: float) -> list[Coefficients]:
    """The steps in groups that enlarge small singular values, and rounding with them, no more."""
    groups: list[Coefficients] = []
    for step in schedule:
        if groups and math.prod(a for a, _, _ in (*groups[-1], step)) <= amplification:
            groups[-1] = (*groups[-1], step)
        else:
            groups.append((step,))
    return groups


def _keeps_float32() -> bool:
    return jax.default_matmul_precision.value in ("float32", "highest")


def _iterated(x: jax.Array, path: Path, factors: jnp.dtype) -> jax.Array:
    """X after all steps; a group of steps is (scale + factor)·X, with factor made from A alone."""
    tall = x.shape[-2] > x.shape[-1]

    def product(y, z):
        # Products move half as much in half precision. The rest is done in X's: small singular
        # values drown when X is rounded, and rounded coefficients are another polynomial.
        return jnp.matmul(y.astype(factors), z.astype(factors)).astype(x.dtype)

    for group in path:
        gram = product(x.mT, x) if tall else product(x, x.mT)
        scale, factor = 1.0, jnp.zeros_like(gram)
        for index, (a, b, c) in enumerate(group):
            step = b * gram + c * product(gram, gram)
            if index:
                factor = a * factor + scale * step + product(step, factor)
            else:
                factor = step
            scale *= a
            if index < len(group) - 1:
                half = a * gram + product(step, gram)
                gram = a * half + product(step, half)
        x = scale * x + (product(x, factor) if tall else product(factor, x))
    return x


def polar() -> Orthogonalizer:
    """An orthogonaliser that takes the exact polar factor UVᵀ of X = USVᵀ, by SVD.

    Directions whose singular value is zero to rounding stay zero, as the pseudo-inverse has it. A
    matrix with an infinite number becomes NaN.

    Returns:
      A function from a stack of matrices (…, m, n) to one of the same shape.
    """

    def orthogonalizer(matrices: jax.Array) -> jax.Array:
        # LAPACK's SVD never ends on infinity; on NaN it does.
        finite = jnp.isfinite(matrices).all(axis=(-2, -1), keepdims=True)
        u, s, vt = jnp.linalg.svd(jnp.where(finite, matrices, jnp.nan), full_matrices=False)
        cutoff = jnp.max(s, axis=-1, keepdims=True, initial=0.0) * jnp.finfo(s.dtype).eps
        kept = s > cutoff * max(matrices.shape[-2:])
        return jnp.where(kept[..., None, :], u, 0) @ vt

    return orthogonalizer


@transformation
def orthogonalize(
    orthogonalizer: Orthogonalizer | None = None, *, axes: AxesLike = None
) -> optax.GradientTransformation:
    """Replaces each matrix of the updates by its orthogonalised form.

    Matrices of equal shape are stacked and go through one call: a model of many equal blocks
    compiles to a few batched products. Under a mesh (`jax.set_mesh`) whole matrices are spread
    over the devices and brought back, whatever the orthogonaliser; see
    `optzoo.primitives.stacks.map_stacks`.

    Args:
      orthogonalizer: maps a stack of matrices (k, m, n) to one of the same shape;
        `newton_schulz()` by default, `polar()` for the exact one, or any callable.
      axes: how leaves are matrices; see `optzoo.primitives.axes`. Leaves that are none pass.

    Returns:
      A stateless transformation.

    Raises:
      ValueError: from `update`, if the orthogonaliser changes the shape.
    """
    method = on_stacks(orthogonalizer)
    return optax.stateless(lambda updates, _: map_stacks(method, axes, updates))


def on_stacks(orthogonalizer: Orthogonalizer | None) -> Orthogonalizer:
    """The orthogonaliser that the argument stands for, held to the shape and dtype it was given."""
    method = newton_schulz() if orthogonalizer is None else orthogonalizer

    def checked(matrices):
        result = method(matrices)
        if result.shape != matrices.shape:
            raise ValueError(
                "orthogonalizer must return the shape it was given; got "
                f"{result.shape} for {matrices.shape}"
            )
        return result.astype(matrices.dtype)

    return checked


Scale = Literal["fan", "rms_to_rms", "kernel", "keller_jordan", "match_rms_adamw"] | None


def fan_factor(scale: Scale, spec: Axes, shape: tuple[int, ...]) -> float:
    """The factor of `scale_by_fan` for a leaf of `shape`."""
    sides = [shape[axis] for axis in spec.input]
    fan_in, fan_out = math.prod(sides), math.prod(shape[axis] for axis in spec.output)
    if scale is None:
        return 1.0
    if scale == "match_rms_adamw":
        return 0.2 * math.sqrt(max(fan_in, fan_out))
    if scale == "kernel":
        return math.sqrt(fan_out / max(sides[-1], 1)) / max(sides[0], 1) ** (len(sides) - 1)
    if scale == "keller_jordan" and len(sides) == 3:
        fan_out, fan_in = sides[:2]
    ratio = fan_out / max(fan_in, 1)
    return math.sqrt(ratio if scale == "rms_to_rms" else max(1, ratio))


@transformation
def scale_by_fan(scale: Scale = "fan", *, axes: AxesLike = None) -> optax.GradientTransformation:
    """Multiplies orthogonal updates by a factor of the matrix shape, so that one rate fits all.

    Rule, for a matrix with `in` inputs and `out` outputs:
      "fan": √max(1, out/in);   "rms_to_rms": √(out/in);   "match_rms_adamw": 0.2·√max(in, out)
      "keller_jordan": "fan", but √max(1, height/width) for convolutions, as the original code
      "kernel": √(out/channels)/kᵈ for a convolution over d axes, k its first side; else √(out/in)

    Args:
      scale: which factor; None for 1.
      axes: how leaves are matrices; see `optzoo.primitives.axes`.

    Returns:
      A stateless transformation.

    Raises:
      ValueError: for an unknown scale.
    """

    def scaled(spec, x):
        return x if spec is None else x * fan_factor(scale, spec, x.shape)

    if scale is None:
        return optax.identity()
    return optax.stateless(lambda updates, _: map_with_axes(scaled, axes, updates))
