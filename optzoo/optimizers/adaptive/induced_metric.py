"""Induced-metric rules: steps shortened where the loss landscape is steep."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.base import (
    Decay,
    DType,
    LearningRate,
    Mask,
    NonNegative,
    real,
    transformation,
)
from optzoo.primitives.moments import ema, rms
from optzoo.primitives.norms import abs_sq
from optzoo.registry import Trait, optimizer


class MetricState(NamedTuple):
    """The moments, and the average energy of the whole tree."""

    steps: jax.Array
    first: optax.OptState
    second: optax.OptState
    energy: jax.Array


@transformation
def scale_by_induced_metric(
    *,
    form: Literal["rms", "sgd", "log"] = "rms",
    b1: Decay = 0.9,
    b2: Decay = 0.99,
    xi: NonNegative = 0.1,
    beta: Decay = 0.8,
    eps: NonNegative = 1e-8,
    mu_dtype: DType = None,
    nu_dtype: DType = None,
) -> optax.GradientTransformation:
    """The direction of `induced_metric`; see there for the arguments."""
    first = ema(b1, dtype=mu_dtype)
    second = rms(b2, eps, dtype=nu_dtype) if form == "rms" else None

    def init(params):
        scale = () if second is None else second.init(params)
        return MetricState(jnp.zeros([], jnp.int32), first.init(params), scale, jnp.zeros([]))

    def update(updates, state, params=None, *, value: Any = None, **extra_args):
        del params, extra_args
        if form == "log" and value is None:
            raise ValueError("induced_metric: form='log' needs the loss: update(…, value=loss)")
        count = optax.safe_increment(state.steps)
        mean, first_state = first.update(updates, state.first)
        divisor, second_state = jax.tree.map(jnp.ones_like, jnp.ones([])), ()
        ratios = jax.tree.map(abs_sq, updates)
        if second is not None:
            divisor, second_state = second.update(updates, state.second)
            ratios = jax.tree.map(jnp.divide, ratios, divisor)
            mean = jax.tree.map(jnp.divide, mean, divisor)
        total = optax.tree.sum(ratios)
        energy = beta * state.energy + (1 - beta) * xi * total
        length = energy / (1 - beta ** real(count))
        factor = 1 / (1 + length) if form != "log" else value / (jnp.square(value) + length)
        out = jax.tree.map(lambda m: jnp.asarray(factor, m.real.dtype) * m, mean)
        return out, MetricState(count, first_state, second_state, energy)

    return optax.GradientTransformationExtraArgs(init, update)
