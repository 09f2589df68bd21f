"""Matrices to one optimizer, everything else to another."""

from collections.abc import Callable

import jax
import optax

from optzoo.primitives.axes import AxesLike, flax_axes
from optzoo.primitives.base import LearningRate, Mask, NonNegative, Tree, at
from optzoo.primitives.blocks import in_blocks
from optzoo.primitives.decay import add_decayed_weights
from optzoo.primitives.labels import Selection, routes, warn_of_doubts
from optzoo.primitives.moments import adam


def split_matrices(
    matrices: optax.GradientTransformation | Callable[[AxesLike], optax.GradientTransformation],
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
        axes reaches it by this argument only, and each block of a fused kernel is a leaf to it.
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
        made = in_blocks(matrices, lambda path, _: known[path]) if callable(matrices) else matrices
        labels = jax.tree.unflatten(jax.tree.structure(tree), [route.label for route in found])
        return optax.partition({"matrix": made, "other": rest}, lambda _: labels)

    def init(params):
        return partition(params).init(params)

    def update(updates, state, params=None, **extra_args):
        return partition(updates).update(updates, state, params, **extra_args)

    return optax.GradientTransformationExtraArgs(init, update)


def matrices_or_adam(
    matrices: Callable[[AxesLike], optax.GradientTransformation],
    rest: optax.GradientTransformation | None,
    learning_rate: LearningRate,
    *,
    axes: AxesLike = None,
    include: Selection = None,
    exclude: Selection = None,
) -> optax.GradientTransformation:
    """`split_matrices` with the Adam of Muon's authors, b2 = 0.95, where `rest` is None.

    Args:
      matrices: makes the optimizer of the matrices from their axes.
      rest: the optimizer of the others; None for Adam.
      learning_rate: of that Adam.
      axes, include, exclude: as for `matrix_labels`.

    Returns:
      The combined optimizer.
    """
    if rest is None:
        rest = optax.chain(adam(b2=0.95, eps=1e-10), optax.scale_by_learning_rate(learning_rate))
    matrices(flax_axes)  # Arguments are checked where they are given.

    return split_matrices(matrices, rest, axes=axes, include=include, exclude=exclude)


def descend_matrices(
    direction: Callable[..., optax.GradientTransformation],
    learning_rate: LearningRate,
    *,
    weight_decay: NonNegative,
    mask: Mask,
    rest: optax.GradientTransformation | None,
    rest_factor: float,
    axes: AxesLike = None,
    include: Selection = None,
    exclude: Selection = None,
) -> optax.GradientTransformation:
    """Matrices along `direction` with decoupled decay, all other leaves by `rest` or Adam.

    Args:
      direction: direction(axes=…) makes the steps of matrices.
      learning_rate: a number, or a schedule of the number of finished steps.
      weight_decay: decoupled decay of the matrices.
      mask: which matrices to decay.
      rest: the optimizer of the others; None for Adam at rest_factor·learning_rate.
      rest_factor: see `rest`.
      axes, include, exclude: as for `matrix_labels`.

    Returns:
      The combined optimizer.
    """

    def matrices(known):
        return optax.chain(
            direction(axes=known),
            add_decayed_weights(weight_decay, mask),
            optax.scale_by_learning_rate(learning_rate),
        )

    return matrices_or_adam(
        matrices,
        rest,
        scaled(learning_rate, rest_factor),
        axes=axes,
        include=include,
        exclude=exclude,
    )


def scaled(learning_rate: LearningRate, factor: float) -> LearningRate:
    """factor·learning_rate, for a number as for a schedule."""
    if callable(learning_rate):
        return lambda count: factor * at(learning_rate, count)
    return factor * learning_rate
