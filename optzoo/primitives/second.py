"""Gradients at a second point, and gradients turned by the loss: they regularise its slope."""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.base import Tree, require, require_params, transformation
from optzoo.primitives.norms import layer_norm, packed

Direction = Literal["unit", "adaptive", "gradient"]


@transformation
def second_gradient(
    tx: optax.GradientTransformation,
    direction: Direction = "unit",
    radius: jax.typing.ArrayLike = 0.05,
    weight: jax.typing.ArrayLike = 1.0,
) -> optax.GradientTransformation:
    """Hands `tx` a mix of the gradient and that of the same batch a little uphill.

    Rule:
      d = g/|g|, or p²·g/|p·g| for "adaptive", or g for "gradient"; norms of the whole tree
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

    Returns:
      The optimizer; it needs the parameters and `value_fn` in `update`.

    Raises:
      ValueError: for an argument out of range, or `update` without parameters or value_fn.

    Source: Foret et al. 2020, arXiv 2010.01412; Kwon et al. 2021, arXiv 2102.11600; Zhao et al.
      2022, arXiv 2202.03599; Karakida et al. 2022, arXiv 2210.02720.
    """
    inner = optax.with_extra_args_support(tx)

    def update(updates, state, params=None, **extra_args):
        require_params(params, "second_gradient")
        value_fn = require(extra_args, "value_fn", "second_gradient")
        moved = jax.tree.map(
            lambda p, d: p + jnp.asarray(radius, p.dtype) * d,
            params,
            _uphill(direction, updates, params),
        )
        # As Optax's rules expect it: the direction of ascent where numbers are complex.
        second = jax.tree.map(jnp.conj, jax.grad(value_fn)(moved))

        def mixed(g, s):
            share = jnp.asarray(weight, g.real.dtype)
            return jnp.where(share == 1, s, (1 - share) * g + share * s)

        return inner.update(jax.tree.map(mixed, updates, second), state, params, **extra_args)

    return optax.GradientTransformationExtraArgs(inner.init, update)


def _uphill(direction: Direction, gradients: Tree, params: Tree) -> Tree:
    if direction == "gradient":
        return gradients
    sizes = jax.tree.map(jnp.abs, params) if direction == "adaptive" else None
    scaled = gradients if sizes is None else jax.tree.map(jnp.multiply, sizes, gradients)
    norm = layer_norm(None, packed(jax.tree.map(partial(layer_norm, None), scaled)))
    unit = jax.tree.map(lambda x: jnp.where(norm > 0, x / jnp.where(norm > 0, norm, 1), 0), scaled)
    return unit if sizes is None else jax.tree.map(jnp.multiply, sizes, unit)


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
