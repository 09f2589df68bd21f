"""A tree of parameters spread over eight devices, and training steps on it."""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

from optzoo.testing.subject import random_from, random_like

DEVICES = 8
STEPS = 3
SHAPES: dict[str, Any] = {
    "gain": (),
    "layer_a": {"bias": (16,), "kernel": (8, 16)},
    "layer_b": {"bias": (8,), "kernel": (16, 8)},
    "layer_c": {"kernel": (8, 16)},
}
SPECS: dict[str, Any] = {
    "gain": P(),
    "layer_a": {"bias": P("model"), "kernel": P("data", "model")},
    "layer_b": {"bias": P("data"), "kernel": P("model", "data")},
    "layer_c": {"kernel": P(None, "model")},
}


def host_trees() -> tuple[Any, list[Any]]:
    """Parameters and the gradients of a few steps, on one device."""
    params = random_from(SHAPES, 11)
    return params, random_like(params, STEPS, seed=12)


def make_mesh(kind: AxisType) -> jax.sharding.Mesh:
    """Four by two devices whose axes are all automatic or all explicit."""
    devices = np.array(jax.devices()[:DEVICES]).reshape(4, 2)
    return jax.sharding.Mesh(devices, ("data", "model"), axis_types=(kind, kind))


def placed(tree: Any, mesh: jax.sharding.Mesh) -> Any:
    """A tree like `SHAPES` on the mesh; every process gives its own share."""

    def place(leaf, spec):
        array = np.asarray(leaf)
        return jax.make_array_from_callback(
            array.shape, NamedSharding(mesh, spec), lambda index: array[index]
        )

    return jax.tree.map(place, tree, SPECS)
