"""Estimates of the gradient that need no backward pass, each in place of `jax.grad`."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.base import Positive, Size, Tree, checked, random_key, wide

Estimator = Callable[..., Tree]
Draws = Literal["normal", "sign"]


@checked
def forward_gradient(
    fun: Callable[..., jax.Array], *, directions: Size = 1, draws: Draws = "normal"
) -> Estimator:
    """The gradient from derivatives along random directions, by forward passes alone.

    Rule, the mean over directions v with independent entries of mean 0 and variance 1:
      g = ⟨∇f, v⟩·v

    It has no bias. Its variance, over all n numbers together, is (n + 1)·|∇f|²/directions for
    normal v and (n − 1)·|∇f|²/directions for signs: at equal steps it is far behind the gradient,
    and a learning rate that suits the gradient must shrink by about n.

    Args:
      fun: a function of the parameters first, that returns the loss.
      directions: how many to average, one after the other, in the memory of one.
      draws: what directions are drawn from: "normal" numbers, or "sign", ±1 each.

    Returns:
      A function of `fun`'s arguments, and a `jax.random` key or an integer seed as `key=…`, that
      returns a tree like the parameters. Directions given as `along=…`, a tree with a leading axis
      of directions, take the place of its own: guesses from elsewhere.

    Raises:
      ValueError: for an argument out of range, or a call with neither key nor directions.

    Source: Baydin et al. 2022, arXiv 2202.08587; Fournier et al. 2023, arXiv 2306.06968.
    """

    def slope(of: Callable[[Tree], jax.Array], params: Tree, v: Tree) -> jax.Array:
        return jax.jvp(of, (params,), (v,))[1]

    return _along("forward_gradient", fun, slope, directions, draws)


@checked
def perturbed_gradient(
    fun: Callable[..., jax.Array],
    *,
    radius: Positive = 1e-3,
    directions: Size = 1,
    draws: Draws = "normal",
) -> Estimator:
    """The gradient from pairs of losses on either side, for a loss that cannot be differentiated.

    Rule, the mean over directions v with independent entries of mean 0 and variance 1:
      g = (f(p + radius·v) − f(p − radius·v))/(2·radius)·v

    With normal v it has no bias as the gradient of the loss smoothed by normal noise of deviation
    radius (evolution strategies), with signs it is SPSA. Its variance is nearly that of
    `forward_gradient`, and what rounding adds, about n·(ε·f/radius)² for a precision ε.

    Args:
      fun: a function of the parameters first, that returns the loss.
      radius: how far to either side: the smaller, the nearer to ∇f and the coarser by rounding.
      directions, draws: as in `forward_gradient`.

    Returns:
      As `forward_gradient`.

    Raises:
      ValueError: as `forward_gradient`.
    """

    def slope(of: Callable[[Tree], jax.Array], params: Tree, v: Tree) -> jax.Array:
        def at(side: float) -> jax.Array:
            return of(
                jax.tree.map(lambda p, d: p + jnp.asarray(side * radius, p.dtype) * d, params, v)
            )

        return (at(1.0) - at(-1.0)) / (2 * radius)

    return _along("perturbed_gradient", fun, slope, directions, draws)


def _along(who: str, fun: Any, slope: Any, directions: int, draws: Draws) -> Estimator:
    def estimate(
        params: Tree, *args: Any, key: Any = None, along: Tree = None, **kwargs: Any
    ) -> Tree:
        if key is None and along is None:
            raise ValueError(
                f"{who} draws its directions: call with key=…, or along=… to give them"
            )

        def of(p: Tree) -> jax.Array:
            return fun(p, *args, **kwargs)

        def drawn(key: jax.Array) -> Tree:
            sampler = jax.random.normal if draws == "normal" else jax.random.rademacher
            return optax.tree.random_like(key, params, sampler)

        def add(total: Tree, given: Any) -> tuple[Tree, None]:
            v = drawn(given) if along is None else given
            size = slope(of, params, v)
            return jax.tree.map(
                lambda t, d: t + size.astype(t.dtype) * d.astype(t.dtype), total, v
            ), None

        each = jax.random.split(random_key(key), directions) if along is None else along
        count = len(jax.tree.leaves(each)[0])
        total, _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, wide(params)), each)
        return jax.tree.map(lambda t, p: (t / count).astype(p.dtype), total, params)

    return estimate


@checked
def likelihood_ratio_gradient(
    fun: Callable[..., jax.Array],
    sample: Callable[[jax.Array, Tree], Any],
    log_density: Callable[[Tree, Any], jax.Array],
    *,
    draws: Size = 2,
) -> Estimator:
    """The gradient of an expected loss over random outcomes that depend on the parameters.

    Rule, the mean over draws x_i:
      g = ∇f(p, x_i) + (f(p, x_i) − b_i)·∇ log density(p, x_i),   b_i = the mean of the other f

    The loss needs no derivative by the outcomes, which may be discrete. It has no bias. For a loss
    that is ⟨c, x⟩ with normal x around the parameters its variance, over all n numbers together, is
    (n + 1)·|c|²/(draws − 1): it grows with the parameters, and with the spread of the loss.

    Args:
      fun: a function of the parameters, an outcome, and whatever else, that returns the loss.
      sample: draws an outcome: `sample(key, params)`.
      log_density: the logarithm of its probability or density: `log_density(params, outcome)`.
      draws: how many outcomes, side by side; with one there is no b.

    Returns:
      A function of the parameters, `fun`'s further arguments, and a `jax.random` key or an integer
      seed as `key=…`, that returns a tree like the parameters.

    Raises:
      ValueError: for an argument out of range.
    """

    def estimate(params: Tree, *args: Any, key: Any, **kwargs: Any) -> Tree:
        keys = jax.random.split(random_key(key), draws)
        outcomes = jax.lax.stop_gradient(jax.vmap(lambda one: sample(one, params))(keys))

        def surrogate(p: Tree) -> jax.Array:
            def of(outcome: Any) -> tuple[jax.Array, jax.Array]:
                return fun(p, outcome, *args, **kwargs), log_density(p, outcome)

            losses, logs = jax.vmap(of)(outcomes)
            fixed = jax.lax.stop_gradient(losses)
            others = (jnp.sum(fixed) - fixed) / max(draws - 1, 1)
            return jnp.mean(losses + (fixed - others) * logs)

        return jax.grad(surrogate)(params)

    return estimate
