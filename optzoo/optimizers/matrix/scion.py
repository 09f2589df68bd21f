"""Scion: every layer moves, and stays, in the ball of its own norm."""

from typing import Literal

import optax

from optzoo.primitives.axes import AxesLike
from optzoo.primitives.base import Decay, DType, LearningRate, NonNegative, Tree, transformation
from optzoo.primitives.blocks import in_blocks
from optzoo.primitives.decay import add_decayed_weights
from optzoo.primitives.duality import Balls, dualize
from optzoo.primitives.leafwise import scale_leaves
from optzoo.primitives.moments import ema, momentum as heavy_ball
from optzoo.primitives.orthogonal import Orthogonalizer, Scale
from optzoo.registry import Trait, optimizer


@transformation
def scale_by_scion(
    *,
    momentum: Decay = 0.9,
    momentum_form: Literal["ema", "sum"] = "ema",
    ball: Balls = "auto",
    radius: Tree = 1.0,
    orthogonalizer: Orthogonalizer | None = None,
    scale: Scale = "rms_to_rms",
    eps: NonNegative = 1e-8,
    axes: AxesLike = None,
    mu_dtype: DType = None,
) -> optax.GradientTransformation:
    """The direction of `scion`; see there for the arguments."""
    averaged = (
        heavy_ball(momentum, dtype=mu_dtype)
        if momentum_form == "sum"
        else ema(momentum, debias=False, dtype=mu_dtype)
    )
    return optax.chain(
        averaged,
        dualize(ball, orthogonalizer=orthogonalizer, scale=scale, eps=eps, axes=axes),
        scale_leaves(radius),
    )


@optimizer(
    title="Training Deep Learning Models with Norm-Constrained LMOs",
    authors=(
        "Thomas Pethick",
        "Wanyun Xie",
        "Kimon Antonakopoulos",
        "Zhenyu Zhu",
        "Antonio Silveti-Falls",
        "Volkan Cevher",
    ),
    year=2025,
    arxiv="2502.07529",
    code="https://github.com/LIONS-EPFL/scion",
    traits=(Trait.SHAPED,),
)
@transformation
def scion(
    learning_rate: LearningRate = 2**-6,
    *,
    momentum: Decay = 0.9,
    momentum_form: Literal["ema", "sum"] = "ema",
    ball: Balls = "auto",
    radius: Tree = 1.0,
    constrained: bool = True,
    orthogonalizer: Orthogonalizer | None = None,
    scale: Scale = "rms_to_rms",
    eps: NonNegative = 1e-8,
    axes: AxesLike = None,
    mu_dtype: DType = None,
) -> optax.GradientTransformation:
    """Every leaf steps to the edge of its norm's ball: no Adam for any of them, one float a weight.

    Rule:
      m ← momentum·m + (1 − momentum)·g
      x = the point of the unit ball of the leaf's norm with the largest ⟨m, x⟩
      p ← (1 − learning_rate)·p − learning_rate·radius·x

    Against Adam:
      The size of a step is chosen by a norm of the whole layer, not by each entry's history; and
      it keeps one number a weight instead of two.

    When to use:
      Networks that are to keep one learning rate at every width. Not for fine-tuning with the
      defaults: the constraint pulls the weights into balls they did not start in.

    Tuning:
      The default 2^-6 is the authors' for small networks; they take radius 50 for the blocks of a
      transformer and 3000 with the ball "sign" for its head at 2^-12. Unconstrained, only
      learning_rate·radius matters.

    Args:
      learning_rate: a number, or a schedule of the number of finished steps.
      momentum: decay of the average, in [0, 1), one minus the authors' momentum;
        the plain number 0 keeps no buffer for it.
      momentum_form: "ema" as above; "sum", m ← momentum·m + g (ScionLight).
      ball: the norm of each leaf: a name, a function, or a tree of these; see
        `optzoo.dualize`. By default "rms" for vectors, "column" for embeddings, "kernel" for
        convolutions and "spectral" for the rest.
      radius: of the balls: a number, or a tree of numbers like the parameters or a prefix of it,
        where the key "" stands for the rest: {"": 50.0, "head": 3000.0}.
      constrained: pull the weights into the ball; the pull is the learning rate itself. False:
        p ← p − learning_rate·radius·x.
      orthogonalizer: maps a stack of matrices (k, m, n), m ≤ n, to one of the same shape;
        `newton_schulz()` by default, `polar()` for the exact one, or any callable.
      scale: the factor of the ball "spectral"; "fan" never shrinks a step, as the authors' option
        `max`.
      eps: added to the divisors of the balls that have any.
      axes: which axes of a leaf are inputs, outputs and stacked layers; see
        `optzoo.primitives.axes`.
      mu_dtype: dtype of the momentum; float32 or wider by default.

    Returns:
      The optimizer. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range, an unknown ball, or a tree that leaves one out.

    References:
      Pethick et al. 2025, arXiv 2502.07529; official code LIONS-EPFL/scion, whose rules by the
      rank of a leaf send embeddings to "spectral".
    """

    def direction(known):
        return scale_by_scion(
            momentum=momentum,
            momentum_form=momentum_form,
            ball=ball,
            radius=radius,
            orthogonalizer=orthogonalizer,
            scale=scale,
            eps=eps,
            axes=known,
            mu_dtype=mu_dtype,
        )

    return optax.chain(
        in_blocks(direction, axes),
        add_decayed_weights(1.0) if constrained else optax.identity(),
        optax.scale_by_learning_rate(learning_rate),
    )
