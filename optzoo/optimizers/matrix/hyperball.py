"""Hyperball: matrices of constant norm, and steps of a constant angle."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.axes import AxesLike, map_with_axes
from optzoo.primitives.base import LearningRate, Tree, at, require_params, transformation
from optzoo.primitives.labels import Selection, matrix_labels
from optzoo.primitives.norms import layer_energy, root
from optzoo.registry import Trait, wrapper


class HyperballState(NamedTuple):
    """The wrapped optimizer, the finished steps, and the norm that each matrix began with."""

    inner: optax.OptState
    steps: jax.Array
    radius: Tree


@wrapper(
    title="Fantastic Pretraining Optimizers and Where to Find Them II: Hyperball Optimization",
    authors=("Kaiyue Wen", "Xingyu Dang", "Kaifeng Lyu", "Tengyu Ma", "Percy Liang"),
    year=2026,
    arxiv="2606.16899",
    code=None,
    traits=(Trait.SHAPED,),
)
@transformation
def hyperball(
    tx: optax.GradientTransformation,
    learning_rate: LearningRate,
    *,
    axes: AxesLike = None,
    include: Selection = None,
    exclude: Selection = None,
) -> optax.GradientTransformation:
    """Any optimizer on spheres: matrices keep their first norm and turn by a set angle each step.

    Rule:
      R = the norm that a matrix starts with;   u = the update of tx
      q = p + learning_rate·R·u/|u|;   p ← R·q/|q|

    When to use:
      Instead of weight decay in networks with normalisation layers, around Adam or Muon. Not where
      the size of weights carries meaning, nor together with decay.

    Args:
      tx: the optimizer; of its updates of matrices only the direction counts.
      learning_rate: length of a step relative to the weights: a number, or a schedule of the number
        of finished steps.
      axes: which axes of a leaf are inputs, outputs and stacked layers; see
        `optzoo.primitives.axes`. Every matrix of a stack has a sphere of its own.
      include: leaves to hold whatever they look like; see `optzoo.matrix_labels`.
      exclude: leaves never to hold; these get the update of tx, as all that is no hidden matrix
        and a matrix that begins at zero.

    Returns:
      A transformation with `HyperballState`. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range, or without parameters.

    References:
      Wen et al. 2026, arXiv 2606.16899, by its published formula.
    """
    inner = optax.with_extra_args_support(tx)

    def labels(tree):
        return matrix_labels(tree, axes=axes, include=include, exclude=exclude)

    def init(params):
        def norm(spec, p, label):
            return root(layer_energy(spec, p)) if label == "matrix" else jnp.zeros([], p.dtype)

        radius = map_with_axes(norm, axes, params, labels(params))
        return HyperballState(inner.init(params), jnp.zeros([], jnp.int32), radius)

    def update(updates, state, params=None, **extra_args):
        require_params(params, "hyperball")
        moves, inner_state = inner.update(updates, state.inner, params, **extra_args)
        rate = at(learning_rate, state.steps)

        def unit(spec, x):
            norm = root(layer_energy(spec, x))
            return x / jnp.where(norm == 0, 1, norm)

        def turned(spec, u, p, radius, label):
            if label != "matrix":
                return u
            reached = p + (rate * radius).astype(p.dtype) * unit(spec, u)
            return jnp.where(radius > 0, radius * unit(spec, reached) - p, u)

        out = map_with_axes(turned, axes, moves, params, state.radius, labels(params))
        return out, HyperballState(inner_state, optax.safe_increment(state.steps), state.radius)

    return optax.GradientTransformationExtraArgs(init, update)
