"""Every neural problem once more, with its parameters in bfloat16."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from optzoo.problems.base import PROBLEMS, Problem, declare

SUFFIX = "_bf16"


def half(problem: Problem) -> Problem:
    """The same problem with parameters, and hence gradients, in bfloat16.

    Arithmetic within the model stays float32, so that only what the optimizer does with parameters
    of eight bits of precision tells results apart.
    """

    def cast(params: Any, dtype: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.astype(dtype), params)

    def widely(function: Any) -> Any:
        return function and (lambda params, other: function(cast(params, jnp.float32), other))

    return dataclasses.replace(
        problem,
        init=lambda key: cast(problem.init(key), jnp.bfloat16),
        loss=widely(problem.loss),
        evaluate=widely(problem.evaluate),
        outputs=widely(problem.outputs),
        objectives=widely(problem.objectives),
    )


def _halved(factory: Callable[[], Problem]) -> Callable[[], Problem]:
    def build() -> Problem:
        return half(factory())

    build.__doc__ = f"In bfloat16: {factory.__doc__}"
    return build


for declared in [one for one in PROBLEMS.values() if one.group == "neural"]:
    declare(declared.name + SUFFIX, "bfloat16", _halved(declared.factory))
