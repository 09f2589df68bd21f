"""A trust region in any norm: as far as its ball reaches, along momentum."""

import jax.numpy as jnp
import optax

from optzoo.primitives.axes import AxesLike
from optzoo.primitives.base import Decay, DType, LearningRate, NonNegative, transformation
from optzoo.primitives.blocks import in_blocks
from optzoo.primitives.duality import Balls, dualize
from optzoo.primitives.moments import ema
from optzoo.primitives.orthogonal import Orthogonalizer, Scale
from optzoo.registry import Range, Trait, optimizer


@transformation
def scale_by_trust_region(
    *,
    momentum: Decay = 0.9,
    ball: Balls = "auto",
    orthogonalizer: Orthogonalizer | None = None,
    scale: Scale = None,
    eps: NonNegative = 0.0,
    axes: AxesLike = None,
    mu_dtype: DType = None,
) -> optax.GradientTransformation:
    """The direction of `trust_region`; see there for the arguments."""

    def from_the_first(step):
        return jnp.where(step > 1, momentum, 0.0)

    return optax.chain(
        ema(from_the_first, debias=False, dtype=mu_dtype),
        dualize(ball, orthogonalizer=orthogonalizer, scale=scale, eps=eps, axes=axes),
    )


@optimizer(
    title=(
        "Understanding Gradient Orthogonalization for Deep Learning via Non-Euclidean Trust-Region "
        "Optimization"
    ),
    authors=("Dmitry Kovalev",),
    year=2025,
    arxiv="2503.12645",
    code=None,
    traits=(Trait.SHAPED,),
    ranges={"weight_decay": Range(1e-4, 0.5)},
)
@transformation
def trust_region(
    learning_rate: LearningRate = 2e-2,
    *,
    momentum: Decay = 0.9,
    ball: Balls = "auto",
    orthogonalizer: Orthogonalizer | None = None,
    scale: Scale = None,
    eps: NonNegative = 0.0,
    weight_decay: Decay = 0.0,
    axes: AxesLike = None,
    mu_dtype: DType = None,
) -> optax.GradientTransformation:
    """Each step minimises the momentum's linear model in a ball of one radius around the weights.

    Rule:
      m ← g on the first step, then momentum·m + (1 − momentum)·g
      x = the point of the unit ball of the leaf's norm with the largest ⟨m, x⟩
      p ← (1 − weight_decay)·p − learning_rate·x

    Against Adam:
      The ball's radius says how far a layer moves, whatever its gradients' size; one number a
      weight instead of two.

    When to use:
      To compare norms with one another: the spectral ball is Muon without Nesterov, the ball "max"
      sign descent, the Euclidean one normalised descent. Not for best results: the rules named
      after their ball come with tuned momentum and factors.

    Tuning:
      The radius is the learning rate and the only thing to tune; let it fall to zero. Start at
      Muon's 0.02.

    Args:
      learning_rate: radius of the ball: a number, or a schedule of the number of finished steps.
      momentum: decay of the average, in [0, 1).
      ball: the norm of each leaf: a name, a function, or a tree of these; see
        `optzoo.dualize`. By default "rms" for vectors, "column" for embeddings, "kernel" for
        convolutions and "spectral" for the rest.
      orthogonalizer: maps a stack of matrices (k, m, n), m ≤ n, to one of the same shape;
        `newton_schulz()` by default, `polar()` for the exact one, or any callable.
      scale: the factor of the ball "spectral", None for the spectral norm itself; see
        `optzoo.primitives.scale_by_fan`.
      eps: added to the divisors of the balls that have any.
      weight_decay: fraction of the weights that every step takes away, in [0, 1): the ball's centre
        is (1 − weight_decay)·p. It is not multiplied by the learning rate.
      axes: which axes of a leaf are inputs, outputs and stacked layers; see
        `optzoo.primitives.axes`.
      mu_dtype: dtype of the momentum; float32 or wider by default.

    Returns:
      The optimizer. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range, an unknown ball, or a tree that leaves one out.

    References:
      Kovalev 2025, arXiv 2503.12645; no code is public. This is its method without a regulariser,
      and with decay; its extrapolated gradients are left out.
    """

    def direction(known):
        return scale_by_trust_region(
            momentum=momentum,
            ball=ball,
            orthogonalizer=orthogonalizer,
            scale=scale,
            eps=eps,
            axes=known,
            mu_dtype=mu_dtype,
        )

    return optax.chain(
        in_blocks(direction, axes),
        optax.scale_by_learning_rate(learning_rate),
        optax.add_decayed_weights(-1.0 * weight_decay),
    )
