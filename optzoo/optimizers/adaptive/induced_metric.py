"""Induced-metric rules: steps shortened where the loss landscape is steep."""

from typing import Literal, NamedTuple

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
    require,
    transformation,
)
from optzoo.primitives.decay import add_decayed_weights
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
        return MetricState(
            jnp.zeros([], jnp.int32), first.init(params), scale, jnp.zeros([], float)
        )

    def update(updates, state, params=None, **extra_args):
        count = optax.safe_increment(state.steps)
        direction, first_state = first.update(updates, state.first)
        squares, second_state = jax.tree.map(abs_sq, updates), ()
        if second is not None:
            divisor, second_state = second.update(updates, state.second)
            # |g|² would overflow where |g|²/d does not.
            squares = jax.tree.map(lambda g, d: jnp.abs(g) * (jnp.abs(g) / d), updates, divisor)
            direction = jax.tree.map(jnp.divide, direction, divisor)
        energy = beta * state.energy + (1 - beta) * xi * optax.tree.sum(squares)
        length = energy / (1 - beta ** real(count))
        if form == "log":
            loss = require(extra_args, "value", "induced_metric with form='log'")
            factor = loss / (jnp.square(loss) + length)
        else:
            factor = 1 / (1 + length)
        out = jax.tree.map(lambda d: d * jnp.asarray(factor, d.real.dtype), direction)
        return out, MetricState(count, first_state, second_state, jnp.asarray(energy, float))

    return optax.GradientTransformationExtraArgs(init, update)


@optimizer(
    title="The Optimiser Hidden in Plain Sight: Training with the Loss Landscape's Induced Metric",
    authors=("Thomas R. Harvey",),
    year=2025,
    arxiv="2509.03594",
    code="https://github.com/harveyThomas4692/Induced-Metric-Optimiser",
    traits=(Trait.COUPLED,),
)
@transformation
def induced_metric(
    learning_rate: LearningRate = 0.1,
    *,
    form: Literal["rms", "sgd", "log"] = "rms",
    b1: Decay = 0.9,
    b2: Decay = 0.99,
    xi: NonNegative = 0.1,
    beta: Decay = 0.8,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    mask: Mask = None,
    mu_dtype: DType = None,
    nu_dtype: DType = None,
) -> optax.GradientTransformation:
    """Steps in the metric of the loss surface: all of them shorter where gradients are large.

    Rule:
      E = Σ g²/d, of the whole tree
      d = √(v/(1 − b2^t)) + eps, v an average of g²; 1 for sgd and log
      c ← beta·c + (1 − beta)·xi·E;   ĉ = c/(1 − beta^t)
      f = 1/(1 + ĉ), or L/(L² + ĉ) for log, L the loss of this step
      m ← b1·m + (1 − b1)·g;   p ← p − learning_rate·(f·m/(1 − b1^t)/d + weight_decay·p)

    Against Adam:
      With form="rms" it is Adam times one number for the whole tree. The authors' own sweeps find
      the best xi at 1e-9 to 1e-3, where that number is about 1; it is more of a derivation than of
      a rule to prefer.

    When to use:
      To try a geometric reading of gradient clipping. Not with the default xi where squared
      gradients add up to much more than 1/xi: hardly anything is left of the step.

    Tuning:
      The learning rate as for SGD or Adam, after the form, and xi over powers of ten.

    Args:
      learning_rate: a number, or a schedule of the number of finished steps.
      form: "rms", scaled as Adam; "sgd", the plain metric; "log", that of the logarithm of the
        loss, which needs `value`; a negative loss turns its steps round.
      b1: decay of the first moment, in [0, 1);
        the plain number 0 keeps no buffer for it.
      b2: decay of the second moment, in [0, 1); for form="rms".
      xi: weight of the gradient in the metric 1 + xi·g·gᵀ.
      beta: decay of the energy, in [0, 1).
      eps: added to the root of the second moment.
      weight_decay: decoupled decay.
      mask: which leaves to decay: a tree of booleans, or a function that makes one.
      mu_dtype: dtype of the first moment; float32 or wider by default.
      nu_dtype: dtype of the second moment; float32 or wider by default.

    Returns:
      The optimizer. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range; from `update` with form="log" and no `value`.

    References:
      Harvey 2025, arXiv 2509.03594; official code harveyThomas4692/Induced-Metric-Optimiser.
    """
    return optax.chain(
        scale_by_induced_metric(
            form=form,
            b1=b1,
            b2=b2,
            xi=xi,
            beta=beta,
            eps=eps,
            mu_dtype=mu_dtype,
            nu_dtype=nu_dtype,
        ),
        add_decayed_weights(weight_decay, mask),
        optax.scale_by_learning_rate(learning_rate),
    )
