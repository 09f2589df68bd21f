"""NAG-GS: Nesterov's flow, integrated semi-implicitly; a heavy ball whose coefficients move."""

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
from optzoo.registry import optimizer


class NagState(NamedTuple):
    """The velocity, the curvature estimate gamma, and the last step's share a."""

    steps: jax.Array
    gamma: jax.Array
    share: jax.Array
    velocity: Tree


@transformation
def scale_by_nag_gs(
    learning_rate: LearningRate = 1e-2,
    *,
    mu: NonNegative = 1.0,
    gamma: Positive = 1.0,
    update_gamma: bool = True,
    mu_dtype: DType = None,
) -> optax.GradientTransformation:
    """The step of `nag_gs` against the gradient, learning rate included; see there."""

    def init(params):
        velocity = optax.tree.zeros_like(params, dtype=mu_dtype)
        start = jnp.asarray(gamma, float)
        return NagState(jnp.zeros([], jnp.int32), start, jnp.zeros([], float), velocity)

    def update(updates, state, params=None):
        del params
        rate = jnp.asarray(at(learning_rate, state.steps), float)
        share, weight = rate / (1 + rate), rate / (rate * mu + state.gamma)
        decay = (1 - state.share) * (1 - weight * mu)
        velocity = jax.tree.map(
            lambda g, w: decay.astype(g.dtype) * w + weight.astype(g.dtype) * g,
            updates,
            cast_like(state.velocity, updates),
        )
        out = jax.tree.map(lambda w: share.astype(w.dtype) * w, velocity)
        curvature = (state.gamma + rate * mu) / (1 + rate) if update_gamma else state.gamma
        count = optax.safe_increment(state.steps)
        return out, NagState(count, curvature, share, optax.tree.cast(velocity, mu_dtype))

    return optax.GradientTransformation(init, update)


@optimizer(
    title="NAG-GS: Semi-Implicit, Accelerated and Robust Stochastic Optimizer",
    authors=(
        "Valentin Leplat",
        "Daniil Merkulov",
        "Aleksandr Katrutsa",
        "Daniel Bershatsky",
        "Olga Tsymboi",
        "Ivan Oseledets",
    ),
    year=2022,
    arxiv="2209.14937",
    code="https://github.com/skolai/nag-gs",
)
@transformation
def nag_gs(
    learning_rate: LearningRate = 1e-2,
    *,
    mu: NonNegative = 1.0,
    gamma: Positive = 1.0,
    update_gamma: bool = True,
    mu_dtype: DType = None,
) -> optax.GradientTransformation:
    """Heavy-ball momentum whose coefficients follow from an integrator of Nesterov's flow.

    Rule:
      α = learning_rate;   a = α/(1 + α);   b = α·mu/(α·mu + gamma);   v = p on step 1
      v ← (1 − b)·v + b·p − α/(α·mu + gamma)·g;   p ← (1 − a)·p + a·v
      gamma ← (gamma + α·mu)/(1 + α)
      as momentum of w = v − p, c the last a
      w ← (1 − c)·(1 − b)·w − α/(α·mu + gamma)·g;   p ← p + a·w

    Against Adam:
      It is SGD with momentum. At a constant rate and gamma the momentum is (1 − b)/(1 + α) and the
      rate α²/((1 + α)·(α·mu + gamma)); what is new is how both follow from α.

    When to use:
      Where momentum SGD trains well and its two numbers are to be tuned as one. Not in place of an
      adaptive rule.

    Tuning:
      The learning rate is a step of the integrator: try 0.03 to 1, gamma 0.1 to 10, mu = 1.

    Args:
      learning_rate: a number, or a schedule of the number of finished steps.
      mu: strong convexity that gamma moves towards; 0 lets gamma fall for ever.
      gamma: its start.
      update_gamma: move gamma; False keeps it, as the official PyTorch class does, which drops
        the new value.
      mu_dtype: dtype of the velocity; float32 or wider by default.

    Returns:
      The optimizer.

    Raises:
      ValueError: for an argument out of range.

    References:
      Leplat et al. 2022, arXiv 2209.14937, in a third party's transcription of its algorithm;
      official code skolai/nag-gs, whose PyTorch class keeps gamma and whose JAX port drops the
      first gradient.
    """
    moved = scale_by_nag_gs(
        learning_rate, mu=mu, gamma=gamma, update_gamma=update_gamma, mu_dtype=mu_dtype
    )
    return optax.chain(moved, optax.scale(-1.0))
