"""Gradients at a second point, and gradients turned by the loss: they regularise its slope."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.base import (
    Mask,
    NonNegative,
    Tree,
    require,
    require_params,
    transformation,
)
from optzoo.primitives.combine import select
from optzoo.primitives.evaluation import beside, eval_params, where_kept
from optzoo.primitives.norms import normalized

Direction = Literal["unit", "adaptive", "gradient"]


@transformation
def second_gradient(
    tx: optax.GradientTransformation,
    direction: Direction = "unit",
    radius: jax.typing.ArrayLike = 0.05,
    weight: jax.typing.ArrayLike = 1.0,
    *,
    eta: NonNegative = 0.0,
    mask: Mask = None,
) -> optax.GradientTransformation:
    """Hands `tx` a mix of the gradient and that of the same batch a little uphill.

    Rule:
      d = g/|g|, or T²·g/|T·g| for "adaptive", or g for "gradient"; norms of the whole tree
      T = |p| + eta where the mask is True, 1 elsewhere
      g ← (1 − weight)·g + weight·∇L(p + radius·d)

    It costs a second forward and backward pass. Under pjit the norm is that of the whole batch's
    gradient, not of each device's share. Weight 1 is SAM, with "adaptive" ASAM; other weights
    penalise the gradient's norm by weight·radius or, for "gradient", half its square.

    Args:
      tx: the optimizer that gets the mix; its decay acts at p.
      direction: "unit", "adaptive" or "gradient".
      radius: how far uphill, in units of d; negative for the descent form, in which the penalty
        keeps its sign if the weight is negative, too.
      weight: the second gradient's share.
      eta: the size that a weight of zero has, for "adaptive".
      mask: where "adaptive" scales by size: a tree of booleans, or a function that makes one; None
        for all.

    Returns:
      The optimizer; it needs the parameters and `value_fn` in `update`. Parameters narrower than
      float32 reach value_fn as float32, for they would round much of the way uphill away.

    Raises:
      ValueError: for an argument out of range, or `update` without parameters or value_fn.

    Source: Foret et al. 2020, arXiv 2010.01412; Kwon et al. 2021, arXiv 2102.11600; Zhao et al.
      2022, arXiv 2202.03599; Karakida et al. 2022, arXiv 2210.02720.
    """
    inner = optax.with_extra_args_support(tx)

    def update(updates, state, params=None, **extra_args):
        require_params(params, "second_gradient")
        value_fn = require(extra_args, "value_fn", "second_gradient")
        climb = _scaled(radius, _uphill(direction, updates, params, eta, mask))
        # As Optax's rules expect it: the direction of ascent where numbers are complex.
        second = jax.tree.map(jnp.conj, jax.grad(value_fn)(optax.tree.add(params, climb)))
        return inner.update(_mixed(weight, updates, second), state, params, **extra_args)

    return optax.GradientTransformationExtraArgs(inner.init, update)


class ClimbState(NamedTuple):
    """A wrapped optimizer and, while the parameters are uphill, where they stood before and g."""

    inner: optax.OptState
    uphill: jax.Array
    params: Tree
    gradient: Tree

    def eval_params(self, params: Tree) -> Tree:
        def stood(before, p):
            return jnp.where(beside(self.uphill, p), before, p.astype(before.dtype))

        return eval_params(self.inner, where_kept(stood, self.params, params))


@transformation
def ascend_then_descend(
    tx: optax.GradientTransformation,
    direction: Direction = "unit",
    radius: jax.typing.ArrayLike = 0.05,
    weight: jax.typing.ArrayLike = 1.0,
    *,
    eta: NonNegative = 0.0,
    mask: Mask = None,
) -> optax.GradientTransformation:
    """`second_gradient` in two ordinary updates, for loops that cannot hand over value_fn.

    The first, third, … update goes uphill, by radius·d; the next one gets the gradient there, goes
    back and takes the step of `tx`. Give both the same batch. What counts updates, such as
    `optax.MultiSteps` around it, sees two for each step.

    Args:
      tx: the optimizer that gets the mix; its decay acts at p.
      direction, radius, weight, eta, mask: as for `second_gradient`.

    Returns:
      A transformation with `ClimbState`, which keeps two numbers a weight; it needs the parameters.
      `eval_params` gives the parameters before the ascent where the last update was one.

    Raises:
      ValueError: for an argument out of range, or `update` without parameters.

    Source: as for `second_gradient`; the form is that of `optax.contrib.sam`.
    """
    inner = optax.with_extra_args_support(tx)

    def init(params):
        zeros = [optax.tree.zeros_like(params) for _ in range(2)]
        return ClimbState(inner.init(params), jnp.asarray(False), *zeros)

    def update(updates, state, params=None, **extra_args):
        require_params(params, "ascend_then_descend")

        def ascend():
            climb = _scaled(radius, _uphill(direction, updates, params, eta, mask))
            return climb, ClimbState(state.inner, jnp.asarray(True), params, updates)

        def descend():
            mix = _mixed(weight, state.gradient, updates)
            step, following = inner.update(mix, state.inner, state.params, **extra_args)
            back = optax.tree.sub(state.params, params)
            done = state._replace(inner=following, uphill=jnp.asarray(False))
            return optax.tree.add(back, step), done

        return jax.lax.cond(state.uphill, descend, ascend)

    return optax.GradientTransformationExtraArgs(init, update)


def _uphill(
    direction: Direction, gradients: Tree, params: Tree, eta: jax.typing.ArrayLike, mask: Mask
) -> Tree:
    if direction == "gradient":
        return gradients
    sizes = None
    if direction == "adaptive":
        grown = jax.tree.map(lambda p: jnp.abs(p) + jnp.asarray(eta, p.real.dtype), params)
        sizes = select(mask, grown, jax.tree.map(jnp.ones_like, grown))
    scaled = gradients if sizes is None else jax.tree.map(jnp.multiply, sizes, gradients)
    unit = normalized(scaled)
    return unit if sizes is None else jax.tree.map(jnp.multiply, sizes, unit)


def _scaled(radius: jax.typing.ArrayLike, direction: Tree) -> Tree:
    return jax.tree.map(lambda d: jnp.asarray(radius, d.real.dtype) * d, direction)


def _mixed(weight: jax.typing.ArrayLike, first: Tree, second: Tree) -> Tree:
    def mixed(g, s):
        share = jnp.asarray(weight, g.real.dtype)
        return jnp.where(share == 1, s, (1 - share) * g + share * s)

    return jax.tree.map(mixed, first, second)


@transformation
def flood(level: jax.typing.ArrayLike) -> optax.GradientTransformationExtraArgs:
    """Climbs where the loss is below a level (flooding), to stand before a rule in a chain.

    Rule:
      g ← sign(L − level)·g

    Args:
      level: the training loss to stay at.

    Returns:
      A stateless transformation that needs `value` in `update`.

    Raises:
      ValueError: for `update` without value.

    Source: Ishida et al. 2020, arXiv 2002.08709.
    """

    def update(updates, state, params=None, **extra_args):
        sign = jnp.sign(require(extra_args, "value", "flood") - level)
        return jax.tree.map(lambda g: sign.astype(g.dtype) * g, updates), state

    return optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)
