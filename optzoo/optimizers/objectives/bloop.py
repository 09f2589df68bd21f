"""Bloop: an auxiliary loss that may not touch the main one, judged by an average gradient."""

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.base import Decay, NonNegative, Positive, transformation
from optzoo.primitives.moments import ema
from optzoo.primitives.objectives import Objectives, weigh_objectives
from optzoo.registry import Trait, wrapper


@wrapper(
    title="Careful with that Scalpel: Improving Gradient Surgery with an EMA",
    authors=(
        "Yu-Guan Hsieh",
        "James Thornton",
        "Eugene Ndiaye",
        "Michal Klein",
        "Marco Cuturi",
        "Pierre Ablin",
    ),
    year=2024,
    arxiv="2402.02998",
    code="https://github.com/apple/ml-bloop",
    traits=(Trait.GRADIENTS, Trait.COUPLED),
)
@transformation
def bloop(
    tx: optax.GradientTransformation,
    *,
    lbda: NonNegative = 0.1,
    decay: Decay = 0.9,
    zeros: bool = False,
    barrier: bool = False,
    eps: Positive = 1e-7,
) -> optax.GradientTransformation:
    """Hands `tx` the main gradient and the part of an auxiliary one at right angles to it.

    Rule:
      g_1 the main gradient, g_2 the auxiliary one
      e ← decay·e + (1 − decay)·g_1, at first g_1
      r = ⟨e, g_2⟩/(⟨e, e⟩ + eps);   with barrier at most 1/lbda
      g ← g_1 + lbda·(g_2 − r·e)

    One batch's gradient says little of what harms the main loss; its average says more.

    When to use:
      One loss to be lowered, and another among all that lower it: smooth outputs, a second task
      that helps. Not for losses of equal rank, where neither is main: `upgrad`, `pcgrad`.

    Args:
      tx: the optimizer that gets the gradient.
      lbda: weight of the auxiliary loss.
      decay: of the main gradient's average, in [0, 1); 0 takes this batch's alone.
      zeros: start the average at zero, as the authors' readme does, instead of at the first
        gradient.
      barrier: leave in what speaks against the auxiliary loss beyond 1/lbda: the dynamic barrier,
        which the authors have with decay 0.
      eps: added to the squared norm of the average.

    Returns:
      The optimizer, with one number a weight beside the state of `tx`; it needs `gradients` in
      `update`, the main one first; the auxiliary one is a sum where there are several. A single
      objective passes as it is.

    Raises:
      ValueError: for an argument out of range, or `update` with more than two gradients or none.

    References:
      Hsieh et al. 2024, arXiv 2402.02998; official code apple/ml-bloop, whose `ema` is 1 − decay
      and whose option to rescale multiplies by 1 + lbda where a division was meant: left out.
    """

    def weights(objectives: Objectives) -> jax.Array:
        if objectives.count > 3:
            raise ValueError(
                f"bloop: gradients must be of two objectives; got {objectives.count - 1}"
            )
        if objectives.count < 3:
            return jnp.array([1.0, 0.0], objectives.peak.dtype)
        products = objectives.products()
        ridge = jnp.asarray(eps, products.dtype) / jnp.square(objectives.peak)
        ratio = products[2, 1] / (products[2, 2] + ridge)
        share = jnp.asarray(lbda, products.dtype)
        if barrier:
            ratio = jnp.where(share * ratio > 1, 1 / jnp.where(share > 0, share, 1), ratio)
        return jnp.stack([jnp.ones([], products.dtype), share, -share * ratio])

    average = ema(decay, debias=False, start=None if zeros else "first")
    return optax.chain(weigh_objectives(weights, beside=average), tx)
