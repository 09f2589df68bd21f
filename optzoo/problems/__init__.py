'''Problems to compare optimizers on: a start, a loss, data, and what counts as solved.

A problem of your own is a `Problem`, or a function that returns one. In `mine.py`:

    import jax
    import jax.numpy as jnp
    from optzoo.problems import Problem

    def line():
        """Fits a line through noisy points."""
        def points(key, count=32):
            x, noise = jax.random.normal(key, (2, count))
            return x, 3 * x - 1 + 0.1 * noise

        def loss(params, batch):
            x, y = batch
            return jnp.mean((params["slope"] * x + params["shift"] - y) ** 2)

        held_out = {"validation": points(jax.random.key(1)), "test": points(jax.random.key(2))}
        return Problem(
            init=lambda key: {"slope": jax.random.normal(key), "shift": jnp.zeros(())},
            batch=points,
            loss=loss,
            evaluate=lambda params, split: {"loss": loss(params, held_out[split])},
            steps=200,
            target=0.02,
        )

Then `optzoo compare --problems mine:line,digits` compares on it.
'''

# The order of the families, which users see.
from optzoo.problems import landscapes as landscapes  # isort: skip
from optzoo.problems import stochastic as stochastic  # isort: skip
from optzoo.problems import vision as vision  # isort: skip
from optzoo.problems import sequences as sequences  # isort: skip
from optzoo.problems import half as half  # isort: skip
from optzoo.problems import showcase as showcase  # isort: skip
from optzoo.problems import large as large  # isort: skip
from optzoo.problems.base import (
    LARGE as LARGE,
    PROBLEMS as PROBLEMS,
    Problem as Problem,
    problem as problem,
)
from optzoo.problems.losses import stablemax_cross_entropy as stablemax_cross_entropy
