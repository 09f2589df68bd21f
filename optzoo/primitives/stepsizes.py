"""How far to go: step sizes measured from what the run has seen."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.axes import AxesLike, map_with_axes
from optzoo.primitives.base import (
    LearningRate,
    NonNegative,
    Positive,
    Tree,
    at,
    require_params,
    transformation,
)
from optzoo.primitives.combine import copied
from optzoo.primitives.norms import layer_energy, packed, root, sum_of_squares, unpacked


class StepState(NamedTuple):
    """How many steps are finished."""

    steps: jax.Array


def rate(learning_rate: LearningRate) -> optax.GradientTransformation:
    """A branch for `merge` that returns the learning rate as one scalar for the whole tree.

    Args:
      learning_rate: a number, or a schedule of the number of finished steps.

    Returns:
      A transformation with `StepState` whose output is a scalar.
    """

    def update(updates, state, params=None):
        del updates, params
        count = optax.safe_increment(state.steps)
        return jnp.asarray(at(learning_rate, state.steps), float), StepState(count)

    return optax.GradientTransformation(lambda _: StepState(jnp.zeros([], jnp.int32)), update)


class RelativeRateState(NamedTuple):
    """How many steps are finished, and the largest rate so far."""

    steps: jax.Array
    largest: jax.Array


@transformation
def relative_rate(
    learning_rate: LearningRate, peak: NonNegative | None = None
) -> optax.GradientTransformation:
    """A branch for `merge`: the learning rate as a fraction of its peak, one scalar.

    Args:
      learning_rate: a number, or a schedule of the number of finished steps.
      peak: the largest learning rate; by default the largest so far, so that the fraction is 1
        until the rate first falls.

    Returns:
      A transformation with `RelativeRateState` whose output is a scalar; 0 at a rate of 0.

    Raises:
      ValueError: for a peak out of range.
    """

    def update(updates, state, params=None):
        del updates, params
        now = jnp.asarray(at(learning_rate, state.steps), float)
        largest = jnp.maximum(state.largest, now)
        highest = largest if peak is None else jnp.asarray(peak)
        return now / jnp.where(highest > 0, highest, 1), RelativeRateState(
            optax.safe_increment(state.steps), largest
        )

    def init(params):
        del params
        return RelativeRateState(jnp.zeros([], jnp.int32), jnp.zeros([], float))

    return optax.GradientTransformation(init, update)


class DistanceState(NamedTuple):
    """Where the run began, how far it has been since, and the gradient energy it has met.

    The last two are scalars, or vectors of one number a leaf.
    """

    steps: jax.Array
    start: Tree
    reach: jax.Array
    energy: jax.Array


@transformation
def dog_step(
    learning_rate: LearningRate = 1.0,
    *,
    reps_rel: NonNegative = 1e-6,
    eps: NonNegative = 1e-8,
    init_eta: Positive | None = None,
    layerwise: bool = False,
) -> optax.GradientTransformation:
    """The step size of DoG: distance over gradients.

    Rule:
      reach = max over steps of |p − p₀|, at first reps_rel·(1 + |p₀|)
      energy = eps + Σ |g|²;   returns learning_rate·reach/√energy

    Args:
      learning_rate: factor on the step size (the paper's c); a number or a schedule.
      reps_rel: first movement relative to 1 + |p₀|.
      eps: keeps the root from 0.
      init_eta: the first step size itself, instead of reps_rel; not multiplied by learning_rate.
      layerwise: one step size a leaf (LDoG) instead of one for the whole tree.

    Returns:
      A transformation with `DistanceState` whose output is one scalar, or one a leaf.

    Raises:
      ValueError: for an argument out of range, or without parameters.
    """

    def squares(tree):
        return packed(jax.tree.map(sum_of_squares, tree)) if layerwise else sum_of_squares(tree)

    def init(params):
        start = copied(params)
        # Known here once and for all: a norm of the parameters in every step is a pass over them.
        reach = jnp.asarray(reps_rel * (1 + root(squares(params))), float)
        if init_eta is not None:
            reach = jnp.zeros_like(reach)
        return DistanceState(jnp.zeros([], jnp.int32), start, reach, jnp.full_like(reach, eps))

    def update(updates, state, params=None):
        require_params(params, "dog_step")
        scale = at(learning_rate, state.steps)

        moved = root(squares(optax.tree.sub(params, state.start)))
        reach = jnp.maximum(state.reach, moved).astype(state.reach.dtype)
        energy = (state.energy + squares(updates)).astype(state.energy.dtype)
        eta = scale * reach / jnp.sqrt(energy)
        if init_eta is not None:
            eta = jnp.where(state.steps == 0, init_eta, eta)
        if layerwise:
            number = jax.ShapeDtypeStruct((), eta.dtype)
            eta = unpacked(eta, jax.tree.map(lambda _: number, updates))
        count = optax.safe_increment(state.steps)
        return eta, DistanceState(count, state.start, reach, energy)

    return optax.GradientTransformation(init, update)


class NormState(NamedTuple):
    """The sums of squared (clipped) gradient norms of all matrices, `packed`."""

    steps: jax.Array
    energy: jax.Array


@transformation
def norm_adagrad_step(
    learning_rate: LearningRate,
    *,
    gamma: Positive = 10.0,
    eps: NonNegative = 5e-4,
    v0: Positive = 1e-6,
    axes: AxesLike = None,
) -> optax.GradientTransformation:
    """AdaGO's step size: AdaGrad on the norm of each matrix, with a floor.

    Rule:
      v² ← v² + min(|g|, gamma)²;   returns max(eps, learning_rate·min(|g|, gamma)/v)

    Args:
      learning_rate: a number, or a schedule of the number of finished steps.
      gamma: largest norm that counts.
      eps: smallest step size; it is not scheduled.
      v0: the start of v.
      axes: a spec with batch axes gives each matrix of a stack its own step size.

    Returns:
      A transformation with `NormState` whose output is one scalar a leaf, or one a stacked matrix.

    Raises:
      ValueError: for an argument out of range.
    """

    def norms(tree):
        return map_with_axes(
            lambda spec, g: jnp.minimum(root(layer_energy(spec, g)), gamma), axes, tree
        )

    def init(params):
        sizes = jax.eval_shape(lambda tree: packed(norms(tree)), params)
        energy = jnp.full(sizes.shape, v0, sizes.dtype) ** 2
        return NormState(jnp.zeros([], jnp.int32), energy)

    def update(updates, state, params=None):
        del params
        scale = at(learning_rate, state.steps)
        like = norms(updates)
        norm = packed(like)
        energy = state.energy + jnp.square(norm)
        out = unpacked(jnp.maximum(eps, scale * norm / jnp.sqrt(energy)), like)
        return out, NormState(optax.safe_increment(state.steps), energy)

    return optax.GradientTransformation(init, update)
