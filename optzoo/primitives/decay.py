"""Pulling weights back: weight decay, and decays that need to know more."""

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.axes import AxesLike, map_with_axes
from optzoo.primitives.base import (
    LearningRate,
    Mask,
    NonNegative,
    Tree,
    at,
    is_zero,
    require_params,
    transformation,
)
from optzoo.primitives.combine import select
from optzoo.primitives.norms import size, unit_norm


@transformation
def add_decayed_weights(
    weight_decay: NonNegative, mask: Mask = None
) -> optax.GradientTransformation:
    """Adds the decay of the weights to the updates; no argument changes the state's structure.

    Rule:
      u ← u + weight_decay·p where the mask is True

    `optax.add_decayed_weights` with a mask has another state than without.

    Args:
      weight_decay: the decay, before the learning rate; the plain number 0 costs nothing.
      mask: which leaves to decay: a tree of booleans, or a function that makes one.

    Returns:
      A stateless transformation that needs the parameters.

    Raises:
      ValueError: for an argument out of range, or without parameters.
    """

    def update(updates, params):
        # Without a decay, too: whether it is 0 must not decide how `update` is called.
        require_params(params, "weight decay")
        if is_zero(weight_decay):
            return updates
        decayed = jax.tree.map(lambda u, p: u + weight_decay * p, updates, params)
        return select(mask, decayed, updates)

    return optax.stateless(update)


@transformation
def rated_decay(
    learning_rate: LearningRate,
    weight_decay: NonNegative,
    mask: Mask = None,
    *,
    moved: bool = False,
    start: NonNegative = 0,
) -> optax.GradientTransformation:
    """Decoupled decay behind a finished step, which has its learning rate already.

    Rule:
      u ← u − learning_rate·weight_decay·p where the mask is True
      moved: of the weights that the step makes, u ← u − learning_rate·weight_decay·(p + u)

    Args:
      learning_rate: a number, or a schedule of the number of finished steps.
      weight_decay: decoupled decay; the plain number 0 costs nothing.
      mask: which leaves to decay: a tree of booleans, or a function that makes one.
      moved: decay the weights after the step has moved them, not before.
      start: how many steps go by without a decay.

    Returns:
      A transformation whose state is the step count. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range, or without parameters.
    """

    def update(updates, count, params=None):
        require_params(params, "weight decay")
        following = optax.safe_increment(count)
        if is_zero(weight_decay):
            return updates, following
        now = jnp.where(count < start, 0, at(learning_rate, count) * jnp.asarray(weight_decay))
        strength = now.astype(float)

        def decayed(u, p):
            return u - strength.astype(u.dtype) * (p + u if moved else p)

        return select(mask, jax.tree.map(decayed, updates, params), updates), following

    return optax.GradientTransformation(lambda _: jnp.zeros([], jnp.int32), update)


def stable_decay(strength: jax.typing.ArrayLike, second: Tree) -> jax.Array:
    """The factor of a decay relative to the size of the second moment over the whole tree.

    Rule:
      1 − strength/√mean(second)

    Args:
      strength: learning rate times weight decay, a scalar.
      second: tree of v/(bias correction), shaped like the parameters.

    Returns:
      What to multiply every parameter by, a scalar.

    Source: Xie et al. 2020, arXiv 2011.11152, in the form of lessw2020/Ranger21.
    """
    sums = [jnp.sum(leaf) for leaf in jax.tree.leaves(second)]
    mean = jnp.sqrt(sum(sums, jnp.zeros([])) / max(size(second), 1))
    return 1 - jnp.where(mean > 0, strength / jnp.where(mean > 0, mean, 1), 0)


def pull_norms(
    params: Tree,
    strength: jax.typing.ArrayLike,
    *,
    eps: jax.typing.ArrayLike,
    axes: AxesLike,
    scale: jax.typing.ArrayLike = 1.0,
) -> Tree:
    """Pulls the norm of what feeds each output towards 1 (norm loss).

    Rule:
      q = scale·p;   q·(1 − 2·strength·(1 − 1/(|q| + eps))), |q| a unit

    Args:
      params: the parameters.
      strength: learning rate times the loss's factor, a scalar.
      eps: keeps a zero unit finite.
      axes: what a unit is; see `optzoo.primitives.axes`.
      scale: a decay that comes before, a scalar: |q| follows from |p| without another pass.

    Returns:
      The parameters after the step.

    Source: Georgiou et al. 2021, arXiv 2103.06583, in the form of lessw2020/Ranger21.
    """

    def pulled(spec, p):
        first = jnp.asarray(scale, p.dtype)
        pull = 1 - 1 / (jnp.abs(first) * unit_norm(spec, p) + eps)
        return p * (first * (1 - jnp.asarray(2 * strength, p.dtype) * pull))

    return map_with_axes(pulled, axes, params)


@transformation
def cautious_decay(weight_decay: NonNegative, mask: Mask = None) -> optax.GradientTransformation:
    """Decoupled weight decay that spares the weights which the step makes larger.

    In a chain it comes after the direction and before the learning rate, for any rule.

    Rule:
      u ← u + weight_decay·p where u·p ≥ 0

    Args:
      weight_decay: the decay, before the learning rate.
      mask: which leaves to decay: a tree of booleans, or a function that makes one.

    Returns:
      A transformation that needs the parameters.

    Raises:
      ValueError: for an argument out of range, or without parameters.

    Source: Chen et al. 2025, arXiv 2510.12402.
    """

    def update(updates, params):
        require_params(params, "cautious_decay")
        # Signs, because a product of small numbers may be zero.
        return jax.tree.map(
            lambda u, p: u + jnp.where(jnp.sign(u) * jnp.sign(p) >= 0, weight_decay * p, 0),
            updates,
            params,
        )

    decay = optax.stateless(update)
    return decay if mask is None else optax.masked(decay, mask)
