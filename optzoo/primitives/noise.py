"""How large a batch may be, read from the gradients of its parts."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from optzoo.primitives.base import Count, Positive, Tree, checked, wide
from optzoo.primitives.norms import sum_of_squares

AxisName = str | tuple[str, ...] | None


class GradientNoise(NamedTuple):
    """What the gradients of a batch's parts say of it.

    To average over steps, hand it to `optzoo.primitives.ema`: the parts first, the ratio after.

    Attributes:
      noise: the variance of one example's gradient, summed over all entries.
      signal: the squared norm of the gradient without noise; an estimate that may be below 0.
    """

    noise: jax.Array
    signal: jax.Array

    @property
    def scale(self) -> jax.Array:
        """The noise scale: batches far below it gain from growing, those far above waste data."""
        return self.noise / self.signal


@checked
def gradient_noise(
    gradients: Tree, *, examples: Count = 1, axis_name: AxisName = None
) -> GradientNoise:
    """The gradient noise scale of a batch, from the gradients of its parts.

    Rule, for K parts with gradients g_i of `examples` examples each, and their mean ḡ:
      noise = examples·Σ |g_i − ḡ|²/(K − 1);   signal = |ḡ|² − noise/(K·examples)
    which is the estimate from the norms of two batch sizes, `examples` and K·examples.

    Args:
      gradients: a tree with a leading axis of parts: of single examples, micro-batches or devices.
      examples: how many examples a part has; all have as many.
      axis_name: the mesh or vmap axis over which further parts are spread, inside `shard_map` or
        `pmap`; there the leading axis may have length 1.

    Returns:
      The noise and the signal, the same on all devices.

    Raises:
      ValueError: for a leaf without a leading axis, or for one part alone.

    Source: McCandlish et al. 2018, arXiv 1812.06162, appendix A.
    """
    return _Parts("gradient_noise", gradients, axis_name).noise(examples)


@checked
def norm_test(
    gradients: Tree, eta: Positive = 0.1, *, examples: Count = 1, axis_name: AxisName = None
) -> jax.Array:
    """The batch size at which the gradient's noise is a set part of its norm (AdAdaGrad).

    Rule:
      noise/(eta²·|ḡ|²), rounded up, with noise as in `gradient_noise`

    The authors train each step with the largest size that was asked for so far, up to a limit.

    Args:
      gradients, examples, axis_name: as in `gradient_noise`.
      eta: the largest ratio of noise to norm.

    Returns:
      The size, a float; infinite where the mean gradient is zero.

    Raises:
      ValueError: for an argument out of range, and as `gradient_noise`.

    Source: Lau et al. 2024, arXiv 2402.11215; official code timlautk/AdAdaGrad.
    """
    parts = _Parts("norm_test", gradients, axis_name)
    return jnp.ceil(parts.noise(examples).noise / (jnp.asarray(eta) ** 2 * parts.square))


@checked
def inner_product_test(
    gradients: Tree,
    theta: Positive = 0.1,
    nu: Positive = 0.1,
    *,
    by_leaf: bool = False,
    examples: Count = 1,
    axis_name: AxisName = None,
) -> jax.Array:
    """The batch size at which noise along and across the gradient is a set part of it (AdAdaGrad).

    Rule:
      h_i = ⟨g_i, ḡ⟩;   r_i = g_i − h_i·ḡ/|ḡ|²;   both variances times examples
      max(var(h)/(theta²·|ḡ|⁴), var(r)/(nu²·|ḡ|²)), rounded up

    Args:
      gradients, examples, axis_name: as in `gradient_noise`.
      theta: the largest ratio of the noise along the gradient to its norm.
      nu: the same for the noise across it.
      by_leaf: take the products and projections leaf by leaf, as the authors' code does; the paper
        has one vector.

    Returns:
      The size, a float; not a number or infinite where the mean gradient is zero.

    Raises:
      ValueError: for an argument out of range, and as `gradient_noise`.

    Source: Lau et al. 2024, arXiv 2402.11215; official code timlautk/AdAdaGrad.
    """
    parts = _Parts("inner_product_test", gradients, axis_name)
    leaves = list(zip(parts.deviations, parts.mean, strict=True))
    groups = [[leaf] for leaf in leaves] if by_leaf else [leaves]
    along, across = jnp.zeros([]), jnp.zeros([])
    for group in groups:
        square = sum_of_squares([mean for _, mean in group])
        products = sum(jnp.sum(d * m[None], axis=tuple(range(1, d.ndim))) for d, m in group)
        energy = jnp.sum(jnp.square(products))
        along += energy
        whole = sum_of_squares([d for d, _ in group])
        across += whole - energy / square
    variances = parts.over_all(jnp.stack([along, across])) * examples / (parts.count - 1)
    limits = jnp.stack([(theta * parts.square) ** 2, nu**2 * parts.square])
    return jnp.ceil(jnp.max(variances / limits))


class _Parts:
    """The gradients of a batch's parts: their mean, and each one's deviation from it."""

    def __init__(self, who: str, gradients: Tree, axis_name: AxisName) -> None:
        self.axis_name = axis_name
        leaves = jax.tree.leaves(wide(gradients))
        if not leaves or {leaf.shape[:1] for leaf in leaves} != {leaves[0].shape[:1] or (-1,)}:
            raise ValueError(f"{who}: gradients must have one leading axis of parts in every leaf")
        devices = 1 if axis_name is None else jax.lax.axis_size(axis_name)
        self.count = leaves[0].shape[0] * devices
        if self.count < 2:
            raise ValueError(f"{who}: gradients must be of two parts or more; got {self.count}")
        self.mean = [self.over_all(jnp.sum(leaf, axis=0)) / self.count for leaf in leaves]
        self.deviations = [leaf - mean[None] for leaf, mean in zip(leaves, self.mean, strict=True)]
        self.square = sum_of_squares(self.mean)

    def over_all(self, x: jax.Array) -> jax.Array:
        """The sum over the devices that hold parts."""
        return x if self.axis_name is None else jax.lax.psum(x, self.axis_name)

    def noise(self, examples: jax.typing.ArrayLike) -> GradientNoise:
        spread = self.over_all(sum_of_squares(self.deviations)) / (self.count - 1)
        return GradientNoise(examples * spread, self.square - spread / self.count)
