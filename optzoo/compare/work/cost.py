"""How much work runs are, roughly: enough to begin with the longest."""

import jax
import jax.numpy as jnp

from optzoo.problems import Problem

# What a second is worth in operations and in steps that compute next to nothing, and what tracing
# and compiling take.
OPERATIONS, STEPS, PREPARING = 1e9, 1e5, 3.0


def step_seconds(problem: Problem) -> float:
    """Seconds of one step of one run, as far as the gradient's operations tell."""

    def start(key):
        params = problem.init(key)
        return params, problem.draw(key, jnp.asarray(0, "int32"))

    shapes = jax.eval_shape(start, jax.random.key(0))
    analysis = jax.jit(jax.grad(problem.loss)).lower(*shapes).cost_analysis()
    return (analysis or {}).get("flops", 0.0) / OPERATIONS + 1 / STEPS
