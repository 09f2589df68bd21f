"""Surrogates of the loss in the space of outputs: many cheap steps for one dear derivative."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from optzoo.primitives.base import Count, Fraction, OpenFraction, Positive, Size, Tree, checked
from optzoo.primitives.norms import size, sum_of_squares


@checked
def target_surrogate(
    outputs_fn: Callable[[Tree], Tree],
    loss_fn: Callable[[Tree], jax.Array],
    params: Tree,
    rate: Positive,
) -> Callable[[Tree], jax.Array]:
    """A loss that draws the outputs to where a step of descent on them would lead (SSO).

    Rule, with the outputs f(p), z = f(params) and D the loss's gradient for z:
      surrogate(p) = mean of 2·rate·D·f(p) + (f(p) − z)²
    which is, but for a constant, the mean of (f(p) − (z − rate·D))².

    The loss is differentiated once, here; what is returned may be minimised by any optimizer, step
    after step, at the cost of the model alone. It pays where the loss is dear, as a simulator is.

    Args:
      outputs_fn: the model's outputs on this step's batch as a function of the parameters.
      loss_fn: the loss as a function of the outputs.
      params: where to begin.
      rate: of the step on the outputs.

    Returns:
      A function of the parameters.

    Raises:
      ValueError: for an argument out of range.

    Source: Lavington et al. 2023, arXiv 2302.02607.
    """
    start = outputs_fn(params)
    pull = jax.grad(loss_fn)(start)

    def surrogate(p: Tree) -> jax.Array:
        found = outputs_fn(p)
        away = sum_of_squares(jax.tree.map(jnp.subtract, found, start))
        along = sum(map(jnp.vdot, jax.tree.leaves(pull), jax.tree.leaves(found)))
        return (2 * jnp.asarray(rate, away.dtype) * along + away) / size(found)

    return surrogate


@checked
def surrogate_step(
    params: Tree,
    outputs_fn: Callable[[Tree], Tree],
    loss_fn: Callable[[Tree], jax.Array],
    *,
    rate: Positive,
    inner_steps: Size = 1,
    first: Positive = 10.0,
    grow: Count = 1.8,
    shrink: OpenFraction = 0.9,
    c: Fraction = 0.5,
) -> Tree:
    """A step of training by `target_surrogate`: descent on it, with a line search (SSO).

    Rule, inner_steps times, with the surrogate S, its gradient g, and s that begins at first:
      s ← grow·s;   s ← shrink·s until S(p − s·g) ≤ S(p) − c·s·|g|²;   p ← p − s·g

    It is no gradient transformation: between two batches it takes several steps of its own, and it
    asks for the model and the loss apart. Call it in place of the optimizer.

    Args:
      params: the parameters.
      outputs_fn, loss_fn, rate: as in `target_surrogate`.
      inner_steps: how many steps to take on the surrogate.
      first: the inner step size that the search begins at.
      grow: the factor by which each search begins higher than the last one ended; the authors take
        1.8^(1/n) for n batches per epoch.
      shrink: the factor between two trials; there are at most 100 of them, and none below 1e-6.
      c: the part of the expected fall that a trial must reach.

    Returns:
      The new parameters.

    Raises:
      ValueError: for an argument out of range.

    Source: Lavington et al. 2023, arXiv 2302.02607; official code
      WilderLavington/Target-Based-Surrogates-For-Stochastic-Optimization, whose eta is 1/(2·rate).
    """
    surrogate = target_surrogate(outputs_fn, loss_fn, params, rate)

    def moved(p: Tree, step: jax.Array, slope: Tree) -> Tree:
        return jax.tree.map(lambda x, g: x - step.astype(x.dtype) * g, p, slope)

    def descend(_: Any, carry: Any) -> tuple[Tree, jax.Array]:
        p, step = carry
        value, slope = jax.value_and_grad(surrogate)(p)
        square = sum_of_squares(slope).astype(value.dtype)

        def fails(search: Any) -> jax.Array:
            trial, count = search
            enough = surrogate(moved(p, trial, slope)) <= value - c * trial * square
            return ~enough & (trial >= 1e-6) & (count < 100)

        def shorter(search: Any) -> tuple[jax.Array, jax.Array]:
            return shrink * search[0], search[1] + 1

        found, _ = jax.lax.while_loop(fails, shorter, (grow * step, jnp.int32(1)))
        still = jnp.sqrt(square) <= 1e-6
        kept = jnp.where(still, 0, found)
        return moved(p, kept, slope), jnp.where(still, step, found)

    dtype = jax.eval_shape(surrogate, params).dtype
    return jax.lax.fori_loop(0, inner_steps, descend, (params, jnp.asarray(first, dtype)))[0]
