"""Equations of motion whose steps are updates."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.base import (
    DType,
    LearningRate,
    NonNegative,
    Positive,
    Tree,
    at,
    cast_like,
    transformation,
)


class VelocityState(NamedTuple):
    """A velocity, and what the decay keeps."""

    steps: jax.Array
    velocity: Tree
    decay: optax.OptState


@transformation
def inertial_newton(
    learning_rate: LearningRate,
    *,
    alpha: NonNegative = 0.1,
    beta: Positive = 0.9,
    decay: optax.GradientTransformation | None = None,
    dtype: DType = None,
) -> optax.GradientTransformation:
    """A step of the inertial Newton system: friction alpha, damping along the Hessian beta (INNA).

    Rule, with r = learning_rate, the incoming direction d and the decay's pull w:
      h = n + (1 − alpha·beta)/beta·r·w;   n ← (1 − alpha·r)·h + (1 − alpha·beta)·r·d, from 0
      returns beta·d + h + w

    Args:
      learning_rate: the time step, by which the result is to be multiplied; a number or a schedule
        of the number of finished steps.
      alpha: friction, in 1/time; no upper bound.
      beta: damping, in time; no upper bound. At alpha·beta = 1 there is no inertia.
      decay: makes the pull of 0, such as `optax.add_decayed_weights(1e-2)`; None for none.
      dtype: dtype of the stored velocity; float32 or the parameters' wider dtype by default.

    Returns:
      A transformation with `VelocityState`.

    Raises:
      ValueError: for an argument out of range.

    Source: Castera et al. 2019, arXiv 1905.12278. With ψ = (1 − alpha·beta)·p + beta·n it is the
    usual form in p and ψ, whose pole at r = beta cancels.
    """
    inertia = 1 - alpha * beta

    def init(params):
        velocity = optax.tree.zeros_like(params, dtype=dtype)
        kept = () if decay is None else decay.init(params)
        return VelocityState(jnp.zeros([], jnp.int32), velocity, kept)

    def update(updates, state, params=None):
        r = jnp.asarray(at(learning_rate, state.steps), float)
        slowed, kept = cast_like(state.velocity, updates), state.decay
        out = jax.tree.map(lambda d: beta * d, updates)
        if decay is not None:
            pull, kept = decay.update(optax.tree.zeros_like(updates), state.decay, params)
            slowed = jax.tree.map(
                lambda n, w: n + (inertia / beta * r).astype(n.dtype) * w, slowed, pull
            )
            out = optax.tree.add(out, pull)
        velocity = jax.tree.map(
            lambda h, d: (1 - alpha * r).astype(h.dtype) * h + (inertia * r).astype(h.dtype) * d,
            slowed,
            updates,
        )
        count = optax.safe_increment(state.steps)
        moved = VelocityState(count, optax.tree.cast(velocity, dtype), kept)
        return optax.tree.add(out, slowed), moved

    return optax.GradientTransformation(init, update)
