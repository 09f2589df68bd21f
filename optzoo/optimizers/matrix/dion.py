"""Dion: orthonormal updates of low rank, and what they miss kept for later."""

from functools import partial
from typing import Annotated

import optax

from optzoo.primitives.axes import AxesLike
from optzoo.primitives.base import (
    DType,
    Fraction,
    Key,
    LearningRate,
    Mask,
    NonNegative,
    Range,
    transformation,
)
from optzoo.primitives.labels import Selection
from optzoo.primitives.orthogonal import Scale, scale_by_fan
from optzoo.primitives.preconditioning import power_iteration
from optzoo.primitives.routing import descend_matrices
from optzoo.registry import Trait, optimizer


@transformation
def scale_by_dion(
    *,
    rank_fraction: Annotated[float, Range("(0, 1]")] = 0.5,
    rank: Annotated[int, Range("[1, inf)")] | None = None,
    momentum: Fraction = 0.95,
    power_iters: Annotated[int, Range("[1, inf)")] = 1,
    eps: NonNegative = 1e-8,
    longer_first: bool = True,
    key: Key = 0,
    scale: Scale = "rms_to_rms",
    axes: AxesLike = None,
    mu_dtype: DType = None,
) -> optax.GradientTransformation:
    """The direction of `dion` for matrices; see there for the arguments."""
    return optax.chain(
        power_iteration(
            rank,
            rank_fraction=rank_fraction,
            momentum=momentum,
            power_iters=power_iters,
            eps=eps,
            longer_first=longer_first,
            key=key,
            axes=axes,
            mu_dtype=mu_dtype,
        ),
        scale_by_fan(scale, axes=axes),
    )


@optimizer(
    title="Dion: Distributed Orthonormalized Updates",
    authors=("Kwangjun Ahn", "Byron Xu", "Natalie Abreu", "John Langford"),
    year=2025,
    arxiv="2504.05295",
    code="https://github.com/microsoft/dion",
    traits=(Trait.SHAPED,),
)
@transformation
def dion(
    learning_rate: LearningRate = 2e-2,
    *,
    rank_fraction: Annotated[float, Range("(0, 1]")] = 0.5,
    rank: Annotated[int, Range("[1, inf)")] | None = None,
    momentum: Fraction = 0.95,
    power_iters: Annotated[int, Range("[1, inf)")] = 1,
    eps: NonNegative = 1e-8,
    longer_first: bool = True,
    key: Key = 0,
    scale: Scale = "rms_to_rms",
    weight_decay: NonNegative = 0.01,
    mask: Mask = None,
    rest: optax.GradientTransformation | None = None,
    axes: AxesLike = None,
    include: Selection = None,
    exclude: Selection = None,
    mu_dtype: DType = None,
) -> optax.GradientTransformation:
    """Muon's step in a few directions at a time, found by one power iteration each step.

    Hidden matrices and convolution kernels follow this rule; embeddings, output heads, vectors and
    scalars go to Adam. `optzoo.describe(dion(), params)` prints which leaf went where.

    Rule:
      M ← M + g;   P = orthonormal basis of M·Q;   R = Mᵀ·P
      M ← M − (1 − momentum)·P·Rᵀ;   Q ← R, each column divided by its norm + eps
      p ← p − learning_rate·(√(out/in)·P·Qᵀ + weight_decay·p)

    Against Adam:
      A step moves a matrix in rank directions by the same length, and what it has not applied yet
      stays in M for later; it keeps one number a weight and a basis instead of two.

    When to use:
      Large sharded models, where its factors are all that has to be communicated. Not on one
      device for memory or speed: M is as large as the weights.

    Tuning:
      The learning rate carries over between ranks and sizes; a larger rank learns more in a step.
      The authors take 0.01 to 0.02, and rank fractions of 1/4 to 1.

    Args:
      learning_rate: a number, or a schedule of the number of finished steps.
      rank_fraction: rank of a step over the shorter side, rounded up, in (0, 1].
      rank: the rank itself, instead of rank_fraction.
      momentum: how much of what is applied stays in M, in [0, 1].
      power_iters: how often P and R are found, each time from the last R.
      eps: added to the norms of Q's columns.
      longer_first: P has as many rows as the longer side of the matrix (authors' reference);
        False: as there are outputs (their simple form).
      key: a `jax.random` key, or an integer seed, of the normal start of Q.
      scale: the factor of the matrix shape; see `optzoo.primitives.scale_by_fan`.
      weight_decay: decoupled decay of the matrices.
      mask: which matrices to decay: a tree of booleans, or a function that makes one.
      rest: the optimizer of all other leaves; by default Adam with b1 = 0.9, b2 = 0.95,
        eps = 1e-10 at 0.015·learning_rate, as in `muon`; the authors take learning_rate itself.
      axes: which axes of a leaf are inputs, outputs and stacked layers; see
        `optzoo.primitives.axes`.
      include: leaves to treat as matrices whatever they look like; see `optzoo.matrix_labels`.
      exclude: leaves never to treat as matrices; see `optzoo.matrix_labels`.
      mu_dtype: dtype of M; float32 or wider by default.

    Returns:
      The optimizer. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range.

    References:
      Ahn et al. 2025, arXiv 2504.05295; official code microsoft/dion, which refuses convolutions:
      here they are flattened. A basis by QR, as in its reference.
    """
    direction = partial(
        scale_by_dion,
        rank_fraction=rank_fraction,
        rank=rank,
        momentum=momentum,
        power_iters=power_iters,
        eps=eps,
        longer_first=longer_first,
        key=key,
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
