"""Entropy-SGD: each step goes to where an inner loop of noisy steps has been on average."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.base import (
    Count,
    Decay,
    DType,
    Key,
    LearningRate,
    NonNegative,
    Positive,
    Tree,
    at,
    random_key,
    real,
    require_params,
    transformation,
)
from optzoo.primitives.combine import copied
from optzoo.primitives.evaluation import where_kept
from optzoo.primitives.moments import momentum as heavy_ball
from optzoo.primitives.resets import restart
from optzoo.registry import Trait, optimizer


class EntropyState(NamedTuple):
    """The outer weights, the average of the inner point, its momentum, and the noise's key."""

    steps: jax.Array
    outer: Tree
    average: Tree
    inner: optax.OptState
    key: jax.Array

    def eval_params(self, params: Tree) -> Tree:
        return where_kept(lambda outer, _: outer, self.outer, params)


@optimizer(
    title="Entropy-SGD: Biasing Gradient Descent Into Wide Valleys",
    authors=(
        "Pratik Chaudhari",
        "Anna Choromanska",
        "Stefano Soatto",
        "Yann LeCun",
        "Carlo Baldassi",
        "Christian Borgs",
        "Jennifer Chayes",
        "Levent Sagun",
        "Riccardo Zecchina",
    ),
    year=2016,
    arxiv="1611.01838",
    code="https://github.com/ucla-vision/entropy-sgd",
    traits=(Trait.AVERAGES, Trait.RANDOM),
)
@transformation
def entropy_sgd(
    learning_rate: LearningRate = 1.0,
    *,
    period: Count = 20,
    gamma: NonNegative = 1e-4,
    scoping: NonNegative = 1e-3,
    noise: NonNegative = 1e-4,
    inner_learning_rate: Positive = 0.1,
    momentum: Decay = 0.9,
    dampening: Decay = 0.0,
    nesterov: bool = True,
    averaging: Decay = 0.75,
    weight_decay: NonNegative = 0.0,
    key: Key | None = None,
    mu_dtype: DType = None,
) -> optax.GradientTransformation:
    """SGD on local entropy: every `period` steps the weights go to the mean of an inner loop.

    Rule:
      k counts inner loops from 1;   r = inner_learning_rate
      a loop begins with y = x, μ = x and no momentum, and takes g at y
      d = momentum of g;   y ← y − r·(d − pull·(x − y) + weight_decay·y) − ε
      pull = gamma·(1 + scoping)^k, at most 1/r
      ε = noise·√(2r)·normal draws;   μ ← averaging·μ + (1 − averaging)·y
      after period steps x ← x − learning_rate·(x − μ)

    Against Adam:
      It is SGD. A wide valley keeps the inner loop near its bottom, a narrow one lets it wander
      off: the average prefers the wide one.

    When to use:
      Where generalisation hangs on flat minima and gradients are cheap. Each step of x takes
      `period` gradients: compare by gradients, not by loops. Not where gradients are dear.

    Tuning:
      The authors take learning_rate 1 at first, then 0.1 or less, and gamma 1e-4 (MNIST) to 0.03
      (CIFAR-10).

    Args:
      learning_rate: how far x goes towards the average, read at the last step of a loop; a number,
        or a schedule of the number of finished steps. 1 makes x the average itself.
      period: gradients of an inner loop.
      gamma: pull of the inner point back to x (the scope of the local entropy).
      scoping: how fast the pull grows from loop to loop.
      noise: deviation of the inner loop's noise, before √(2r).
      inner_learning_rate: rate of the inner loop.
      momentum: decay of the inner loop's momentum, in [0, 1).
      dampening: the fraction of the gradient left out of the momentum, in [0, 1).
      nesterov: look one step ahead.
      averaging: weight of the old average, in [0, 1); the paper's alpha is the other one's.
      weight_decay: decay of the inner point, as part of its gradient.
      key: a `jax.random` key for the noise, or an integer seed; 0 by default.
      mu_dtype: dtype of the momentum; float32 or wider by default.

    Returns:
      The optimizer; `eval_params` gives x. It needs the parameters in `update`. Normal draws given
      there as `normal`, a tree like the parameters, take the place of its own.

    Raises:
      ValueError: for an argument out of range, or `update` without parameters.

    References:
      Chaudhari et al. 2016, arXiv 1611.01838; official code ucla-vision/entropy-sgd in its Lua
      form, the paper's experiments: the PyTorch class never raises its count, so its scoping does
      nothing, and has an outer momentum.
    """
    direction = heavy_ball(momentum, dampening=dampening, nesterov=nesterov, dtype=mu_dtype)
    inner = restart(direction, lambda count: count % period == 0)

    def init(params):
        start = jnp.array(random_key(0 if key is None else key), copy=True)
        zero = jnp.zeros([], jnp.int32)
        return EntropyState(zero, copied(params), copied(params), inner.init(params), start)

    def update(updates, state, params=None, *, normal: Tree = None, **extra_args):
        del extra_args
        require_params(params, "entropy_sgd")
        begins, ends = state.steps % period == 0, optax.safe_increment(state.steps) % period == 0
        # A pull beyond 1/r would throw y past x.
        loop = real(state.steps // period) + 1
        pull = jnp.minimum(gamma * (1 + scoping) ** loop, 1 / inner_learning_rate)
        shake = noise * jnp.sqrt(2 * jnp.asarray(inner_learning_rate, float))
        rate = jnp.asarray(at(learning_rate, state.steps), float)
        key, mine = jax.random.split(state.key)
        if normal is None:
            normal = optax.tree.random_like(mine, params)
        steps, inner_state = inner.update(updates, state.inner, params)

        def moved(y, x, d, e):
            drift = d - pull.astype(y.dtype) * (x - y) + weight_decay * y
            return -inner_learning_rate * drift - shake.astype(y.dtype) * e

        moves = jax.tree.map(moved, params, state.outer, steps, normal)

        def averaged(y, x, mean, u):
            return averaging * jnp.where(begins, x, mean) + (1 - averaging) * (y + u)

        average = jax.tree.map(averaged, params, state.outer, state.average, moves)
        outer = jax.tree.map(
            lambda x, mean: jnp.where(ends, x - rate.astype(x.dtype) * (x - mean), x),
            state.outer,
            average,
        )
        out = jax.tree.map(lambda y, x, u: jnp.where(ends, x - y, u), params, outer, moves)
        count = optax.safe_increment(state.steps)
        return out, EntropyState(count, outer, average, inner_state, key)

    return optax.GradientTransformationExtraArgs(init, update)
