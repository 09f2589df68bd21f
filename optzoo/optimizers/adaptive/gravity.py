"""Gravity: momentum of gradients whose largest entries are damped most."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.axes import AxesLike
from optzoo.primitives.base import (
    Decay,
    DType,
    LearningRate,
    NonNegative,
    Tree,
    at,
    transformation,
)
from optzoo.primitives.directions import damp
from optzoo.primitives.moments import ema
from optzoo.registry import Trait, optimizer

Start = Tree | Callable[[Tree], Tree] | None


@transformation
def scale_by_gravity(
    *,
    beta: Decay = 0.9,
    from_zero: bool = True,
    velocity: Start = None,
    axes: AxesLike = None,
    mu_dtype: DType = None,
) -> optax.GradientTransformation:
    """The direction of `gravity`, at rest at first; see there for the arguments."""

    def decay(t):
        seen = t - int(from_zero)
        return (beta * seen + 1) / (seen + 2)

    return optax.chain(damp(axes=axes), ema(decay, debias=False, start=velocity, dtype=mu_dtype))


@optimizer(
    title="Gravity Optimizer: a Kinematic Approach on Optimization in Deep Learning",
    authors=("Dariush Bahrami", "Sadegh Pouriyan Zadeh"),
    year=2021,
    arxiv="2101.09192",
    code="https://github.com/dariush-bahrami/gravity.optimizer",
    traits=(Trait.SHAPED,),
)
@transformation
def gravity(
    learning_rate: LearningRate = 0.1,
    *,
    alpha: NonNegative = 0.01,
    beta: Decay = 0.9,
    from_zero: bool = True,
    peak: NonNegative | None = None,
    velocity: Start = None,
    key: jax.Array | None = None,
    axes: AxesLike = None,
    mu_dtype: DType = None,
) -> optax.GradientTransformation:
    """Gradients damped where they are largest, then averaged.

    Rule:
      z = g / (1 + (g·max|g|)²), the maximum over the leaf
      β = (beta·k + 1)/(k + 2) after k steps
      V ← β·V + (1 − β)·z, at first normal with deviation alpha/peak
      p ← p − learning_rate·V

    Against Adam:
      One number a weight and no second moment: what bounds a step is that an entry far larger than
      1/max|g| moves by about the inverse of its gradient.

    When to use:
      To repeat the paper; a curiosity. Not where gradients may exceed 1: there the largest ones
      move least, and a loss in other units is another method.

    Tuning:
      A learning rate near 0.1, with gradients below 1.

    Args:
      learning_rate: a number, or a schedule of the number of finished steps.
      alpha: size of the random first move, for which there must be a key.
      beta: where the decay of the average goes, from 1/2 at first; in [0, 1).
      from_zero: count steps from 0, as the paper's Keras code; False: from 1, as its PyTorch code.
      peak: the learning rate to which alpha belongs; by default that of the first step.
      velocity: the first V itself: a tree like the parameters, or a function that makes one from
        them.
      key: a `jax.random` key for the first V; None starts at rest, as alpha = 0 does.
      axes: where a leaf stacks several layers, a spec with batch axes gives each its own maximum.
      mu_dtype: dtype of V; float32 or wider by default.

    Returns:
      The optimizer.

    Raises:
      ValueError: for an argument out of range.

    References:
      Bahrami and Pouriyan Zadeh 2021, arXiv 2101.09192; official code
      dariush-bahrami/gravity.optimizer, whose PyTorch class counts from 1 and so starts with
      another decay than the Keras class of the paper's experiments.
    """

    def thrown(params):
        first = jnp.asarray(at(learning_rate, jnp.zeros([], jnp.int32)) if peak is None else peak)
        deviation = jnp.where(first > 0, alpha / jnp.where(first > 0, first, 1), 0)
        leaves, structure = jax.tree.flatten(params)
        keys = jax.random.split(key, len(leaves) or 1)
        # In float32 whatever the parameters are: the same start in every precision.
        numbers = [
            deviation.astype(jnp.float32) * jax.random.normal(k, jnp.shape(leaf), jnp.float32)
            for k, leaf in zip(keys, leaves, strict=False)
        ]
        return jax.tree.unflatten(structure, numbers)

    return optax.chain(
        scale_by_gravity(
            beta=beta,
            from_zero=from_zero,
            velocity=thrown if velocity is None and key is not None else velocity,
            axes=axes,
            mu_dtype=mu_dtype,
        ),
        optax.scale_by_learning_rate(learning_rate),
    )
