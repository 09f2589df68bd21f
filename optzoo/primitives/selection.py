"""Updates of the few entries or layers that matter most: greedy block coordinate descent."""

from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.axes import AxesLike, map_with_axes
from optzoo.primitives.base import Range, Tree, common_dtype, real, transformation
from optzoo.primitives.leafwise import leafwise
from optzoo.primitives.norms import layer_norm, layer_sum

Share = Annotated[jax.typing.ArrayLike, Range("(0, 1]")]


@transformation
def top_entries(
    share: Share,
    *,
    block: Literal["entry", "layer"] = "entry",
    order: Literal[1, 2] = 2,
    scale: Any = 1.0,
    axes: AxesLike = None,
) -> optax.GradientTransformation:
    """Keeps the largest entries of the whole update, or the layers where it is largest.

    Rule:
      s = scale·|u| of each entry, or of each layer with the norm of that order
      u where s is among the share·n largest of all n, rounded, at least one; 0 elsewhere

    Entries as large as the smallest of those are kept with it. It finds that one in 31 passes over
    the numbers s (63 in 64-bit mode) without sorting or gathering them, so each device of a mesh
    reads what it holds.

    Args:
      share: the part of all entries or layers to keep, in (0, 1].
      block: what is chosen: "entry", or "layer" for whole layers.
      order: of a layer's norm: 2 as in the paper, 1 as in the authors' code.
      scale: factor on the sizes that are compared: a number, or a tree of numbers or arrays like
        the parameters or a prefix of it. 1/√L with each entry's or layer's curvature L is the
        paper's choice where these are known.
      axes: where a leaf stacks several layers, a spec with batch axes makes each a layer.

    Returns:
      A stateless transformation.

    Raises:
      ValueError: for an argument out of range, or from `update` where a tree of scales has none
        for a leaf.

    Source: Nutini, Laradji and Schmidt 2017, arXiv 1712.08859; official code
    IssamLaradji/BlockCoordinateDescent.
    """

    def size(spec, u, factor):
        size = jnp.abs(u)
        if block == "layer":
            size = layer_norm(spec, u) if order == 2 else layer_sum(spec, size)
        return size * jnp.asarray(factor, size.dtype)

    def selected(updates, _):
        sizes = map_with_axes(size, axes, updates, leafwise("scale", scale, updates))
        ranks = _ranks(sizes)
        least = _largest(share, jax.tree.leaves(ranks))
        return jax.tree.map(lambda u, r: jnp.where(r >= least, u, 0), updates, ranks)

    return optax.stateless(selected)


def _ranks(sizes: Tree) -> Tree:
    """Whole numbers in the order of what is not negative: its bits. NaN is above all others."""
    dtype = jnp.finfo(common_dtype(sizes)).dtype
    bits = jnp.dtype(f"int{8 * dtype.itemsize}")

    def rank(size):
        return jax.lax.bitcast_convert_type(size.astype(dtype), bits) & jnp.iinfo(bits).max

    return jax.tree.map(rank, sizes)


def _largest(share: jax.typing.ArrayLike, ranks: list[jax.Array]) -> jax.Array:
    """The share·n-th largest of n whole numbers that are not negative, bit by bit from the top."""
    dtype = ranks[0].dtype
    count = jnp.maximum(jnp.round(share * sum(rank.size for rank in ranks)), 1)

    def settle(done, least):
        raised = least | jnp.asarray(1, dtype) << (jnp.iinfo(dtype).bits - 2 - done).astype(dtype)
        # A tree may hold more numbers than an int32 counts.
        reached = sum(real(jnp.sum(rank >= raised)) for rank in ranks)
        return jnp.where(reached >= count, raised, least)

    return jax.lax.fori_loop(0, jnp.iinfo(dtype).bits - 1, settle, jnp.zeros([], dtype))
