"""Steepest descent in a modular norm: the anthology's rule behind sign descent and Shampoo."""

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.axes import AxesLike
from optzoo.primitives.base import LearningRate, NonNegative, Tree, transformation
from optzoo.primitives.combine import gradient, merge
from optzoo.primitives.duality import Balls, dualize, inner_product
from optzoo.primitives.leafwise import leafwise
from optzoo.primitives.orthogonal import Orthogonalizer, Scale
from optzoo.registry import Trait, optimizer


@transformation
def scale_by_modular_descent(
    *,
    ball: Balls = "auto",
    sensitivity: Tree = 1.0,
    orthogonalizer: Orthogonalizer | None = None,
    scale: Scale = "rms_to_rms",
    eps: NonNegative = 0.0,
    axes: AxesLike = None,
) -> optax.GradientTransformation:
    """The direction of `modular_descent`; see there for the arguments."""

    def steepest(grads, duals):
        factors = leafwise("sensitivity", sensitivity, duals)
        promises = jax.tree.map(lambda g, x, s: inner_product(g, x) / s, grads, duals, factors)
        total = sum(jax.tree.leaves(promises))
        return jax.tree.map(lambda x, s: x * jnp.asarray(total / s, x.dtype), duals, factors)

    dual = dualize(ball, orthogonalizer=orthogonalizer, scale=scale, eps=eps, axes=axes)
    return merge(steepest, gradient, dual)


@optimizer(
    title="Old Optimizer, New Norm: An Anthology",
    authors=("Jeremy Bernstein", "Laker Newhouse"),
    year=2024,
    arxiv="2409.20325",
    code=None,
    traits=(Trait.SHAPED, Trait.COUPLED),
)
@transformation
def modular_descent(
    learning_rate: LearningRate = 1e-3,
    *,
    ball: Balls = "auto",
    sensitivity: Tree = 1.0,
    orthogonalizer: Orthogonalizer | None = None,
    scale: Scale = "rms_to_rms",
    eps: NonNegative = 0.0,
    axes: AxesLike = None,
) -> optax.GradientTransformation:
    """Steepest descent where the norm of a step is the largest of its layers' norms.

    Rule:
      x = the point of the unit ball of the leaf's norm with the largest ⟨g, x⟩
      d = Σ ⟨g, x⟩/sensitivity over all leaves
      p ← p − learning_rate·d·x/sensitivity

    Against Adam:
      No memory at all; with the ball "max" everywhere it is Adam without averages: sign descent
      whose step is as large as the gradients are.

    When to use:
      To study which norm fits a layer. Not for training: without momentum, and with one step size
      for all leaves that a large gradient of any of them enlarges.

    Tuning:
      The step grows with the gradients, so the learning rate depends on the loss: the default is a
      guess that a sweep has to replace.

    Args:
      learning_rate: a number, or a schedule of the number of finished steps.
      ball: the norm of each leaf: a name, a function, or a tree of these; see
        `optzoo.dualize`. By default "rms" for vectors, "column" for embeddings, "kernel" for
        convolutions and "spectral" for the rest.
      sensitivity: of the output to each leaf: a number, or a tree of numbers like the parameters
        or a prefix of it, where the key "" stands for the rest.
      orthogonalizer: maps a stack of matrices (k, m, n), m ≤ n, to one of the same shape;
        `newton_schulz()` by default, `polar()` for the exact one, or any callable.
      scale: the factor of the ball "spectral"; see `optzoo.primitives.scale_by_fan`.
      eps: added to the divisors of the balls that have any.
      axes: which axes of a leaf are inputs, outputs and stacked layers; see
        `optzoo.primitives.axes`.

    Returns:
      The optimizer; it keeps no state of its own.

    Raises:
      ValueError: for an argument out of range, an unknown ball, or a tree that leaves one out.

    References:
      Bernstein and Newhouse 2024, arXiv 2409.20325; no code is public.
    """
    return optax.chain(
        scale_by_modular_descent(
            ball=ball,
            sensitivity=sensitivity,
            orthogonalizer=orthogonalizer,
            scale=scale,
            eps=eps,
            axes=axes,
        ),
        optax.scale_by_learning_rate(learning_rate),
    )
