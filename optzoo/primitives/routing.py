"""Matrices to one optimizer, everything else to another."""

from collections.abc import Callable

import jax
import optax

from optzoo.primitives.axes import AxesLike, AxesOf
from optzoo.primitives.base import LearningRate, Tree, at
from optzoo.primitives.labels import Selection, routes, warn_of_doubts


def split_matrices(
    matrices: optax.GradientTransformation | Callable[[AxesOf], optax.GradientTransformation],
    rest: optax.GradientTransformation,
    *,
    axes: AxesLike = None,
    include: Selection = None,
    exclude: Selection = None,
) -> optax.GradientTransformation:
    """`matrices` for the leaves that `matrix_labels` calls matrices, `rest` for the others.

    Args:
      matrices: the optimizer of the matrices, or a function that makes it from their axes. The
        others are hidden from it, norms and biases among them: what these tell of the matrices'
        axes reaches it by this argument only.
      rest: the optimizer of the others.
      axes, include, exclude: as for `matrix_labels`.

    Returns:
      The combined optimizer, an `optax.partition`.

    Warns:
      RoutingWarning: as `matrix_labels`.
    """

    def partition(tree: Tree) -> optax.GradientTransformationExtraArgs:
        found = routes(tree, axes, include, exclude)
        warn_of_doubts(found)
        known = {route.path: route.axes for route in found}
        made = matrices(lambda path, leaf: known[path]) if callable(matrices) else matrices
        labels = jax.tree.unflatten(jax.tree.structure(tree), [route.label for route in found])
        return optax.partition({"matrix": made, "other": rest}, lambda _: labels)

    def init(params):
        return partition(params).init(params)

    def update(updates, state, params=None, **extra_args):
        return partition(updates).update(updates, state, params, **extra_args)

    return optax.GradientTransformationExtraArgs(init, update)


def scaled(learning_rate: LearningRate, factor: float) -> LearningRate:
    """factor·learning_rate, for a number as for a schedule."""
    if callable(learning_rate):
        return lambda count: factor * at(learning_rate, count)
    return factor * learning_rate
