"""What rules may ask `update` for: a loss that has the gradient at hand."""

from collections.abc import Iterable
from typing import Any

import chex
import jax
import jax.numpy as jnp


def offers(params: chex.ArrayTree, gradients: chex.ArrayTree) -> dict[str, Any]:
    """Every extra argument that a rule may need, for parameters and their gradients.

    All belong to one loss, 1 + ⟨gradient, move⟩ + ½Σ k·move², whose gradient at `params` is
    `gradients` and whose curvature k, from ½ to 4½, differs from number to number; the outputs are
    the move itself, in one vector. The two objectives have the gradient as their mean, and conflict
    here and there.
    """
    places = {path: leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    slopes = {path: leaf for path, leaf in jax.tree_util.tree_leaves_with_path(gradients)}

    def moves(moved):
        # Under a mask some leaves are missing.
        return {
            path: _wide(leaf) - _wide(places[path])
            for path, leaf in jax.tree_util.tree_leaves_with_path(moved)
        }

    def value_fn(moved):
        energies = [
            _energy(_wide(slopes[path]), _curvature(places[path]), move)
            for path, move in moves(moved).items()
        ]
        return 1 + sum(energies, jnp.zeros([]))

    def outputs_fn(moved):
        return _joined(moves(moved).values())

    def loss_fn(outputs):
        bend = _joined(_curvature(places[path]) for path in slopes)
        return 1 + _energy(_joined(map(_wide, slopes.values())), bend, outputs)

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
        "loss_fn": loss_fn,
        "gradients": jax.tree_util.tree_map_with_path(objectives, gradients),
        "values": jnp.array([0.5, 1.5]),
    }


def _energy(slope: jax.Array, bend: jax.Array, move: jax.Array) -> jax.Array:
    straight = jnp.sum((slope.conj() * move).real)
    return straight + jnp.sum(bend * (move.conj() * move).real) / 2


def _curvature(leaf: Any) -> jax.Array:
    return 0.5 + 4 * jnp.sin(jnp.abs(_wide(leaf))) ** 2


def _joined(leaves: Iterable[jax.Array]) -> jax.Array:
    return jnp.concatenate([*map(jnp.ravel, leaves), jnp.zeros(0)])


def _wide(leaf: Any) -> jax.Array:
    return jnp.asarray(leaf, jnp.promote_types(leaf.dtype, jnp.float32))
