"""UPGrad: the gradients of several objectives, each bent until it harms none, then averaged."""

from typing import Literal

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.base import NonNegative, transformation
from optzoo.primitives.objectives import Objectives, least_quadratic, weigh_objectives
from optzoo.registry import Trait, wrapper


@wrapper(
    title="Jacobian Descent for Multi-Objective Optimization",
    authors=("Pierre Quinton", "Valérian Rey"),
    year=2024,
    arxiv="2406.16232",
    code="https://github.com/TorchJD/torchjd",
    traits=(Trait.GRADIENTS, Trait.COUPLED),
)
@transformation
def upgrad(
    tx: optax.GradientTransformation,
    *,
    project: Literal["each", "mean"] = "each",
    pref_vector: NonNegative | None = None,
    norm_eps: NonNegative = 1e-4,
    reg_eps: NonNegative = 1e-4,
) -> optax.GradientTransformation:
    """Hands `tx` the mean of the objectives' gradients, each projected so that none loses by it.

    Rule:
      G = the gradients' inner products over all leaves, m by m
      G ← G/tr G + reg_eps·I;   c_i = pref_vector_i, or 1/m
      w_i = the v with the least vᵀ·G·v where v_i ≥ c_i and v ≥ 0
      g ← Σ_j w_j·g_j,   w = Σ w_i
      with project mean one v ≥ c for all

    The step follows the sum of the gradients as far as no objective rises. Without conflicts it is
    the weighted mean itself. G is m by m: solving for w costs next to nothing.

    When to use:
      Tasks that share weights and pull apart, where none may be given up for the others. Not for
      objectives of which one only helps: that is `bloop`; and not for hundreds of them, whose
      gradients must all be in memory.

    Args:
      tx: the optimizer that gets the gradient.
      project: "each" gradient by itself, or the "mean" of them, which is DualProj.
      pref_vector: how much each objective counts, one number each; 1/m by default.
      norm_eps: below this squared size of all gradients together they are averaged as they are.
      reg_eps: part of the identity in G, so that gradients in one line have an answer. An objective
        whose gradient is no longer than √reg_eps of the longest is hardly heard: scale the losses.

    Returns:
      The optimizer, with the state of `tx`; it needs `gradients` in `update`.

    Raises:
      ValueError: for an argument out of range, a pref_vector of another length than there are
        objectives, or `update` without gradients.

    References:
      Quinton and Rey 2024, arXiv 2406.16232; official code TorchJD/torchjd, whose default norm_eps
      averages gradients that are shorter than 0.01: 0 where yours are small.
    """

    def weights(objectives: Objectives) -> jax.Array:
        products, count = objectives.products(), objectives.count
        ones = jnp.ones(count, products.dtype)
        if pref_vector is not None and jnp.shape(pref_vector) != (count,):
            raise ValueError(
                f"upgrad: pref_vector must have one number for each of the {count} objectives; "
                f"got shape {jnp.shape(pref_vector)}"
            )
        c = ones / count if pref_vector is None else jnp.asarray(pref_vector, products.dtype)
        trace = jnp.trace(products)
        seen = (trace * jnp.square(objectives.peak) >= norm_eps) & (trace > 0)
        scaled = products / jnp.where(trace > 0, trace, 1)
        # What is not a number must not look like a small gradient.
        shown = jnp.where(seen | ~jnp.isfinite(trace), scaled, 0)
        matrix = shown + jnp.asarray(reg_eps, products.dtype) * jnp.eye(count, dtype=products.dtype)
        if project == "mean":
            return least_quadratic(matrix, c)
        return jax.vmap(least_quadratic, in_axes=(None, 0))(matrix, jnp.diag(c)).sum(0)

    return optax.chain(weigh_objectives(weights), tx)
