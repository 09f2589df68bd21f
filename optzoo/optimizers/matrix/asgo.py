"""ASGO and DASGO: one side of a matrix preconditioned, by a matrix or by its diagonal."""

from functools import partial
from typing import Any

import optax

from optzoo.primitives.axes import AxesLike
from optzoo.primitives.base import Decay, DType, LearningRate, Mask, NonNegative, transformation
from optzoo.primitives.combine import divide, merge_leaves
from optzoo.primitives.grafting import match_rms
from optzoo.primitives.labels import Selection
from optzoo.primitives.moments import ema, unit_rms
from optzoo.primitives.preconditioning import precondition
from optzoo.primitives.roots import Root, Side
from optzoo.primitives.routing import descend_matrices
from optzoo.registry import Trait, optimizer

PAPER: dict[str, Any] = dict(
    title="ASGO: Adaptive Structured Gradient Optimization",
    authors=(
        "Kang An",
        "Yuxing Liu",
        "Rui Pan",
        "Yi Ren",
        "Shiqian Ma",
        "Donald Goldfarb",
        "Tong Zhang",
    ),
    year=2025,
    arxiv="2503.20762",
    code="https://github.com/infinity-stars/ASGO",
    traits=(Trait.SHAPED,),
)


@transformation
def scale_by_asgo(
    *,
    momentum: Decay = 0.9,
    b2: Decay | None = 0.8,
    inverse: Root | None = None,
    side: Side = "short",
    rms: NonNegative | None = 0.2,
    axes: AxesLike = None,
    mu_dtype: DType = None,
) -> optax.GradientTransformation:
    """The direction of `asgo` for matrices; see there for the arguments."""
    averaged = ema(momentum, debias=False, dtype=mu_dtype)
    return optax.chain(
        precondition(averaged, b2, inverse=inverse, side=side, axes=axes),
        optax.identity() if rms is None else match_rms(rms, eps=0.0, axes=axes),
    )


