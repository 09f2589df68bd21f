"""Runs a comparison: every optimizer on every problem, through the store."""

import os
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from optzoo.compare import select
from optzoo.compare.errors import UserError
from optzoo.compare.grid import DEFAULT, FALLBACK, Grid
from optzoo.compare.results import Results
from optzoo.compare.store import STORE_NAME, Chosen, Run, Store
from optzoo.compare.sweep import Sweep, checkpoints
from optzoo.plugins import one_line
from optzoo.problems import Problem
from optzoo.registry import Entry


@dataclass(frozen=True)
class Progress:
    """How far a comparison is; told after every optimizer on every problem.

    Attributes:
      done: finished pairs of optimizer and problem.
      total: all pairs.
      label: the pair that has just finished, in words.
      computed: how many of its runs were computed now.
      reused: how many were in the store already.
      seconds_left: an estimate.
    """

    done: int
    total: int
    label: str
    computed: int
    reused: int
    seconds_left: float


def run(
    optimizers: Iterable[str | Callable[..., Any]] | None = None,
    problems: Iterable[str | Problem | Callable[[], Problem]] | None = None,
    *,
    lrs: Grid | Sequence[float] | None = None,
    seeds: int = 3,
    steps: int | None = None,
    out: str | Path | None = None,
    command: str = "",
    progress: Callable[[Progress], None] = lambda progress: None,
) -> Results:
    """Compares optimizers on problems.

    Args:
      optimizers: names, "package.module:factory" or factories `f(learning_rate, ...)`. Default:
        the registry and the baselines.
      problems: names, "package.module:problem", `Problem`s or functions that return one. Default:
        all.
      lrs: learning rates for everybody, or a `Grid`. Default: five multiples, a tenth to ten
        times, of each rule's own default (0.001 for a plug-in without one); while the best lies
        on the edge the grid grows once by five more on that side.
      seeds: how many seeds; runs with the same seed start equal and see the same batches.
      steps: steps of a run. Default: the problem's own number.
      out: folder for the store, created if need be; runs that it holds already are not repeated.
        Default: results stay in memory.
      command: the command line that led here, for the report.
      progress: called after every optimizer on every problem.

    Returns:
      The results.

    Raises:
      UserError: for anything the arguments ask for that cannot be done.
    """
    grid = lrs if isinstance(lrs, Grid) else DEFAULT if lrs is None else Grid.of(list(lrs))
    for name, value in (("seeds", seeds), ("steps", steps)):
        if value is not None and value < 1:
            raise UserError(f"{name} must be at least 1, not {value}")
    rules, tasks = select.optimizers(optimizers), select.problems(problems)
    for name, problem in tasks.items():
        select.check(name, problem, rules, steps or problem.steps)

    with Store(_store_path(out)) as store:
        store.begin(_about(rules, tasks, grid, seeds, steps, command))
        _run_all(store, rules, tasks, grid, range(seeds), steps, progress)
        return Results.of(store)


def _run_all(
    store: Store,
    rules: dict[str, Entry],
    tasks: dict[str, Problem],
    grid: Grid,
    seeds: Sequence[int],
    steps: int | None,
    progress: Callable[[Progress], None],
) -> None:
    """Every optimizer on every problem, a few at a time."""
    pairs = [(rule, task) for rule in rules for task in tasks]

    def work(pair: tuple[str, str]) -> tuple[int, int]:
        rule, task = pair
        sweep = Sweep(tasks[task], rules[rule], steps or tasks[task].steps)
        default = rules[rule].defaults.get("learning_rate", FALLBACK)
        try:
            return _fill(store, sweep, grid, default, seeds, rule, task)
        except Exception as error:
            raise UserError(f"optimizer {rule!r} on {task!r}: {one_line(error)}") from error

    start = time.perf_counter()
    # Two or more at a time: one compiles while another computes.
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        futures = {pool.submit(work, pair): pair for pair in pairs}
        try:
            for done, future in enumerate(as_completed(futures), 1):
                rule, task = futures[future]
                left = (time.perf_counter() - start) * (len(pairs) - done) / done
                progress(Progress(done, len(pairs), f"{rule} on {task}", *future.result(), left))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _fill(
    store: Store,
    sweep: Sweep,
    grid: Grid,
    default: float,
    seeds: Sequence[int],
    rule: str,
    task: str,
) -> tuple[int, int]:
    """Brings one grid into the store; returns how many runs that took, and how many it spared."""
    program, computed = sweep.fingerprint, 0
    tried: list[float] = []
    rates = grid.rates(default)
    while rates:
        computed += _compute_missing(store, sweep, rates, seeds)
        # The first list may grow once, towards the side where its best lies.
        growing, tried = not tried, sorted(tried + rates)
        rates = grid.beyond(tried, _best(store.find(program, tried, seeds))) if growing else []
    store.choose(Chosen(task, rule, program, default, tried))
    return computed, len(tried) * len(seeds) - computed


def _compute_missing(
    store: Store, sweep: Sweep, rates: Sequence[float], seeds: Sequence[int]
) -> int:
    found = {(run.rate, run.seed) for run in store.find(sweep.fingerprint, rates, seeds)}
    rates = [rate for rate in rates if any((rate, seed) not in found for seed in seeds)]
    seeds = [seed for seed in seeds if any((rate, seed) not in found for rate in rates)]
    if not rates:
        return 0
    outcome = sweep.run(rates, seeds)
    count = len(rates) * len(seeds)
    runs = [
        Run(
            rate,
            seed,
            {name: values[i, j].tolist() for name, values in outcome.curves.items()},
            {name: float(values[i, j]) for name, values in outcome.final.items()},
            outcome.seconds / count,
        )
        for i, rate in enumerate(rates)
        for j, seed in enumerate(seeds)
    ]
    store.save(sweep.fingerprint, runs)
    return count


def _best(runs: Sequence[Run]) -> float:
    """The rate with the lowest mean final validation loss; divergence counts as infinitely bad."""
    rates = sorted({run.rate for run in runs})

    def score(rate: float) -> float:
        loss = np.mean([run.curves["loss"][-1] for run in runs if run.rate == rate])
        return float(loss) if np.isfinite(loss) else np.inf

    return min(rates, key=score)


def _store_path(out: str | Path | None) -> Path | None:
    if out is None:
        return None
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"cannot write to {folder}: permission denied")
    return folder / STORE_NAME


def _about(
    rules: dict[str, Entry],
    tasks: dict[str, Problem],
    grid: Grid,
    seeds: int,
    steps: int | None,
    command: str,
) -> dict[str, Any]:
    """The protocol, as the report tells it."""
    details = {
        name: {
            "summary": task.summary,
            "steps": steps or task.steps,
            "target": task.target,
            "checkpoints": checkpoints(steps or task.steps).tolist(),
        }
        for name, task in tasks.items()
    }
    return {
        "optimizers": list(rules),
        "problems": details,
        "grid": {"values": grid.values, "relative": grid.relative},
        "seeds": seeds,
        "command": command,
        "versions": _versions(),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in ("optzoo", "jax", "optax", "flax"):
        # A checkout that was never installed has no version.
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions
