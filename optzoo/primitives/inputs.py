"""Gradients of a layer that know what came into it."""

import math

import jax
import jax.numpy as jnp

from optzoo.primitives.base import Positive, checked, wide


@checked
def whiten_inputs(gradient: jax.Array, inputs: jax.Array, damping: Positive = 0.1) -> jax.Array:
    """The gradient of a first layer's kernel as if its inputs were white (TrAct).

    Rule, for inputs A of n rows:
      g ← (Aᵀ·A/n + damping·I)^(−1)·g

    A step then changes the layer's outputs by about their own gradient, whatever the inputs' scale
    and correlation, so that a first layer keeps up with those behind it. To be put in place of the
    kernel's gradient, before any rule sees it; that of the bias stays. It is a function and no
    transformation because it is about one leaf, and what came into it no other rule asks for.

    Args:
      gradient: of the kernel, its input axes first: (in, out), or (height, width, in, out).
      inputs: of the batch, (n, in), or the patches under the kernel, (n, height, width, in), a row
        for each place of each example.
      damping: beside the inputs' mean square, which it compares with.

    Returns:
      The gradient to take instead, with the old one's shape and dtype.

    Raises:
      ValueError: for an argument out of range, or inputs that do not fit the gradient.

    Source: Petersen et al. 2024, arXiv 2410.23970; official code Felix-Petersen/tract, whose
      `inv_type="cholesky_inverse"` passes the matrix where its factor belongs.
    """
    shape = inputs.shape[1:]
    if not shape or gradient.shape[: len(shape)] != shape:
        raise ValueError(
            "whiten_inputs: inputs must be rows of the gradient's first axes; got shape "
            f"{inputs.shape} for a gradient of shape {gradient.shape}"
        )
    count, size = len(inputs), math.prod(shape)
    a, g = wide(inputs.reshape(count, size)), wide(gradient.reshape(size, -1))
    a = a.astype(g.dtype)

    def solved(matrix: jax.Array, right: jax.Array) -> jax.Array:
        ridge = jnp.asarray(damping, g.dtype) * jnp.eye(len(matrix), dtype=g.dtype)
        return jax.scipy.linalg.solve(matrix / count + ridge, right, assume_a="pos")

    if count >= size:
        out = solved(a.T @ a, g)
    else:
        # The same number (Woodbury) from the smaller system.
        out = (g - a.T @ solved(a @ a.T, a @ g) / count) / damping
    return out.reshape(gradient.shape).astype(gradient.dtype)