@optimizer(**PAPER)
@transformation
def asgo(
    learning_rate: LearningRate = 1e-2,
    *,
    momentum: Decay = 0.9,
    b2: Decay | None = 0.8,
    inverse: Root | None = None,
    side: Side = "short",
    rms: NonNegative | None = 0.2,
    weight_decay: NonNegative = 0.1,
    mask: Mask = None,
    rest: optax.GradientTransformation | None = None,
    axes: AxesLike = None,
    include: Selection = None,
    exclude: Selection = None,
    mu_dtype: DType = None,
) -> optax.GradientTransformation:
    """Half of Shampoo: the shorter side of each matrix is whitened by its gradients' average.

    Hidden matrices and convolution kernels follow this rule; embeddings, output heads, vectors and
    scalars go to Adam. `optzoo.describe(asgo(), params)` prints which leaf went where.

    Rule:
      m ← momentum·m + (1 − momentum)·g;   V ← b2·V + (1 − b2)·K, with K = g·gᵀ on the shorter side
      u = V^(−1/2)·m, or from the right
      p ← p − learning_rate·(rms·√n·u/|u| + weight_decay·p), for a matrix of n numbers

    Against Adam:
      The second moment is a matrix of one side instead of one number an entry; a matrix's step has
      a fixed size, about that of Adam's.

    When to use:
      Hidden layers whose gradients have low rank. Not where one side is long in all matrices and
      time is short: a root of the shorter one is found in each step.

    Tuning:
      A step has a root mean square of rms·learning_rate: five times AdamW's learning rate is a
      good start. The defaults are the code's.

    Args:
      learning_rate: a number, or a schedule of the number of finished steps.
      momentum: decay of the momentum, in [0, 1); the plain number 0 keeps no buffer for it.
      b2: decay of V, in [0, 1); None for a sum, as in the paper's algorithm box.
      inverse: maps a stack of V to one of V^(−1/2); `inverse_root()` by default, ten steps of
        Polar Express.
      side: "short", of squares the inputs; or "in" or "out" for all.
      rms: root mean square of the step before the learning rate; None leaves u as it is.
      weight_decay: decoupled decay of the matrices.
      mask: which matrices to decay: a tree of booleans, or a function that makes one.
      rest: the optimizer of all other leaves; by default Adam with b1 = 0.9, b2 = 0.95,
        eps = 1e-10 at 0.2·learning_rate, the size of the matrices' steps.
      axes: which axes of a leaf are inputs, outputs and stacked layers; see
        `optzoo.primitives.axes`.
      include: leaves to treat as matrices whatever they look like; see `optzoo.matrix_labels`.
      exclude: leaves never to treat as matrices; see `optzoo.matrix_labels`.
      mu_dtype: dtype of the momentum; float32 or wider by default.

    Returns:
      The optimizer. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range.

    References:
      An et al. 2025, arXiv 2503.20762; official code infinity-stars/ASGO. The paper's box:
      momentum=0.0, b2=None, side="out", rms=None, inverse=inverse_root("eigh", eps=1e-3).
    """
    direction = partial(
        scale_by_asgo,
        momentum=momentum,
        b2=b2,
        inverse=inverse,
        side=side,
        rms=rms,
        mu_dtype=mu_dtype,
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


@transformation
def scale_by_dasgo(
    *,
    momentum: Decay = 0.9,
    b2: Decay = 0.95,
    eps: NonNegative = 1e-8,
    axes: AxesLike = None,
    mu_dtype: DType = None,
) -> optax.GradientTransformation:
    """The direction of `dasgo` for matrices; see there for the arguments."""
    second = unit_rms(b2, 0.0, eps_root=eps, unit="input", total=True, axes=axes)
    return optax.chain(
        merge_leaves(divide, ema(momentum, debias=False, dtype=mu_dtype), second),
        match_rms(0.2, eps=0.0, axes=axes),
    )


@optimizer(**PAPER)
@transformation
def dasgo(
    learning_rate: LearningRate = 1e-3,
    *,
    momentum: Decay = 0.9,
    b2: Decay = 0.95,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.1,
    mask: Mask = None,
    rest: optax.GradientTransformation | None = None,
    axes: AxesLike = None,
    include: Selection = None,
    exclude: Selection = None,
    mu_dtype: DType = None,
) -> optax.GradientTransformation:
    """ASGO with the diagonal of its matrix: one second moment for each input of a layer.

    Hidden matrices and convolution kernels follow this rule; embeddings, output heads, vectors and
    scalars go to Adam. `optzoo.describe(dasgo(), params)` prints which leaf went where.

    Rule:
      m ← momentum·m + (1 − momentum)·g;   k = Σ g² over what an input feeds
      v ← b2·v + (1 − b2)·k;   u = m/√(v + eps)
      p ← p − learning_rate·(0.2·√n·u/|u| + weight_decay·p), for a matrix of n numbers

    Against Adam:
      One second moment an input instead of one an entry: little more than one number a weight.

    When to use:
      Where memory for Adam's second moment is missing and inputs differ most. Not where outputs
      differ more than inputs do: `normuon` balances these.

    Tuning:
      A step has a root mean square of 0.2·learning_rate; the default is the code's and small,
      its configuration for language models takes 0.01.

    Args:
      learning_rate: a number, or a schedule of the number of finished steps.
      momentum: decay of the momentum, in [0, 1); the plain number 0 keeps no buffer for it.
      b2: decay of the second moment, in [0, 1).
      eps: added under the root.
      weight_decay: decoupled decay of the matrices.
      mask: which matrices to decay: a tree of booleans, or a function that makes one.
      rest: the optimizer of all other leaves; by default Adam with b1 = 0.9, b2 = 0.95,
        eps = 1e-10 at 0.2·learning_rate, the size of the matrices' steps.
      axes: which axes of a leaf are inputs, outputs and stacked layers; see
        `optzoo.primitives.axes`.
      include: leaves to treat as matrices whatever they look like; see `optzoo.matrix_labels`.
      exclude: leaves never to treat as matrices; see `optzoo.matrix_labels`.
      mu_dtype: dtype of the momentum; float32 or wider by default.

    Returns:
      The optimizer. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range.

    References:
      An et al. 2025, arXiv 2503.20762; official code infinity-stars/ASGO.
    """
    return descend_matrices(
        partial(scale_by_dasgo, momentum=momentum, b2=b2, eps=eps, mu_dtype=mu_dtype),
        learning_rate,
        weight_decay=weight_decay,
        mask=mask,
        rest=rest,
        rest_factor=0.2,
        axes=axes,
        include=include,
        exclude=exclude,
    )
