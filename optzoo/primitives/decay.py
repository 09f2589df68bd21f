"""Pulling weights back: decays that need more than `optax.add_decayed_weights` knows."""

import jax
import jax.numpy as jnp

from optzoo.primitives.axes import AxesLike, map_with_axes
from optzoo.primitives.base import Tree
from optzoo.primitives.norms import size, sum_of_squares, unit_norm


def stable_decay(params: Tree, strength: jax.typing.ArrayLike, root: Tree) -> Tree:
    """Decay relative to the size of the gradients' second moment over the whole tree.

    Rule:
      p·(1 − strength/√mean(r²)), with r the root of the second moment

    Args:
      params: the parameters.
      strength: learning rate times weight decay, a scalar.
      root: tree of √v/(bias correction), shaped like the parameters.

    Returns:
      The decayed parameters.

    Source: Xie et al. 2020, arXiv 2011.11152, in the form of lessw2020/Ranger21.
    """
    mean = jnp.sqrt(sum_of_squares(root) / max(size(root), 1))
    factor = 1 - jnp.where(mean > 0, strength / jnp.where(mean > 0, mean, 1), 0)
    return jax.tree.map(lambda p: p * factor.astype(p.dtype), params)


def pull_norms(
    params: Tree, strength: jax.typing.ArrayLike, *, eps: jax.typing.ArrayLike, axes: AxesLike
) -> Tree:
    """Pulls the norm of what feeds each output towards 1 (norm loss).

    Rule:
      p·(1 − 2·strength·(1 − 1/(|p| + eps))), |p| a unit

    Args:
      params: the parameters.
      strength: learning rate times the loss's factor, a scalar.
      eps: keeps a zero unit finite.
      axes: what a unit is; see `optzoo.primitives.axes`.

    Returns:
      The parameters after the step.

    Source: Georgiou et al. 2021, arXiv 2103.06583, in the form of lessw2020/Ranger21.
    """

    def pulled(spec, p):
        pull = 1 - 1 / (unit_norm(spec, p) + eps)
        return p * (1 - jnp.asarray(2 * strength, p.dtype) * pull)

    return map_with_axes(pulled, axes, params)
