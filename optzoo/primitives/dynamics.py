"""Equations of motion whose steps are updates."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.base import (
    DType,
    LearningRate,
    Mask,
    NonNegative,
    Positive,
    Tree,
    at,
    cast_like,
    is_zero,
    transformation,
)
from optzoo.primitives.combine import only, parameters


class VelocityState(NamedTuple):
    """How many steps are finished, and a velocity."""

    steps: jax.Array
    velocity: Tree


@transformation
def inertial_newton(
    learning_rate: LearningRate,
    *,
    alpha: NonNegative = 0.1,
    beta: Positive = 0.9,
    weight_decay: NonNegative = 0.0,
    mask: Mask = None,
    dtype: DType = None,
) -> optax.GradientTransformation:
    """A step of the inertial Newton system: friction alpha, damping along the Hessian beta (INNA).

    Rule, with r = learning_rate, the incoming direction d and w = weight_decay·p:
      h = n + (1 − alpha·beta)/beta·r·w;   n ← (1 − alpha·r)·h + (1 − alpha·beta)·r·d, from 0
      returns beta·d + h + w

    Args:
      learning_rate: the time step, by which the result is to be multiplied; a number or a schedule
        of the number of finished steps.
      alpha: friction, in 1/time; no upper bound.
      beta: damping, in time; no upper bound. At alpha·beta = 1 there is no inertia.
      weight_decay: decoupled decay, which the velocity feels, too; it needs the parameters, unless
        it is the plain number 0.
      mask: which leaves to decay: a tree of booleans, or a function that makes one.
      dtype: dtype of the stored velocity; float32 or the parameters' wider dtype by default.

    Returns:
      A transformation with `VelocityState`.

    Raises:
      ValueError: for an argument out of range, or without parameters where there is a decay.

    Source: Castera et al. 2019, arXiv 1905.12278. With ψ = (1 − alpha·beta)·p + beta·n it is the
    usual form in p and ψ, whose pole at r = beta cancels.
    """
    inertia = 1 - alpha * beta
    decayed = only(mask, parameters)

    def init(params):
        return VelocityState(jnp.zeros([], jnp.int32), optax.tree.zeros_like(params, dtype=dtype))

    def update(updates, state, params=None):
        r = jnp.asarray(at(learning_rate, state.steps), float)
        kept, pushed = 1 - alpha * r, inertia * r
        # From the new velocity, so that nothing needs the old one once it is overwritten. Where
        # friction leaves nothing of the old one, it is lost.
        back = jnp.where(kept == 0, 0, 1 / jnp.where(kept == 0, 1, kept))

        def total(*terms):
            return sum(jnp.asarray(factor, x.dtype) * x for factor, x in terms)

        def accelerated(d, n, *p):
            felt = kept * pushed / beta * weight_decay
            return total((pushed, d), (kept, n), *((felt, x) for x in p))

        def moved(d, n, *p):
            return total((beta - back * pushed, d), (back, n), *((weight_decay, x) for x in p))

        pulls = ()
        if not is_zero(weight_decay):
            pulls = (decayed.update(updates, decayed.init(params), params)[0],)
        before = cast_like(state.velocity, updates)
        velocity = jax.tree.map(accelerated, updates, before, *pulls)
        out = jax.tree.map(moved, updates, velocity, *pulls)
        count = optax.safe_increment(state.steps)
        return out, VelocityState(count, optax.tree.cast(velocity, dtype))

    return optax.GradientTransformation(init, update)
