"""OPT-AMSGrad: AMSGrad that also takes the step along its guess of the next gradient."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.ahead import AheadState, moved_ahead
from optzoo.primitives.base import (
    Decay,
    DType,
    LearningRate,
    Positive,
    Size,
    Tree,
    at,
    cast_like,
    transformation,
)
from optzoo.primitives.moments import adam_correction, real_zeros
from optzoo.primitives.norms import abs_sq
from optzoo.primitives.window import window_extrapolation
from optzoo.registry import Trait, optimizer


class GuessState(NamedTuple):
    """Both moments, the largest second one, the guess of the next gradient, and what makes it."""

    moment: Tree
    second: Tree
    largest: Tree
    guess: Tree
    predictor: optax.OptState


@optimizer(
    title="An Optimistic Acceleration of AMSGrad for Nonconvex Optimization",
    authors=("Jun-Kun Wang", "Xiaoyun Li", "Belhal Karimi", "Ping Li"),
    year=2019,
    arxiv="1903.01435",
    code="https://github.com/Hintonthu/optimistic-amsgrad",
    traits=(Trait.AVERAGES, Trait.SHAPED),
)
@transformation
def opt_amsgrad(
    learning_rate: LearningRate = 1e-3,
    *,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: Positive = 1e-8,
    predictor: Literal["extrapolation", "last"] = "extrapolation",
    span: Size = 5,
    damping: Positive = 1e-3,
    residual: bool = True,
    mu_dtype: DType = None,
    nu_dtype: DType = None,
) -> optax.GradientTransformation:
    """AMSGrad whose gradients are taken where its step along a guess of the next one would lead.

    Rule:
      h the guess of g, from 0;   a = b1·m + (1 − b1)·g;   v ← b2·v + (1 − b2)·(g − h)²
      η = learning_rate·√(1 − b2^t)/(1 − b1^t) / (√max(v) + eps), the largest v so far
      h ← the extrapolation of the last span gradients, or g
      w ← w − η·a;   y = w − η·(b1·m + (1 − b1)·h);   m ← a

    Against Adam:
      Half a step further, along what the next gradient should be, and taken back before the next;
      the second moment is that of the guess's error, so that rates rise where gradients can be
      foretold.

    When to use:
      Experiments on predictable gradients: games, full batches. Not where memory counts: it keeps
      five numbers a weight and span more.

    Tuning:
      Adam's learning rate or less. A perfect guess makes v fall to nothing, and steps as large as
      learning_rate/eps where nothing larger came before.

    Args:
      learning_rate: a number, or a schedule of the number of finished steps.
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added to the root of the second moment.
      predictor: guess by "extrapolation" of each leaf's gradients, or by the "last" one.
      span: how many gradients to extrapolate; with fewer than 3 the guess is the last one.
      damping: of the extrapolation, in units of squared gradients.
      residual: v of the guess's error; False for that of the gradient, as in AMSGrad.
      mu_dtype: dtype of the first moment; float32 or wider by default.
      nu_dtype: dtype of both second moments; float32 or wider by default.

    Returns:
      The optimizer; `eval_params` gives the weights w.

    Raises:
      ValueError: for an argument out of range.

    References:
      Wang et al. 2019, arXiv 1903.01435, in the form of its algorithm; official code
      Hintonthu/optimistic-amsgrad, whose corrections and extrapolation these are, but which guesses
      by a second network's gradient.
    """
    predict = window_extrapolation(1 if predictor == "last" else span, damping)
    correction = adam_correction(b1, b2)

    def init(params):
        squares = [real_zeros(params, nu_dtype) for _ in range(2)]
        moment = optax.tree.zeros_like(params, dtype=mu_dtype)
        zeros = [optax.tree.zeros_like(params) for _ in range(2)]
        guesses = GuessState(moment, *squares, zeros[0], predict.init(params))
        return AheadState(guesses, optax.EmptyState(), jnp.zeros([], jnp.int32), zeros[1])

    def update(updates, state, params=None):
        del params
        before = state.inner
        count = optax.safe_increment(state.steps)
        rate = jnp.asarray(at(learning_rate, state.steps), float) * correction(state.steps)

        def mixed(g, m):
            return (1 - b1) * g + b1 * m

        moment = cast_like(before.moment, updates)
        following = jax.tree.map(mixed, updates, moment)
        errors = optax.tree.sub(updates, before.guess) if residual else updates
        second, largest = (cast_like(kept, before.guess) for kept in before[1:3])
        second = jax.tree.map(lambda e, v: (1 - b2) * abs_sq(e) + b2 * v, errors, second)
        largest = jax.tree.map(jnp.maximum, largest, second)
        guess, predictor = predict.update(updates, before.predictor)

        def moved(direction, v):
            return -rate.astype(v.dtype) / (jnp.sqrt(v) + eps) * direction

        step = jax.tree.map(moved, following, largest)
        ahead = jax.tree.map(moved, jax.tree.map(mixed, guess, moment), largest)
        kept = GuessState(
            optax.tree.cast(following, mu_dtype),
            optax.tree.cast(second, nu_dtype),
            optax.tree.cast(largest, nu_dtype),
            guess,
            predictor,
        )
        return moved_ahead(step, ahead, state.ahead), AheadState(kept, state.decay, count, ahead)

    return optax.GradientTransformation(init, update)
