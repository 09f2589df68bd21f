"""Arguments that may differ from leaf to leaf."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import tree_map_with_path

from optzoo.primitives.axes import by_path
from optzoo.primitives.base import Tree, transformation
from optzoo.primitives.evidence import ancestry, path_name


def leafwise(argument: str, value: Any, tree: Tree) -> Tree:
    """The value of an argument for each leaf of a tree.

    Args:
      argument: its name, for the error.
      value: one for all leaves, or a tree of values: the parameters', a prefix of it, or part of
        one, where the key "" stands for the rest: {"": 1.0, "head": 3.0}.
      tree: the leaves.

    Returns:
      The tree of values.

    Raises:
      ValueError: where a tree of values has none for a leaf; the message gives its path.
    """
    if jax.tree_util.all_leaves([value]):
        return jax.tree.map(lambda _: value, tree)
    entries = by_path(value)

    def find(path, _):
        for owner in ancestry(path_name(path)):
            if owner in entries:
                return entries[owner]
        raise ValueError(f'{argument}: no entry for {path_name(path)!r}; "" stands for the rest')

    return tree_map_with_path(find, tree)


@transformation
def scale_leaves(factor: Any) -> optax.GradientTransformation:
    """Multiplies each leaf by its own factor.

    Args:
      factor: a number, a tree of numbers like the parameters or a prefix of it; the key ""
        stands for all that the tree does not name.

    Returns:
      A stateless transformation.

    Raises:
      ValueError: from `update`, where a tree of factors has none for a leaf.
    """

    def scaled(updates, _):
        factors = leafwise("factor", factor, updates)
        return jax.tree.map(lambda x, by: x * jnp.asarray(by, x.dtype), updates, factors)

    return optax.stateless(scaled)
