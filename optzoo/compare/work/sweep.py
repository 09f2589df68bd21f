"""One optimizer on one problem: all its runs in one compiled program."""

import math
import secrets
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, PartitionSpec

import optzoo
from optzoo.compare.machine import agree, available, compiler_options
from optzoo.compare.plan.contestants import Contestant, paced
from optzoo.compare.plan.tuners import Trial
from optzoo.compare.work.fingerprint import Fingerprint, fingerprint
from optzoo.problems import Problem

CHECKPOINTS = 40
# A hundredth of the steps tells how many take long enough to be timed.
TRIALS, TRIAL_SHARE, TRIAL_SECONDS = 3, 100, 0.1

# Two programs that call LAPACK at the same time can lock up XLA's thread pool on CPUs for ever.
LAPACK = threading.Lock()

Cell = tuple[Trial, int]


def checkpoints(steps: int, *, path: bool = False) -> np.ndarray:
    """The counts of gradients after which a run is evaluated: 0, `steps` and some between.

    Evenly spaced; for a path to be drawn, more of them and most at the beginning.
    """
    shares = (
        np.linspace(0, 1, 2 * CHECKPOINTS + 1) ** 2 if path else np.linspace(0, 1, CHECKPOINTS + 1)
    )
    return np.unique((steps * shares).round()).astype(np.int32)


@dataclass(frozen=True)
class Outcome:
    """What some runs gave.

    Attributes:
      curves: metric -> values at the checkpoints, shape (runs, checkpoints), validation split;
        where norms are recorded also "gradient_l1" and "gradient_l2", shape (runs, steps).
      final: metric -> values after the last step, shape (runs,), test split.
    """

    curves: dict[str, np.ndarray]
    final: dict[str, np.ndarray]


