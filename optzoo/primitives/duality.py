"""Duality maps: the direction that a gradient means once a norm says how far a step may go.

A gradient is a linear function of the step. Of all steps in the unit ball of a norm, the duality
map takes the one along which that function grows most; how much it grows is the dual norm. Muon,
sign descent and normalised descent are the same rule in three balls.
"""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.axes import Axes, AxesLike, map_with_axes
from optzoo.primitives.base import NonNegative, Tree, transformation
from optzoo.primitives.combine import gradient, merge_leaves
from optzoo.primitives.evidence import in_attention
from optzoo.primitives.labels import routes
from optzoo.primitives.leafwise import leafwise
from optzoo.primitives.norms import abs_sq, root
from optzoo.primitives.orthogonal import Orthogonalizer, Scale, fan_factor, orthogonalize

NAMES = ("auto", "spectral", "kernel", "sign", "max", "row", "column", "rms", "euclidean")
Ball: TypeAlias = str | Callable[[Axes | None, jax.Array], jax.Array]
Balls: TypeAlias = Ball | Tree


@transformation
def dualize(
    ball: Balls = "auto",
    *,
    orthogonalizer: Orthogonalizer | None = None,
    scale: Scale = "rms_to_rms",
    eps: NonNegative = 1e-8,
    axes: AxesLike = None,
) -> optax.GradientTransformation:
    """Replaces each leaf u by the point x of the unit ball with the largest ⟨u, x⟩.

    Rule, for a matrix with `in` inputs and `out` outputs; zero stays zero:
      "spectral": the orthogonalised u times the factor of `scale`
      "kernel": the same, with the factor "kernel" of `scale_by_fan`
      "row": u/(√in·|u| + eps), |u| of what feeds one output
      "column": u/(q + eps), q the root mean square of what one input feeds
      "sign": sign(u)/in;   "max": sign(u)
      "rms": u/(q + eps), q the leaf's root mean square;   "euclidean": u/(|u| + eps)
      "auto": "rms" for vectors and scalars, "column" for embeddings, "kernel" for convolutions,
      "spectral" for all other matrices

    Balls of matrices let pass what is none. Matrices of equal shape go through one stacked call,
    spread over a mesh, as in `orthogonalize`.

    Args:
      ball: a name; a function of the leaf's `Axes` (None for vectors) and the leaf; or a tree of
        these like the parameters, or a prefix of it, where the key "" stands for the rest.
      orthogonalizer: maps a stack of matrices (k, m, n) to one of the same shape;
        `newton_schulz()` by default, `polar()` for the exact one, or any callable.
      scale: the factor of the matrix shape for "spectral"; see `scale_by_fan`.
      eps: added to the divisors.
      axes: how leaves are matrices; see `optzoo.primitives.axes`.

    Returns:
      A stateless transformation.

    Raises:
      ValueError: for an argument out of range; from `update`, for an unknown ball, a tree without
        one for a leaf, or an orthogonaliser that changes the shape.
    """
    for one in jax.tree.leaves(ball):
        if not callable(one) and one not in NAMES:
            raise ValueError(f"dualize: ball must be one of {', '.join(NAMES)}; got {one!r}")

    def update(updates, _):
        balls = leafwise("ball", ball, updates)
        if "auto" in jax.tree.leaves(balls):
            found = _automatic(updates, axes)
            balls = jax.tree.map(lambda one, auto: auto if one == "auto" else one, balls, found)

        def as_matrix(spec, _, one):
            return spec if one in ("spectral", "kernel") else None

        def directed(spec, x, one):
            if callable(one):
                return one(spec, x)
            if one in ("spectral", "kernel"):
                factor = "kernel" if one == "kernel" else scale
                return x if spec is None else x * fan_factor(factor, spec, x.shape)
            return _entries(one, spec, x, eps)

        matrices = map_with_axes(as_matrix, axes, updates, balls)
        if jax.tree.leaves(matrices):
            tx = orthogonalize(orthogonalizer, axes=matrices)
            updates, _ = tx.update(updates, optax.EmptyState())
        return map_with_axes(directed, axes, updates, balls)

    return optax.stateless(update)


@transformation
def dual_norm(
    ball: Balls = "auto",
    *,
    orthogonalizer: Orthogonalizer | None = None,
    scale: Scale = "rms_to_rms",
    eps: NonNegative = 1e-8,
    axes: AxesLike = None,
) -> optax.GradientTransformation:
    """How much the gradient promises for a step in the unit ball: ⟨u, x⟩ with the x of `dualize`.

    Args:
      ball, orthogonalizer, scale, eps, axes: as for `dualize`.

    Returns:
      A transformation whose output is one scalar a leaf.

    Raises:
      ValueError: as `dualize`.
    """
    dual = dualize(ball, orthogonalizer=orthogonalizer, scale=scale, eps=eps, axes=axes)
    return merge_leaves(inner_product, gradient, dual)


def inner_product(u: jax.Array, x: jax.Array) -> jax.Array:
    """⟨u, x⟩, a scalar."""
    return jnp.sum(u * x)


def _automatic(tree: Tree, axes: AxesLike) -> Tree:
    def ball(route):
        if route.axes is None:
            return "rms"
        if route.reason == "embedding":
            return "column"
        # What has several input axes is a convolution, or a layer that joins heads.
        joins_heads = in_attention(route.path)
        return "kernel" if len(route.axes.input) > 1 and not joins_heads else "spectral"

    balls = [ball(route) for route in routes(tree, axes)]
    return jax.tree.unflatten(jax.tree.structure(tree), balls)


def _entries(ball: str, spec: Axes | None, x: jax.Array, eps: Any) -> jax.Array:
    """The point of a ball that needs no more than sums."""
    fan_in = math.prod(x.shape[axis] for axis in spec.input) if spec else 1
    batch = spec.batch if spec else ()
    layer = tuple(axis for axis in range(x.ndim) if axis not in batch)
    if ball in ("max", "sign"):
        return jnp.sign(x) / (fan_in if ball == "sign" else 1)
    if ball in ("rms", "euclidean"):
        return _divided(x, layer, ball == "rms", 1.0, eps)
    if spec is None:
        return x
    if ball == "column":
        return _divided(x, spec.output, True, 1.0, eps)
    return _divided(x, spec.input, False, math.sqrt(fan_in), eps)


def _divided(x: jax.Array, over: tuple[int, ...], mean: bool, factor: float, eps: Any) -> jax.Array:
    total = (jnp.mean if mean else jnp.sum)(abs_sq(x), axis=over, keepdims=True)
    divisor = factor * root(total) + eps
    return x / jnp.where(divisor == 0, 1, divisor)
