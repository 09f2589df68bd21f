"""Matrices to one optimizer, everything else to another."""

from functools import partial

import optax

from optzoo.primitives.axes import AxesLike
from optzoo.primitives.base import LearningRate, at
from optzoo.primitives.labels import Selection, matrix_labels


def split_matrices(
    matrices: optax.GradientTransformation,
    rest: optax.GradientTransformation,
    *,
    axes: AxesLike = None,
    include: Selection = None,
    exclude: Selection = None,
) -> optax.GradientTransformation:
    """`matrices` for the leaves that `matrix_labels` calls matrices, `rest` for the others.

    Args:
      matrices: the optimizer of the matrices.
      rest: the optimizer of the others.
      axes, include, exclude: as for `matrix_labels`.

    Returns:
      The combined optimizer, an `optax.partition`.
    """
    labels = partial(matrix_labels, axes=axes, include=include, exclude=exclude)
    return optax.partition({"matrix": matrices, "other": rest}, labels)


def scaled(learning_rate: LearningRate, factor: float) -> LearningRate:
    """factor·learning_rate, for a number as for a schedule."""
    if callable(learning_rate):
        return lambda count: factor * at(learning_rate, count)
    return factor * learning_rate
