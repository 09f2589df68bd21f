"""Averages of the parameters themselves."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.base import (
    Count,
    Fraction,
    LearningRate,
    NonNegative,
    OpenFraction,
    Tree,
    at,
    real,
    require_params,
    transformation,
)
from optzoo.primitives.combine import copied
from optzoo.primitives.evaluation import beside, where_kept
from optzoo.registry import Trait, wrapper


class ScheduleFreeState(NamedTuple):
    """Schedule-Free's second sequence z and the weights of its average.

    The parameters in training are y; the average x follows from y and z.
    """

    base: optax.OptState
    decay: optax.OptState
    z: Tree
    steps: jax.Array
    weight_sum: jax.Array
    max_rate: jax.Array
    b1: jax.Array

    def eval_params(self, params: Tree) -> Tree:
        def average(z, y):
            return y + (1 - 1 / beside(self.b1, y).astype(z.dtype)) * (z - y)

        return where_kept(average, self.z, params)

    def train_params(self, params: Tree) -> Tree:
        def between(z, x):
            return x + (1 - beside(self.b1, x).astype(z.dtype)) * (z - x)

        return where_kept(between, self.z, params)


@transformation
def schedule_free_average(
    base: optax.GradientTransformation,
    learning_rate: LearningRate,
    *,
    b1: OpenFraction = 0.9,
    r: NonNegative = 0.0,
    weight_lr_power: NonNegative = 2.0,
    decay_at_y: optax.GradientTransformation | None = None,
) -> optax.GradientTransformation:
    """Runs `base` on z, averages z into x, and trains at y between the two (Schedule-Free).

    Rule, with k finished steps and γ = learning_rate(k):
      z' = z + base's update (evaluated at z) − γ·decay_at_y's update (of 0, evaluated at y)
      w = (k + 1)^r·(largest γ so far)^weight_lr_power;   c = w / Σw, 0 where that is 0/0
      x' = (1 − c)x + c·z';   y' = b1·x' + (1 − b1)·z'

    Args:
      base: an optimizer with its own learning rate, the same as `learning_rate`.
      learning_rate: a number, or a schedule of the number of finished steps; it sets the weights.
      b1: interpolation between z (0) and x (1), in (0, 1).
      r: power of the step count in the weights.
      weight_lr_power: power of the largest learning rate in the weights.
      decay_at_y: a decay of the training parameters, such as `optax.add_decayed_weights(1e-2)`.

    Returns:
      A transformation with `ScheduleFreeState`.

    Raises:
      ValueError: for an argument out of range, or without parameters.

    Source: Defazio et al. 2024, arXiv 2405.15682, github.com/facebookresearch/schedule_free.
    """
    base = optax.with_extra_args_support(base)
    decay = optax.identity() if decay_at_y is None else decay_at_y

    def init(params):
        return ScheduleFreeState(
            base=base.init(params),
            decay=decay.init(params),
            z=copied(params),
            steps=jnp.zeros([], jnp.int32),
            weight_sum=jnp.zeros([], float),
            max_rate=jnp.zeros([], float),
            b1=jnp.asarray(b1, float),
        )

    def update(updates, state, params=None, **extra_args):
        require_params(params, "schedule_free")
        rate = jnp.asarray(at(learning_rate, state.steps), float)
        max_rate = jnp.maximum(state.max_rate, rate)
        weight = (real(state.steps) + 1) ** r * max_rate**weight_lr_power
        weight_sum = state.weight_sum + weight
        share = jnp.where(weight_sum > 0, weight / jnp.where(weight_sum > 0, weight_sum, 1), 0)

        step, base_state = base.update(updates, state.base, state.z, **extra_args)
        pull, decay_state = decay.update(optax.tree.zeros_like(params), state.decay, params)
        if decay_at_y is not None:
            step = jax.tree.map(lambda u, d: u - rate.astype(u.dtype) * d, step, pull)

        def move(y, z, u):
            c = share.astype(y.dtype)
            return c * (z - y) + (1 - b1) * (1 - c) * u

        # From the new z, so that nothing needs the old one once it is overwritten.
        z = optax.tree.add(state.z, step)
        moves = jax.tree.map(move, params, z, step)
        count = optax.safe_increment(state.steps)
        return moves, ScheduleFreeState(
            base_state, decay_state, z, count, weight_sum, max_rate, jnp.asarray(b1, float)
        )

    return optax.GradientTransformationExtraArgs(init, update)


class AverageState(NamedTuple):
    """A wrapped optimizer and the running average of its iterates."""

    inner: optax.OptState
    steps: jax.Array
    average: Tree

    def eval_params(self, params: Tree) -> Tree:
        return where_kept(lambda average, _: average, self.average, params)


@wrapper(
    title=(
        "Stochastic Gradient Descent for Non-smooth Optimization: Convergence Results and Optimal "
        "Averaging Schemes"
    ),
    authors=("Ohad Shamir", "Tong Zhang"),
    year=2012,
    arxiv="1212.1824",
    code=None,
    traits=(Trait.AVERAGES,),
)
@transformation
def polynomial_average(
    tx: optax.GradientTransformation, *, gamma: NonNegative = 8.0
) -> optax.GradientTransformation:
    """Averages the iterates of `tx` with polynomial-decay weights; training goes on unchanged.

    Rule:
      a = (gamma + 1)/(gamma + t) after step t;   average ← (1 − a)·average + a·p

    When to use:
      Around rules whose last iterate is noisy, at a constant rate and DoG's above all. Not around
      what averages already.

    Args:
      tx: the optimizer whose iterates are averaged.
      gamma: 0 averages all iterates alike; larger forgets the early ones sooner.

    Returns:
      A transformation with `AverageState`; `eval_params` finds the average. It needs the
      parameters in `update`.

    Raises:
      ValueError: for gamma out of range, or `update` without parameters.

    References:
      Shamir and Zhang 2012, arXiv 1212.1824; gamma = 8 as in formll/dog.
    """
    inner = optax.with_extra_args_support(tx)

    def init(params):
        return AverageState(inner.init(params), jnp.zeros([], jnp.int32), copied(params))

    def update(updates, state, params=None, **extra_args):
        require_params(params, "polynomial_average")
        updates, inner_state = inner.update(updates, state.inner, params, **extra_args)
        count = optax.safe_increment(state.steps)
        share = (gamma + 1) / (gamma + real(count))

        def mean(average, p, u):
            a = share.astype(average.dtype)
            return (1 - a) * average + a * (p + u)

        average = jax.tree.map(mean, state.average, params, updates)
        return updates, AverageState(inner_state, count, average)

    return optax.GradientTransformationExtraArgs(init, update)


class LookaheadState(NamedTuple):
    """A wrapped optimizer and the slow weights it is pulled back to."""

    inner: optax.OptState
    steps: jax.Array
    slow: Tree

    def eval_params(self, params: Tree) -> Tree:
        return where_kept(lambda slow, _: slow, self.slow, params)


@wrapper(
    title="Lookahead Optimizer: k steps forward, 1 step back",
    authors=("Michael R. Zhang", "James Lucas", "Geoffrey Hinton", "Jimmy Ba"),
    year=2019,
    arxiv="1907.08610",
    code="https://github.com/michaelrzhang/lookahead",
    traits=(Trait.AVERAGES,),
)
@transformation
def lookahead(
    tx: optax.GradientTransformation, *, period: Count = 5, alpha: Fraction = 0.5
) -> optax.GradientTransformation:
    """Every `period` steps moves slow weights towards the fast ones and restarts from them.

    Rule:
      after every step whose number period divides: slow ← (1 − alpha)·slow + alpha·p;   p ← slow

    When to use:
      Around fast, noisy rules, to be less dependent on their learning rate. Not around what
      averages already.

    Args:
      tx: the optimizer that makes the fast steps.
      period: steps between synchronisations.
      alpha: how far the slow weights go, in [0, 1]; 1 is `tx` itself.

    Returns:
      A transformation with `LookaheadState`; `eval_params` finds the slow weights. It needs the
      parameters in `update`.

    Raises:
      ValueError: for an argument out of range, or `update` without parameters.

    References:
      Zhang et al. 2019, arXiv 1907.08610; official code michaelrzhang/lookahead.
    """
    inner = optax.with_extra_args_support(tx)

    def init(params):
        return LookaheadState(inner.init(params), jnp.zeros([], jnp.int32), copied(params))

    def update(updates, state, params=None, **extra_args):
        require_params(params, "lookahead")
        updates, inner_state = inner.update(updates, state.inner, params, **extra_args)
        count = optax.safe_increment(state.steps)
        sync = count % period == 0

        def merged(slow, p, u):
            return jnp.where(sync, slow + alpha * (p + u - slow), slow)

        slow = jax.tree.map(merged, state.slow, params, updates)
        moves = jax.tree.map(lambda s, p, u: jnp.where(sync, s - p, u), slow, params, updates)
        return moves, LookaheadState(inner_state, count, slow)

    return optax.GradientTransformationExtraArgs(init, update)
