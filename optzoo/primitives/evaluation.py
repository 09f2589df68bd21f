"""Finding the parameters to evaluate in any optimizer state."""

import sys
from collections.abc import Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
from jax.tree_util import GetAttrKey, all_leaves, keystr, tree_leaves_with_path, tree_map_with_path

from optzoo.primitives.base import Tree

Params = TypeVar("Params")


@runtime_checkable
class Averaged(Protocol):
    """A state that knows better parameters to evaluate than those in training."""

    def eval_params(self, params: Tree) -> Tree: ...


def eval_params(opt_state: Any, params: Params) -> Params:
    """The parameters to evaluate or save.

    Finds the states of Schedule-Free, of averages (DoG) and of lookahead wherever they sit: inside
    `chain`, `masked`, `partition`, `inject_hyperparams`, `MultiSteps`, `apply_if_finite` or any
    other wrapper. Leaves that no such state covers come back as they are.

    Args:
      opt_state: the state of any optax transformation, on the devices or in host memory.
      params: the training parameters that belong to it.

    Returns:
      A tree like `params`, in its dtypes and its memory; `params` itself where nothing averages.

    Raises:
      ValueError: for a state of plain dictionaries, which a restore without a target makes, for
        Flax's nnx objects in place of what they hold, or where the state keeps a leaf that
        `params` lacks.
    """
    for state in _averages(opt_state, params):
        params = state.eval_params(params)
    return params


def train_params(opt_state: Any, params: Params) -> Params:
    """The training parameters from what `eval_params` returned: its inverse, where one exists.

    Args:
      opt_state: the state of any optax transformation.
      params: evaluation parameters that belong to it.

    Returns:
      A tree like `params`; `params` itself where nothing averages.

    Raises:
      ValueError: where an average does not determine the training parameters (DoG, lookahead), and
        as `eval_params`.
    """
    for state in reversed(_averages(opt_state, params)):
        if not hasattr(state, "train_params"):
            raise ValueError(
                f"train_params cannot undo {type(state).__name__}: the training parameters are "
                "not in the state; keep them beside the evaluation parameters"
            )
        params = state.train_params(params)
    return params


def _averages(opt_state: Any, params: Tree) -> list[Any]:
    nnx: Any = sys.modules.get("flax.nnx")
    if nnx and (isinstance(opt_state, nnx.Optimizer | nnx.State) or isinstance(params, nnx.Module)):
        raise ValueError(
            "eval_params takes a state and parameters, not nnx objects: pass optimizer.opt_state "
            "and nnx.state(model, nnx.Param)"
        )
    if _is_raw(opt_state):
        raise ValueError(
            "opt_state consists of plain dictionaries, which do not tell what averages: restore it "
            "into the structure of tx.init(params), or of jax.eval_shape(tx.init, params)"
        )

    def averaged(node):
        return isinstance(node, Averaged)

    return [node for node in jax.tree.leaves(opt_state, is_leaf=averaged) if averaged(node)]


def _is_raw(opt_state: Any) -> bool:
    """Whether a state has lost its types: arrays in dictionaries, and no node that is a state."""
    mappings = False

    def typed(node):
        nonlocal mappings
        mappings = mappings or isinstance(node, Mapping)
        plain = node is None or type(node) in (list, tuple) or isinstance(node, Mapping)
        return not plain and not all_leaves([node])

    leaves = jax.tree.leaves(opt_state, is_leaf=typed)
    return mappings and bool(leaves) and not any(map(typed, leaves))


def where_kept(fn: Any, kept: Tree, params: Tree) -> Tree:
    """fn(kept leaf, parameter) where a state keeps a leaf; elsewhere the parameter.

    The kept leaf comes to the memory of its parameter first.

    States under `optax.masked` or `optax.partition` keep only their own share of the tree. Leaves
    are matched by place, because flax.nnx boxes those of a state in another type than parameters.

    Raises:
      ValueError: where the state keeps a leaf that the parameters lack; the message names it.
    """
    found = {_place(path): leaf for path, leaf in tree_leaves_with_path(kept)}

    def pick(path, p):
        x = found.pop(_place(path), None)
        return p if x is None else fn(beside(x, p), p).astype(jnp.result_type(p))

    result = tree_map_with_path(pick, params)
    if found:
        raise ValueError(f"the parameters lack {keystr(next(iter(found)))}, which the state keeps")
    return result


def beside(x: jax.typing.ArrayLike, like: jax.typing.ArrayLike) -> jax.Array:
    """An array in the memory, the host's or the device's, that another one is in."""
    array, space = jnp.asarray(x), jax.typeof(like).memory_space
    return array if jax.typeof(array).memory_space == space else jax.device_put(array, space)


def _place(path: tuple[Any, ...]) -> tuple[Any, ...]:
    """A leaf's path without the `.value` of Flax's boxes around arrays."""
    return path[:-1] if path and path[-1] == GetAttrKey("value") else path
