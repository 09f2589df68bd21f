"""The heights of a landscape, on which reports draw the paths of optimizers."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from optzoo.problems import Problem

RESOLUTION, DIGITS = 56, 3


def relief(problem: Problem) -> list[list[float]] | None:
    """The logarithm of the loss over the problem's box, row by row; None without a box."""
    if problem.box is None:
        return None
    left, right, bottom, top = problem.box
    x = jnp.linspace(left, right, RESOLUTION)
    y = jnp.linspace(bottom, top, RESOLUTION)

    def height(x, y):
        return problem.evaluate({"point": jnp.stack([x, y])}, "validation")["loss"]

    across: Callable[..., Any] = jax.vmap(height, in_axes=(0, None))
    losses = jax.jit(jax.vmap(across, in_axes=(None, 0)))(x, y)
    logarithms = np.log10(np.maximum(np.asarray(losses, float), 1e-3))
    return logarithms.round(DIGITS - 1).tolist()
