"""GradNorm: weights of several losses, moved until the slow ones get the larger gradients."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.base import Mask, NonNegative, Size, require, transformation
from optzoo.primitives.objectives import Objectives, Weights, weigh_objectives
from optzoo.registry import Trait, wrapper


class GradNormState(NamedTuple):
    """The losses' weights, and the losses of the first step."""

    steps: jax.Array
    weights: jax.Array
    first: jax.Array


@wrapper(
    title="GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask Networks",
    authors=("Zhao Chen", "Vijay Badrinarayanan", "Chen-Yu Lee", "Andrew Rabinovich"),
    year=2017,
    arxiv="1711.02257",
    code=None,
    traits=(Trait.GRADIENTS, Trait.VALUES, Trait.COUPLED),
)
@transformation
def gradnorm(
    tx: optax.GradientTransformation,
    *,
    objectives: Size = 2,
    alpha: NonNegative = 1.5,
    weight_lr: NonNegative = 0.025,
    shared: Mask = None,
    floor: NonNegative | None = None,
) -> optax.GradientTransformation:
    """Hands `tx` a weighted sum of the objectives' gradients, and turns the weights as it goes.

    Rule:
      g ← Σ w_i·g_i
      n_i = |g_i| over the shared leaves;   G_i = w_i·n_i
      q_i = L_i/L_i of the first step;   target_i = mean(G)·(q_i/mean(q))^alpha
      w_i ← w_i − weight_lr·sign(G_i − target_i)·n_i;   w ← m·w/Σw

    The weights start at 1 and each step takes those of the step before.

    When to use:
      Losses of different size and speed whose weights nobody wants to search for. Not where
      gradients conflict, which no positive weights resolve: `upgrad`; not for losses that may be
      zero or negative.

    Args:
      tx: the optimizer that gets the gradient.
      objectives: how many there are.
      alpha: how strongly slow losses are favoured; 0 makes all gradients equally long, and the
        less the tasks differ, the smaller.
      weight_lr: learning rate of the weights.
      shared: over which leaves to measure gradients, a tree of booleans or a function that makes
        one: the paper takes the last layer that all share; None for all.
      floor: the smallest weight before they are made to sum to m; None lets them turn negative.

    Returns:
      The optimizer, with two numbers an objective beside the state of `tx`; it needs `gradients`
      and `values` in `update`. A single objective passes as it is.

    Raises:
      ValueError: for an argument out of range, another number of gradients or values than
        objectives, or `update` without them.

    References:
      Chen et al. 2017, arXiv 1711.02257; no code of the authors is public. Ports differ: they sum
      the weights to 1, move them by Adam, or train them as logits. Where the weights' sum is not
      positive, they stay as they are; the paper does not say.
    """

    def init():
        ones = jnp.ones(objectives, float)
        return GradNormState(jnp.zeros([], jnp.int32), ones, jnp.zeros_like(ones))

    def weigh(rows: Objectives, state: GradNormState) -> tuple[jax.Array, GradNormState]:
        losses = jnp.asarray(require(rows.extra_args, "values", "gradnorm"), state.weights.dtype)
        if rows.count == 1:
            return jnp.ones_like(losses), state
        if losses.shape != (objectives,) or rows.count != objectives:
            raise ValueError(
                f"gradnorm: gradients and values must be of {objectives} objectives; got "
                f"{rows.count} gradients and values of shape {losses.shape}"
            )
        w = state.weights
        norms = (rows.norms(shared) * rows.peak).astype(w.dtype)
        sizes = w * norms
        first = jnp.where(state.steps == 0, losses, state.first)
        pace = _ratio(losses, first)
        target = jnp.mean(sizes) * _ratio(pace, jnp.mean(pace)) ** alpha
        moved = w - weight_lr * jnp.sign(sizes - target) * norms
        if floor is not None:
            moved = jnp.maximum(moved, floor)
        total = jnp.sum(moved)
        following = jnp.where(total > 0, objectives * moved / jnp.where(total > 0, total, 1), w)
        return w, GradNormState(optax.safe_increment(state.steps), following, first)

    return optax.chain(weigh_objectives(Weights(init, weigh)), tx)


def _ratio(x: jax.Array, of: jax.Array) -> jax.Array:
    """x/of, and 1 where there is nothing to compare with."""
    return jnp.where(of == 0, 1, x / jnp.where(of == 0, 1, of))
