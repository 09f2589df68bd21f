"""What rules may ask `update` for: a loss that has the gradient at hand."""

from typing import Any

import chex
import jax
import jax.numpy as jnp


def offers(params: chex.ArrayTree, gradients: chex.ArrayTree) -> dict[str, Any]:
    """Every extra argument that a rule may need, for parameters and their gradients.

    All belong to one loss, 1 + ⟨gradient, move⟩ + ½|move|², whose gradient at `params` is
    `gradients`; the outputs are the move itself, in one vector. The two objectives have the
    gradient as their mean, and conflict here and there.
    """
    places = {path: leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    slopes = {path: leaf for path, leaf in jax.tree_util.tree_leaves_with_path(gradients)}

    def outputs_fn(moved):
        # Under a mask some leaves are missing.
        leaves = jax.tree_util.tree_leaves_with_path(moved)
        moves = [jnp.ravel(_wide(leaf) - _wide(places[path])) for path, leaf in leaves]
        return jnp.concatenate([*moves, jnp.zeros(0)])

    def loss(outputs, paths):
        slope = jnp.concatenate([*(jnp.ravel(_wide(slopes[path])) for path in paths), jnp.zeros(0)])
        square = jnp.vdot(outputs, outputs).real / 2
        return 1 + jnp.vdot(slope, outputs).real + square

    def value_fn(moved):
        paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(moved)]
        return loss(outputs_fn(moved), paths)

    def objectives(path, gradient):
        # Trees that do not match are for the rule to refuse.
        p = places.get(path, gradient)
        p = p if jnp.shape(p) == jnp.shape(gradient) else gradient
        # Leaf by leaf and number by number, so that they show no coupling which is not the rule's.
        apart = (2 * jnp.sin(jnp.abs(p)) * gradient).astype(gradient.dtype)
        return jnp.stack([gradient + apart, gradient - apart])

    return {
        "value": jnp.ones([]),
        "value_fn": value_fn,
        "outputs_fn": outputs_fn,
        "loss_fn": lambda outputs: loss(outputs, slopes),
        "gradients": jax.tree_util.tree_map_with_path(objectives, gradients),
        "values": jnp.array([0.5, 1.5]),
    }


def _wide(leaf: Any) -> jax.Array:
    return jnp.asarray(leaf, jnp.promote_types(leaf.dtype, jnp.float32))
