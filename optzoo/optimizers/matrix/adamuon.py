"""AdaMuon: Muon on signs, then Adam's second moment."""

from functools import partial

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.axes import AxesLike
from optzoo.primitives.base import Decay, DType, LearningRate, Mask, NonNegative, transformation
from optzoo.primitives.combine import divide, gradient, merge_leaves
from optzoo.primitives.grafting import match_rms
from optzoo.primitives.labels import Selection
from optzoo.primitives.moments import ema, rms
from optzoo.primitives.orthogonal import Orthogonalizer, orthogonalize
from optzoo.primitives.routing import descend_matrices
from optzoo.registry import Trait, optimizer


@transformation
def scale_by_adamuon(
    *,
    momentum: Decay = 0.95,
    eps: NonNegative = 1e-8,
    nesterov: bool = True,
    orthogonalizer: Orthogonalizer | None = None,
    axes: AxesLike = None,
    mu_dtype: DType = None,
    nu_dtype: DType = None,
) -> optax.GradientTransformation:
    """The direction of `adamuon` for matrices; see there for the arguments."""
    return optax.chain(
        ema(momentum, debias=False, nesterov=nesterov, dtype=mu_dtype),
        optax.stateless(lambda updates, _: jax.tree.map(jnp.sign, updates)),
        orthogonalize(orthogonalizer, axes=axes),
        merge_leaves(divide, gradient, rms(momentum, eps, debias=False, dtype=nu_dtype)),
        match_rms(0.2, eps=eps, axes=axes),
    )


@optimizer(
    title="AdaMuon: Adaptive Muon Optimizer",
    authors=("Chongjie Si", "Debing Zhang", "Wei Shen"),
    year=2025,
    arxiv="2507.11005",
    code="https://github.com/Chongjie-Si/AdaMuon",
    traits=(Trait.SHAPED,),
)
@transformation
def adamuon(
    learning_rate: LearningRate = 2e-2,
    *,
    momentum: Decay = 0.95,
    eps: NonNegative = 1e-8,
    nesterov: bool = True,
    orthogonalizer: Orthogonalizer | None = None,
    weight_decay: NonNegative = 0.01,
    mask: Mask = None,
    rest: optax.GradientTransformation | None = None,
    axes: AxesLike = None,
    include: Selection = None,
    exclude: Selection = None,
    mu_dtype: DType = None,
    nu_dtype: DType = None,
) -> optax.GradientTransformation:
    """Orthogonalised signs of the momentum, scaled entry by entry with Adam's second moment.

    Hidden matrices and convolution kernels follow this rule; embeddings, output heads, vectors and
    scalars go to Adam. `optzoo.describe(adamuon(), params)` prints which leaf went where.

    Rule:
      m ← momentum·m + (1 − momentum)·g;   u = momentum·m + (1 − momentum)·g, or m without nesterov
      o = orthogonalised sign(u), by Newton–Schulz
      v ← momentum·v + (1 − momentum)·o²;   w = o/(√v + eps)
      p ← p − learning_rate·(0.2·√n·w/(|w| + eps) + weight_decay·p), for a matrix of n numbers

    Against Adam:
      The second moment sees orthogonal directions, not gradients, and a matrix's step has a fixed
      size, about that of Adam's.

    When to use:
      Hidden layers of transformers, with learning rates in AdamW's habit. Not where memory counts:
      it keeps two numbers a weight, as Adam does, where Muon keeps one.

    Tuning:
      A step has a root mean square of 0.2·learning_rate: five times AdamW's learning rate is a
      good start. The default 0.02 is the original code's.

    Args:
      learning_rate: a number, or a schedule of the number of finished steps.
      momentum: decay of the momentum and of the second moment, in [0, 1);
        the plain number 0 keeps no buffer for it.
      eps: added to the moment's root and to the norm.
      nesterov: look one step ahead.
      orthogonalizer: maps a stack of matrices (k, m, n), m ≤ n, to one of the same shape;
        `newton_schulz()` by default, `polar()` for the exact one, or any callable.
      weight_decay: decoupled decay of the matrices.
      mask: which matrices to decay: a tree of booleans, or a function that makes one.
      rest: the optimizer of all other leaves; by default Adam with b1 = 0.9, b2 = 0.95,
        eps = 1e-10 at 0.2·learning_rate, the size of the matrices' steps.
      axes: which axes of a leaf are inputs, outputs and stacked layers; see
        `optzoo.primitives.axes`.
      include: leaves to orthogonalise whatever they look like; see `optzoo.matrix_labels`.
      exclude: leaves never to orthogonalise; see `optzoo.matrix_labels`.
      mu_dtype: dtype of the momentum; float32 or wider by default.
      nu_dtype: dtype of the second moment; float32 or wider by default.

    Returns:
      The optimizer. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range, or an `orthogonalizer` that changes shapes.

    References:
      Si et al. 2025, arXiv 2507.11005; official code Chongjie-Si/AdaMuon, which sizes the step of a
      convolution by the product of its shortest and its longest axis; here it is its n.
    """
    direction = partial(
        scale_by_adamuon,
        momentum=momentum,
        eps=eps,
        nesterov=nesterov,
        orthogonalizer=orthogonalizer,
        mu_dtype=mu_dtype,
        nu_dtype=nu_dtype,
    )
    return descend_matrices(
        direction,
        learning_rate,
        weight_decay=weight_decay,
        mask=mask,
        rest=rest,
        rest_factor=0.2,
        axes=axes,
        include=include,
        exclude=exclude,
    )
