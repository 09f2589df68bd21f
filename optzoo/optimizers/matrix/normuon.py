"""NorMuon: Muon whose output units all move alike."""

from functools import partial

import optax

from optzoo.primitives.axes import AxesLike
from optzoo.primitives.base import Decay, DType, LearningRate, Mask, NonNegative, transformation
from optzoo.primitives.labels import Selection
from optzoo.primitives.moments import ema
from optzoo.primitives.orthogonal import Orthogonalizer, Scale, scale_by_fan
from optzoo.primitives.preconditioning import orthogonalize_evenly
from optzoo.primitives.routing import descend_matrices
from optzoo.registry import Trait, optimizer


@transformation
def scale_by_normuon(
    *,
    momentum: Decay = 0.95,
    b2: Decay = 0.95,
    eps: NonNegative = 1e-10,
    nesterov: bool = True,
    orthogonalizer: Orthogonalizer | None = None,
    scale: Scale = "fan",
    axes: AxesLike = None,
    mu_dtype: DType = None,
) -> optax.GradientTransformation:
    """The direction of `normuon` for matrices; see there for the arguments."""
    return optax.chain(
        ema(momentum, debias=False, nesterov=nesterov, dtype=mu_dtype),
        orthogonalize_evenly(b2, eps, orthogonalizer=orthogonalizer, axes=axes),
        scale_by_fan(scale, axes=axes),
    )


@optimizer(
    title="NorMuon: Making Muon more efficient and scalable",
    authors=("Zichong Li", "Liming Liu", "Chen Liang", "Weizhu Chen", "Tuo Zhao"),
    year=2025,
    arxiv="2510.05491",
    code="https://github.com/zichongli5/NorMuon",
    traits=(Trait.SHAPED,),
)
@transformation
def normuon(
    learning_rate: LearningRate = 2e-2,
    *,
    momentum: Decay = 0.95,
    b2: Decay = 0.95,
    eps: NonNegative = 1e-10,
    nesterov: bool = True,
    orthogonalizer: Orthogonalizer | None = None,
    scale: Scale = "fan",
    weight_decay: NonNegative = 0.0,
    mask: Mask = None,
    rest: optax.GradientTransformation | None = None,
    axes: AxesLike = None,
    include: Selection = None,
    exclude: Selection = None,
    mu_dtype: DType = None,
) -> optax.GradientTransformation:
    """Muon with a second moment for each output unit, so that no neuron moves more than another.

    Hidden matrices and convolution kernels follow this rule; embeddings, output heads, vectors and
    scalars go to Adam. `optzoo.describe(normuon(), params)` prints which leaf went where.

    Rule:
      m ← momentum·m + (1 − momentum)·g;   u = momentum·m + (1 − momentum)·g, or m without nesterov
      o = orthogonalised u, by Newton–Schulz;   n = mean of o² over what feeds an output
      v ← b2·v + (1 − b2)·n;   w = o/(√v + eps)
      p ← p − learning_rate·(√max(1, out/in)·|o|·w/(|w| + eps) + weight_decay·p)

    Against Adam:
      Every singular direction of a matrix takes the same step, and then every output unit; it
      keeps little more than one number a weight instead of two.

    When to use:
      Where Muon is used: hidden layers of transformers and convolutional networks. Not for models
      that are mostly embeddings, heads and vectors, which get plain Adam.

    Tuning:
      The defaults are the original's; take Muon's learning rate. The norm of Muon's step is
      restored, so what is tuned for one serves the other.

    Args:
      learning_rate: a number, or a schedule of the number of finished steps.
      momentum: decay of the momentum, in [0, 1);
        the plain number 0 keeps no buffer for it.
      b2: decay of the units' second moment, in [0, 1).
      eps: added to the moment's root and to the norm that is restored.
      nesterov: look one step ahead.
      orthogonalizer: maps a stack of matrices (k, m, n), m ≤ n, to one of the same shape;
        `newton_schulz()` by default, `polar()` for the exact one, or any callable.
      scale: a factor of the matrix shape as in `muon`.
      weight_decay: decoupled decay of the matrices.
      mask: which matrices to decay: a tree of booleans, or a function that makes one.
      rest: the optimizer of all other leaves; by default Adam with b1 = 0.9, b2 = 0.95,
        eps = 1e-10 at 0.015·learning_rate, the original's 3e-4 to its 0.02.
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
      Li et al. 2025, arXiv 2510.05491; official code zichongli5/NorMuon. There a unit of a
      convolution is one output, input and row of the kernel; here it is one output.
    """
    direction = partial(
        scale_by_normuon,
        momentum=momentum,
        b2=b2,
        eps=eps,
        nesterov=nesterov,
        orthogonalizer=orthogonalizer,
        scale=scale,
        mu_dtype=mu_dtype,
    )
    return descend_matrices(
        direction,
        learning_rate,
        weight_decay=weight_decay,
        mask=mask,
        rest=rest,
        rest_factor=0.015,
        axes=axes,
        include=include,
        exclude=exclude,
    )
