"""Steps in proportion to the weights they move: trust ratios, and rotations of whole layers."""

from typing import Literal

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.axes import Axes, AxesLike, map_with_axes
from optzoo.primitives.base import (
    LearningRate,
    Mask,
    NonNegative,
    NonNegativeOrSchedule,
    Positive,
    Tree,
    at,
    is_zero,
    require_params,
    transformation,
    wide,
)
from optzoo.primitives.combine import select
from optzoo.primitives.directions import remove_parallel
from optzoo.primitives.labels import kernel_mask
from optzoo.primitives.norms import layer_energy, layer_norm, root

Denominator = Literal["sum", "parts", "gradient"]


@transformation
def scale_by_trust_ratio(
    coefficient: NonNegativeOrSchedule = 1.0,
    *,
    eps: NonNegative = 0.0,
    weight_decay: NonNegative = 0.0,
    denominator: Denominator = "sum",
    norm_cap: Positive | None = None,
    update_cap: Positive | None = None,
    clip: Positive | None = None,
    mask: Mask = None,
    axes: AxesLike = None,
) -> optax.GradientTransformation:
    """Makes each layer's step proportional to the norm of its weights (LARS, LAMB).

    Rule, for each layer:
      d = u + weight_decay·p;   n = |d|
      n = |u| + weight_decay·|p| for denominator "parts", |u| for "gradient"
      returns d·min(clip, coefficient·min(|p|, norm_cap)/(min(n, update_cap) + eps))
      returns d where |p|, or the norm of what is measured, is 0

    Args:
      coefficient: the part of its weights that a step may change: a number, or a schedule of the
        number of finished steps.
      eps: added to the denominator.
      weight_decay: added to the update before it is scaled.
      denominator: what the weights are measured against.
      norm_cap: the largest |p| that counts; None for no cap.
      update_cap: the largest n that counts; None for no cap.
      clip: the largest ratio; None for no limit.
      mask: which leaves to decay and to scale: a tree of booleans, or a function that makes one;
        None for all but vectors and scalars, True for all. The others keep their update as it is,
        which is often far longer than a scaled one.
      axes: where a leaf stacks several layers, a spec with batch axes gives each its own ratio.

    Returns:
      A transformation whose state is the step count. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range, or without parameters.

    Source: You et al. 2017, arXiv 1708.03888, and 2019, arXiv 1904.00962.
    """

    def update(updates, count, params=None):
        require_params(params, "a trust ratio")
        strength = at(coefficient, count)

        def scaled(spec, u, p):
            step = u if is_zero(weight_decay) else u + weight_decay * p
            measured = root(layer_energy(spec, step if denominator == "sum" else u))
            size = root(layer_energy(spec, p))
            adapted = (size > 0) & (measured > 0)
            whole = measured + weight_decay * size if denominator == "parts" else measured
            if update_cap is not None:
                whole = jnp.minimum(whole, update_cap)
            counted = size if norm_cap is None else jnp.minimum(size, norm_cap)
            ratio = jnp.asarray(strength, size.dtype) * counted / jnp.where(adapted, whole + eps, 1)
            if clip is not None:
                ratio = jnp.minimum(ratio, clip)
            return jnp.where(adapted, ratio, 1) * step

        out = map_with_axes(scaled, axes, updates, params)
        return _chosen(mask, out, updates), optax.safe_increment(count)

    return optax.GradientTransformation(lambda _: jnp.zeros([], jnp.int32), update)


@transformation
def rotate(
    learning_rate: LearningRate,
    *,
    threshold: NonNegative = 0.0,
    freeze: bool = True,
    mask: Mask = None,
    axes: AxesLike = None,
) -> optax.GradientTransformation:
    """Turns each layer by a set angle towards where its update leads; it comes last in a chain.

    Rule, for each layer:
      d = u − ⟨u, p⟩/⟨p, p⟩·p;   d ← |p|·d/|d|, or 0 where |d| ≤ threshold or d is rounding
      q = p + learning_rate·d;   u ← |p|·q/|q| − p

    Args:
      learning_rate: tangent of the angle of a step: a number, or a schedule of the number of
        finished steps.
      threshold: the longest tangential part that does not count as a direction.
      freeze: hold the leaves that the mask leaves out; False: they get the update as it comes.
      mask: which leaves to turn: a tree of booleans, or a function that makes one; None for all
        but vectors and scalars, True for all.
      axes: where a leaf stacks several layers, a spec with batch axes turns each alone.

    Returns:
      A transformation whose state is the step count. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range, or without parameters.

    Source: Carbonnelle and De Vleeschouwer 2018, arXiv 1806.01603.
    """
    tangent = remove_parallel(rescale=False, axes=axes)

    def update(updates, count, params=None):
        require_params(params, "rotate")
        across, _ = tangent.update(updates, optax.EmptyState(), params)
        rate = at(learning_rate, count)

        # q is orthogonal to d, so |q| = |p|·√(1 + rate²); its difference from p cancels no digits.
        def turned(spec, d, p):
            slope = jnp.asarray(rate, p.real.dtype)
            stretch = jnp.sqrt(1 + jnp.square(slope))
            size, length = layer_norm(spec, d), layer_norm(spec, p)
            some = size > threshold
            along = jnp.where(some, slope * length / jnp.where(some, size, 1), 0) / stretch
            back = jnp.where(some, jnp.square(slope), 0) / (stretch * (1 + stretch))
            return along * d - back * p

        out = map_with_axes(turned, axes, across, params)
        others = optax.tree.zeros_like(updates) if freeze else updates
        return _chosen(mask, out, others), optax.safe_increment(count)

    return optax.GradientTransformation(lambda _: jnp.zeros([], jnp.int32), update)


def _chosen(mask: Mask, chosen: Tree, other: Tree) -> Tree:
    return select(kernel_mask if mask is None else mask, chosen, other)


def layer_rotation(start: Tree, params: Tree, *, axes: AxesLike = None) -> Tree:
    """How far each layer has turned since a run began: the cosine distance, in [0, 2].

    Rule:
      1 − ⟨p₀, p⟩/(|p₀|·|p|);   ½ where one of the norms is 0, 0 where both are

    Layers that all get near 1 tend to generalise best, by the paper: compare runs by it, and rates.

    Args:
      start: the parameters at the beginning of the run.
      params: the present ones.
      axes: where a leaf stacks several layers, a spec with batch axes measures each alone.

    Returns:
      A tree of one number a leaf, or one a stacked layer.

    Source: Carbonnelle and De Vleeschouwer 2018, arXiv 1806.01603.
    """

    def distance(spec: Axes | None, before: jax.Array, now: jax.Array) -> jax.Array:
        units = []
        for x in (before, now):
            size = layer_norm(spec, x)
            units.append(x / jnp.where(size > 0, size, 1))
        # |a − b|²/2 of unit vectors, because 1 − cos cancels all digits of a small angle.
        return layer_energy(spec, units[0] - units[1]) / 2

    return map_with_axes(distance, axes, wide(start), wide(params))
