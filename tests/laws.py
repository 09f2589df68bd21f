"""What the property-based tests share: how examples are drawn and how a rule is run on them."""

from collections.abc import Callable
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
from hypothesis import strategies as st

law = hypothesis.settings(derandomize=True, max_examples=10, deadline=None, database=None)
seeds = st.integers(0, 2**31 - 1)
scales = st.sampled_from([2.0**-10, 1.0, 2.0**10])

SHAPES: dict[str, tuple[int, ...]] = {
    "kernel": (4, 3),
    "conv": (3, 2, 4),
    "bias": (5,),
    "gain": (),
}
STEPS = 7


def tree(seed: int, *, steps: int | None = None, scale: float = 1.0, zeros: float = 0.0) -> Any:
    """Random float32 leaves of `SHAPES`, with a leading axis of steps where asked for.

    Args:
      seed: what to draw.
      steps: length of the leading axis; None for no such axis.
      scale: factor on every number.
      zeros: fraction of the numbers that are exactly 0.
    """
    rng = np.random.default_rng(seed)
    lead = () if steps is None else (steps,)

    def leaf(shape):
        kept = rng.uniform(size=lead + shape) >= zeros
        return jnp.asarray(scale * rng.standard_normal(lead + shape) * kept, jnp.float32)

    return {name: leaf(shape) for name, shape in SHAPES.items()}


def runner(tx: optax.GradientTransformation) -> Callable[[Any, Any], tuple[Any, Any, Any]]:
    """A compiled function (params, gradients over steps) → (updates, params, state) after each."""
    full = optax.with_extra_args_support(tx)

    def step(carry, gradient):
        params, state = carry
        updates, state = full.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), (updates, params, state)

    return jax.jit(lambda params, grads: jax.lax.scan(step, (params, full.init(params)), grads)[1])


def mapped(tx: optax.GradientTransformation) -> Callable[[Any, Any], Any]:
    """A compiled function (params, gradients over steps) → outputs at those fixed parameters."""
    full = optax.with_extra_args_support(tx)

    def run(params, gradients):
        def step(state, gradient):
            out, state = full.update(gradient, state, params)
            return state, out

        return jax.lax.scan(step, full.init(params), gradients)[1]

    return jax.jit(run)


def close(got: Any, want: Any, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    """Asserts that two trees agree leaf by leaf."""
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), got, want)


def same(got: Any, want: Any) -> None:
    """Asserts that two trees agree bit for bit."""
    jax.tree.map(np.testing.assert_array_equal, got, want)
