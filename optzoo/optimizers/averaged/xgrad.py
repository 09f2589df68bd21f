"""XGrad: gradients taken where the weights are predicted to go."""

import jax.numpy as jnp
import optax

from optzoo.primitives.ahead import train_ahead
from optzoo.primitives.base import LearningRate, Mask, NonNegative, at, transformation
from optzoo.primitives.decay import add_decayed_weights
from optzoo.registry import Trait, wrapper


@wrapper(
    title="XGrad: Boosting Gradient-Based Optimizers With Weight Prediction",
    authors=("Lei Guan", "Dongsheng Li", "Yanqi Shi", "Jian Meng"),
    year=2023,
    arxiv="2305.18240",
    code="https://github.com/guanleics/XGrad",
    traits=(Trait.AVERAGES,),
)
@transformation
def xgrad(
    tx: optax.GradientTransformation,
    learning_rate: LearningRate,
    *,
    steps: NonNegative = 1.0,
    weight_decay: NonNegative = 0.0,
    mask: Mask = None,
) -> optax.GradientTransformation:
    """Takes gradients a few steps ahead, where the last direction of `tx` would lead.

    Rule:
      k finished steps;   u = what tx makes of g at y
      w ← w + u − learning_rate(k)·weight_decay·w
      y = w + steps·learning_rate(k + 1)/learning_rate(k)·u

    When to use:
      Around SGD with momentum or Adam, for a look ahead in Nesterov's manner by whole steps of the
      rule; with SGD's momentum as `steps` it is Nesterov's. Not around what averages already.

    Args:
      tx: the optimizer, with the same learning rate and without a decoupled decay, which is no
        part of the prediction.
      learning_rate: a number, or a schedule of the number of finished steps: the prediction takes
        the rate of the step to come. Where the rate is 0 nothing is predicted.
      steps: how many steps ahead; the authors name no default.
      weight_decay: decoupled decay of the weights w.
      mask: which leaves to decay: a tree of booleans, or a function that makes one.

    Returns:
      The optimizer; `eval_params` gives the weights w. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range, or `update` without parameters.

    References:
      Guan et al. 2023, arXiv 2305.18240; official code guanleics/XGrad, whose loop restores the
      weights before each step: here the weights are what `eval_params` gives.
    """

    def distance(count):
        now = jnp.asarray(at(learning_rate, count), float)
        following = at(learning_rate, optax.safe_increment(count))
        return steps * jnp.where(now > 0, following / jnp.where(now > 0, now, 1), 0)

    decay = optax.chain(
        add_decayed_weights(weight_decay, mask), optax.scale_by_learning_rate(learning_rate)
    )
    return train_ahead(tx, distance, decay=decay)
