"""One optimizer on one problem: its whole learning-rate x seed grid in one compiled program."""

import hashlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import optzoo
from optzoo.problems import Problem
from optzoo.registry import Entry

CHECKPOINTS = 40


def checkpoints(steps: int) -> np.ndarray:
    """The step counts after which a run is evaluated: 0, `steps` and evenly spaced between."""
    return np.unique(np.linspace(0, steps, CHECKPOINTS + 1).round()).astype(np.int32)


@dataclass(frozen=True)
class Outcome:
    """What the runs of one grid gave.

    Attributes:
      curves: metric -> values at the checkpoints, shape (rates, seeds, checkpoints), on the
        validation split.
      final: metric -> values after the last step, shape (rates, seeds), on the test split.
      seconds: wall-clock seconds of the whole grid, compilation excluded.
    """

    curves: dict[str, np.ndarray]
    final: dict[str, np.ndarray]
    seconds: float


class Sweep:
    """One optimizer on one problem.

    The learning rate is an argument of the compiled program, so further rates cost no second
    compilation as long as they come in lists of the same length. Runs with the same seed start at
    the same parameters and see the same batches, whatever the optimizer.
    """

    def __init__(self, problem: Problem, entry: Entry, steps: int) -> None:
        self.problem, self.entry, self.steps = problem, entry, steps
        self._single = jax.jit(self._train)
        self._programs: dict[tuple[int, int], Any] = {}

    def _train(self, learning_rate, params, key):
        problem = self.problem
        rule = self.entry.build(learning_rate, total_steps=self.steps)
        rule = optax.with_extra_args_support(rule)

        def step(count, carry):
            params, state = carry
            batch = problem.batch(jax.random.fold_in(key, count))
            value, gradients = jax.value_and_grad(problem.loss)(params, batch)
            updates, state = rule.update(gradients, state, params, value=value)
            return optax.apply_updates(params, updates), state

        def leg(carry, bounds):
            params, state = jax.lax.fori_loop(bounds[0], bounds[1], step, carry)
            evaluated = optzoo.eval_params(state, params)
            return (params, state), problem.evaluate(evaluated, "validation")

        marks = checkpoints(self.steps)
        bounds = jnp.asarray(np.stack([np.insert(marks[:-1], 0, 0), marks], axis=1))
        (params, state), curves = jax.lax.scan(leg, (params, rule.init(params)), bounds)
        return curves, problem.evaluate(optzoo.eval_params(state, params), "test")

    @cached_property
    def fingerprint(self) -> str:
        """Changes with anything that a run depends on: rule, problem, data, steps, versions.

        It hashes the traced programs themselves, so a change to one rule leaves the results of
        every other rule valid.
        """
        start = jax.jit(partial(_start, self.problem)).trace(0)
        rate = jax.ShapeDtypeStruct((), jnp.float32)
        digest = hashlib.sha256(f"{jax.__version__} {jax.default_backend()}".encode())
        for traced in (start, self._single.trace(rate, *start.out_info)):
            # Addresses in a program's text differ from process to process.
            digest.update(re.sub(r"0x[0-9a-f]+", "", str(traced.jaxpr)).encode())
            for constant in traced.jaxpr.consts:
                digest.update(np.asarray(constant).tobytes())
        return digest.hexdigest()

    def run(self, rates: Sequence[float], seeds: Sequence[int]) -> Outcome:
        """Trains every rate with every seed."""
        starts = _starts(self.problem)(jnp.asarray(seeds))
        arguments = jnp.asarray(rates, jnp.float32), *starts
        shape = len(rates), len(seeds)
        if shape not in self._programs:
            over_seeds = jax.vmap(self._single, in_axes=(None, 0, 0))
            grid = jax.jit(jax.vmap(over_seeds, in_axes=(0, None, None)))
            self._programs[shape] = grid.lower(*arguments).compile(_compiler_options())
        start = time.perf_counter()
        curves, final = jax.device_get(self._programs[shape](*arguments))
        return Outcome(curves, final, time.perf_counter() - start)


def _start(problem: Problem, seed):
    """The parameters that a run starts from, and the key that its batches come from."""
    key = jax.random.key(seed)
    return problem.init(key), jax.random.fold_in(key, 1)


@cache
def _starts(problem: Problem):
    """`_start` over an array of seeds; compiled once for all optimizers."""
    return jax.jit(jax.vmap(partial(_start, problem)))


def _compiler_options() -> dict[str, Any]:
    """On CPUs LLVM's costly passes take longer than they save in runs this short."""
    return {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else {}
