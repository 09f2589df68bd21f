"""AdaGO: Muon's direction with AdaGrad's step size on gradient norms."""

import optax

from optzoo.primitives.axes import AxesLike
from optzoo.primitives.base import (
    Decay,
    DType,
    LearningRate,
    Mask,
    NonNegative,
    Positive,
    transformation,
)
from optzoo.primitives.combine import merge_leaves, multiply
from optzoo.primitives.decay import rated_decay
from optzoo.primitives.labels import Selection
from optzoo.primitives.moments import ema
from optzoo.primitives.orthogonal import Orthogonalizer, Scale, orthogonalize, scale_by_fan
from optzoo.primitives.routing import matrices_or_adam, scaled
from optzoo.primitives.stepsizes import norm_adagrad_step
from optzoo.registry import Trait, optimizer


@transformation
def scale_by_adago(
    learning_rate: LearningRate = 1.0,
    *,
    momentum: Decay = 0.95,
    nesterov: bool = False,
    gamma: Positive = 10.0,
    eps: NonNegative = 0.0,
    v0: Positive = 1e-6,
    orthogonalizer: Orthogonalizer | None = None,
    scale: Scale = None,
    axes: AxesLike = None,
    mu_dtype: DType = None,
) -> optax.GradientTransformation:
    """The direction of `adago` for matrices; see there for the arguments.

    The learning rate is an argument because AdaGO's floor, eps, bounds it from below; by default it
    is 1 and there is no floor.
    """
    direction = optax.chain(
        ema(momentum, debias=False, nesterov=nesterov, dtype=mu_dtype),
        orthogonalize(orthogonalizer, axes=axes),
        scale_by_fan(scale, axes=axes),
    )
    step = norm_adagrad_step(learning_rate, gamma=gamma, eps=eps, v0=v0, axes=axes)
    return merge_leaves(multiply, direction, step)


@optimizer(
    title="AdaGrad Meets Muon: Adaptive Stepsizes for Orthogonal Updates",
    authors=("Minxin Zhang", "Yuxuan Liu", "Hayden Schaeffer"),
    year=2025,
    arxiv="2509.02981",
    code=None,
    traits=(Trait.SHAPED,),
    default=True,
)
@transformation
def adago(
    learning_rate: LearningRate = 5e-2,
    *,
    momentum: Decay = 0.95,
    nesterov: bool = False,
    gamma: Positive = 10.0,
    eps: NonNegative = 5e-4,
    v0: Positive = 1e-6,
    orthogonalizer: Orthogonalizer | None = None,
    scale: Scale = None,
    weight_decay: NonNegative = 0.0,
    mask: Mask = None,
    rest: optax.GradientTransformation | None = None,
    axes: AxesLike = None,
    include: Selection = None,
    exclude: Selection = None,
    mu_dtype: DType = None,
) -> optax.GradientTransformation:
    """Muon's orthogonal direction with a step size that AdaGrad finds from gradient norms.

    Hidden matrices and convolution kernels follow this rule; embeddings, output heads, vectors and
    scalars go to Adam. `optzoo.describe(adago(), params)` prints which leaf went where.

    Rule:
      m ← momentum·m + (1 − momentum)·g;   o = orthogonalised m
      n = min(|g|, gamma);   v² ← v² + n², from v0²
      p ← p − max(eps, learning_rate·n/v)·o − learning_rate·weight_decay·p

    Against Adam:
      Every singular direction of a matrix takes the same step, whose size AdaGrad finds from the
      matrix's gradient norms; Adam scales each entry by itself.

    When to use:
      Muon's cases, when steps should shrink by themselves: without a floor they fall as AdaGrad's
      do. Not for models with few hidden matrices, where most leaves get plain Adam.

    Tuning:
      The defaults are what other implementations take for the paper's experiments; keep eps at a
      hundredth of learning_rate. The paper decays no weights.

    Args:
      learning_rate: a number, or a schedule of the number of finished steps.
      momentum: decay of the momentum, in [0, 1); the plain number 0 keeps no buffer for it.
      nesterov: look one step ahead; not in the paper.
      gamma: largest gradient norm that counts.
      eps: smallest step size; it is not scheduled.
      v0: the start of v.
      orthogonalizer: maps a stack of matrices (k, m, n), m ≤ n, to one of the same shape;
        `newton_schulz()` by default, `polar()` for the paper's exact one, or any callable.
      scale: a factor of the matrix shape as in `muon`; the paper has none.
      weight_decay: decoupled decay of the matrices; not in the paper.
      mask: which matrices to decay: a tree of booleans, or a function that makes one.
      rest: the optimizer of all other leaves; by default Adam with b1 = 0.9, b2 = 0.95,
        eps = 1e-10 at 0.006·learning_rate, that is 3e-4 at the default.
      axes: which axes of a leaf are inputs, outputs and stacked layers; see
        `optzoo.primitives.axes`.
      include: leaves to orthogonalise whatever they look like; see `optzoo.matrix_labels`.
      exclude: leaves never to orthogonalise; see `optzoo.matrix_labels`.
      mu_dtype: dtype of the momentum; float32 or wider by default.

    Returns:
      The optimizer. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range, or an `orthogonalizer` that changes shapes.

    References:
      Zhang et al. 2025, arXiv 2509.02981; no official code is public, so this follows the paper's
      algorithm box, with Newton–Schulz for the direction as in its experiments.
    """
    decay = rated_decay(learning_rate, weight_decay, mask)

    def matrices(known):
        steps = scale_by_adago(
            learning_rate,
            momentum=momentum,
            nesterov=nesterov,
            gamma=gamma,
            eps=eps,
            v0=v0,
            orthogonalizer=orthogonalizer,
            scale=scale,
            axes=known,
            mu_dtype=mu_dtype,
        )
        return optax.chain(steps, optax.scale(-1.0), decay)

    return matrices_or_adam(
        matrices,
        rest,
        scaled(learning_rate, 0.006),
        axes=axes,
        include=include,
        exclude=exclude,
    )