class Sweep:
    """One optimizer on one problem.

    The learning rate and what else is tuned are arguments of the compiled program, so further
    trials cost no second compilation. Runs with the same seed start at the same parameters and see
    the same batches, whatever the optimizer. Each run spends `budget` gradients, so that a rule
    whose steps cost two takes half as many steps. The runs are shared out among all devices of all
    processes, and go in several helpings where they would not fit into memory together.

    Args:
      problem: what to train on.
      contestant: what to train with.
      budget: gradients of a run.
      norms: whether to record the norms of the gradients.
      tuned: the arguments that trials have options for, beside the learning rate.
      marks: the step counts after which runs are evaluated, the last one their end, in place of
        what the budget pays for.
      told: whether the program is told the length as a number, so that `run` takes other ones.
    """

    def __init__(
        self,
        problem: Problem,
        contestant: Contestant,
        budget: int,
        *,
        norms: bool = False,
        tuned: Sequence[str] = (),
        marks: Sequence[int] | None = None,
        told: bool = False,
    ) -> None:
        self.problem, self.contestant = problem, contestant
        self.gradients = contestant.gradients(problem)
        paid = paced(checkpoints(budget, path=problem.box is not None), self.gradients)
        self.marks = paid if marks is None else np.asarray(marks, np.int32)
        self.steps = int(self.marks[-1])
        self.tuned, self._norms, self._told = tuple(tuned), norms, told
        self._single = jax.jit(self._train)
        self._width, self._trial = 0, list[Cell]()
        self._program: Any = None
        self._turn: AbstractContextManager[Any] = nullcontext()

    def _train(self, setting, params, key, bounds, evaluated):
        """One run. `bounds` are the first and last step of each leg between two checkpoints."""
        problem, key = self.problem, jax.random.wrap_key_data(key)
        total = bounds[-1, 1] if self._told else self.steps
        learning_rate, options = setting
        rule = self.contestant.build(learning_rate, total, **options)
        if self._norms:
            rule = optax.chain(optzoo.record_norms(self.steps), rule)

        def step(count, carry):
            params, state = carry
            gradients, extra = problem.differentiate(params, problem.draw(key, count))
            updates, state = rule.update(gradients, state, params, **extra)
            return optax.apply_updates(params, updates), state

        def report(params, state, split):
            return problem.evaluate(optzoo.eval_params(state, params), split)

        def leg(carry, bounds):
            params, state = jax.lax.fori_loop(bounds[0], bounds[1], step, carry)

            def measure():
                values = report(params, state, "validation")
                if problem.observe:
                    following, _ = step(bounds[1], (params, state))
                    batch = problem.draw(key, bounds[1])
                    values |= problem.observe(params, following, batch)
                return values

            shapes = jax.eval_shape(measure)
            nothing = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
            return (params, state), jax.lax.cond(evaluated, measure, lambda: nothing)

        (params, state), curves = jax.lax.scan(leg, (params, rule.init(params)), bounds)
        if self._norms:
            norms = optzoo.recorded_norms(state)
            curves |= {"gradient_l1": norms.l1, "gradient_l2": norms.l2}
        return curves, report(params, state, "test")

    @cached_property
    def _bounds(self) -> np.ndarray:
        return np.stack([np.insert(self.marks[:-1], 0, 0), self.marks], axis=1)

    @cached_property
    def _read(self) -> Fingerprint:
        start = jax.jit(partial(_start, self.problem)).trace(0)
        number = jax.ShapeDtypeStruct((), jnp.float32)
        setting = number, dict.fromkeys(self.tuned, number)
        train = self._single.trace(setting, *start.out_info, self._bounds, np.asarray(True))
        # The bounds are an argument: the programs alone do not tell the number of steps.
        return fingerprint(start.jaxpr, train.jaxpr, beside=self._bounds)

    @cached_property
    def fingerprint(self) -> str:
        """Changes with anything that a run depends on: rule, problem, data, steps, versions.

        It hashes the traced programs themselves, so a change to one rule leaves the results of
        every other rule valid. Programs with work that it cannot see into get another one every
        time, so that nothing is ever taken for their runs.
        """
        return self._read.digest + (secrets.token_hex(8) if self.unseen else "")

    @property
    def unseen(self) -> tuple[str, ...]:
        """Operations that do what the fingerprint cannot see: callbacks, foreign code."""
        return self._read.unseen

    @cached_property
    def state_ratio(self) -> float:
        """Bytes of optimizer state per byte of parameters."""

        def sizes(key):
            params = self.problem.init(key)
            return params, self.contestant.build(1.0, self.steps).init(params)

        params, state = map(_bytes, jax.eval_shape(sizes, jax.random.key(0)))
        return state / max(params, 1)

    def run(self, cells: Sequence[Cell], length: int | None = None) -> Outcome:
        """Trains each of the given pairs of trial and seed, for `length` steps if told."""
        self._prepare(cells)
        bounds = self._bounds.copy()
        bounds[-1, 1] = length or self.steps
        parts = []
        for first in range(0, len(cells), self._width):
            part = cells[first : first + self._width]
            parts.append(self._call(part, bounds, np.asarray(True)))
        joined = jax.tree.map(lambda *values: np.concatenate(values)[: len(cells)], *parts)
        curves, final = joined
        return Outcome(curves, final)

    def seconds_per_step(self, cells: Sequence[Cell]) -> float:
        """Seconds of one step of one run, evaluation left out; the least of a few short trials.

        To be called with nothing else going on. `cells` are what to try if nothing has run yet.
        """
        self._prepare(cells)
        legs = np.zeros_like(self._bounds)

        def timed(last: int) -> float:
            legs[-1, 1] = last
            start = time.perf_counter()
            self._call(self._trial, legs, np.asarray(False))
            return float(agree(np.asarray(time.perf_counter() - start)))

        def least(last: int) -> float:
            trials = [timed(last)]
            while len(trials) < TRIALS or sum(trials) < TRIAL_SECONDS:
                trials.append(timed(last))
            return min(trials)

        few = max(1, self.steps // TRIAL_SHARE)
        count = min(self.steps, max(1, round(few * TRIAL_SECONDS / timed(few))))
        taken, idle = least(count), least(0)
        return (taken - idle) / count / self._width if taken > idle else math.nan

    def _call(self, cells: Sequence[Cell], bounds: np.ndarray, evaluated: np.ndarray) -> Any:
        """The compiled program on at most `_width` cells; the last one fills up what is missing."""
        cells = [*cells, *[cells[-1]] * (self._width - len(cells))]
        arguments = *_arguments(self.problem, cells), bounds, evaluated
        with self._turn:
            values = self._program(*_everywhere(arguments))
            if jax.process_count() > 1:
                return multihost_utils.process_allgather(values, tiled=True)
            return jax.device_get(values)

    def _prepare(self, cells: Sequence[Cell]) -> None:
        """Compiles for as many runs at once as there are cells and memory for."""
        if self._program is not None:
            return
        devices = jax.device_count()
        each = math.ceil(len(cells) / devices)
        room = float(agree(np.asarray(available())))
        while True:
            width = each * devices
            filled = [*cells, *[cells[-1]] * width][:width]
            arguments = *_arguments(self.problem, filled), self._bounds, np.asarray(True)
            program = self._grid.lower(*_everywhere(arguments)).compile(compiler_options())
            need = _need(program)
            if need <= room:
                self._width, self._program, self._trial = width, program, filled
                if "lapack" in program.as_text():
                    self._turn = LAPACK
                return
            if each == 1:
                raise MemoryError(
                    f"one run needs {need / 1e9:.2g} GB of memory on each device, and there are "
                    f"{room / 1e9:.2g} GB"
                )
            each = max(1, min(each - 1, int(each * room / need)))

    @cached_property
    def _grid(self) -> Any:
        """The runs side by side, each device with its own share of them."""
        runs, whole = PartitionSpec("runs"), PartitionSpec()
        side_by_side = jax.vmap(self._single, in_axes=(0, 0, 0, None, None))
        shared = jax.shard_map(
            side_by_side,
            mesh=_mesh(),
            in_specs=(runs, runs, runs, whole, whole),
            out_specs=runs,
            check_vma=False,
        )
        return jax.jit(shared)


def takes_any_length(problem: Problem, contestant: Contestant) -> bool:
    """Whether a program with this rule may be told the length of its run as a number."""

    def train(key, length):
        params = problem.init(key)
        rule = contestant.build(1.0, length)
        gradients, extra = problem.differentiate(params, problem.draw(key, length))
        return rule.update(gradients, rule.init(params), params, **extra)

    try:
        jax.eval_shape(train, jax.random.key(0), jax.ShapeDtypeStruct((), "int32"))
    except Exception:
        # Whatever it does with a length that only a run knows, it has worked with a plain one.
        return False
    return True


def _start(problem: Problem, seed):
    """The parameters that a run starts from, and the key that its batches come from."""
    key = jax.random.key(seed)
    return problem.init(key), jax.random.key_data(jax.random.fold_in(key, 1))


@cache
def _starts(problem: Problem):
    """`_start` over an array of seeds; compiled once for all optimizers."""
    return jax.jit(jax.vmap(partial(_start, problem)), compiler_options=compiler_options())


def _arguments(problem: Problem, cells: Sequence[Cell]) -> tuple[Any, ...]:
    trials, seeds = zip(*cells, strict=True)
    places = {seed: place for place, seed in enumerate(dict.fromkeys(seeds))}
    with LAPACK:  # Orthogonal starts come from it.
        starts = jax.block_until_ready(_starts(problem)(jnp.asarray(list(places))))
    which = np.asarray([places[seed] for seed in seeds])
    params, keys = jax.tree.map(lambda leaf: leaf[which], starts)
    rates = jnp.asarray([trial.rate for trial in trials], jnp.float32)
    names = dict(trials[0].options)
    options = {
        name: jnp.asarray([dict(trial.options)[name] for trial in trials], jnp.float32)
        for name in names
    }
    return (rates, options), params, keys


@cache
def _mesh() -> Any:
    return jax.make_mesh((jax.device_count(),), ("runs",), axis_types=(AxisType.Auto,))


def _everywhere(arguments: Any) -> Any:
    """The same arguments as they must lie for a program that spans several processes."""
    if jax.process_count() == 1:
        return arguments
    *shared, bounds, evaluated = arguments
    runs, whole = PartitionSpec("runs"), PartitionSpec()
    specs = (*[jax.tree.map(lambda _: runs, value) for value in shared], whole, whole)

    def place(value, spec):
        sharding = jax.sharding.NamedSharding(_mesh(), spec)
        host = np.asarray(value)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(place, arguments, specs)


def _bytes(tree: Any) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _need(program: Any) -> int:
    """Bytes that a compiled program takes on each device."""
    sizes = program.memory_analysis()
    return (
        sizes.argument_size_in_bytes + sizes.output_size_in_bytes + sizes.temp_size_in_bytes
        if sizes
        else 0
    )
