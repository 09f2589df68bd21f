"""Runs a comparison: every optimizer on every problem, through the store."""

import os
import platform
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from contextlib import ExitStack, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path
from typing import Any

import jax

from optzoo.compare import machine
from optzoo.compare.errors import NotReused, UserError
from optzoo.compare.keep.elsewhere import run_elsewhere, units
from optzoo.compare.keep.fill import Asked, Fill
from optzoo.compare.keep.folder import held
from optzoo.compare.keep.store import STORE_NAME, Store
from optzoo.compare.plan import select
from optzoo.compare.plan.contestants import CONSTANT, Contestant, contestants
from optzoo.compare.plan.grid import DEFAULT, Grid
from optzoo.compare.plan.tuners import GridSearch, Tuner, tuner as named_tuner
from optzoo.compare.plan.until import Until
from optzoo.compare.show.notebook import Results
from optzoo.compare.work.progress import Progress
from optzoo.compare.work.relief import relief
from optzoo.compare.work.sweep import checkpoints
from optzoo.problems import Problem

# Times are taken when all pairs begun have ended, so workers wait for the last of them.
PAIRS_A_WORKER = 4


def run(
    problems: Iterable[str | Problem | Callable[[], Problem]] | None = None,
    optimizers: Iterable[str | Callable[..., Any]] | None = None,
    *,
    lrs: Grid | Sequence[float] | None = None,
    tuner: str = "grid",
    schedules: Sequence[str] = (CONSTANT,),
    weight_decay: float | None = None,
    seeds: int = 3,
    steps: int | None = None,
    record: Sequence[str] = (),
    until: float | None = None,
    confidence: float = 0.95,
    test_seeds: int = 8,
    out: str | Path | None = None,
    executor: Executor | None = None,
    command: str = "",
    progress: Callable[[Progress], None] = lambda progress: None,
) -> Results:
    """Compares optimizers on problems.

    Under `jax.distributed`, call it alike in every process: the runs are shared out among all
    devices, every process returns the same results, and the first one writes the store.

    Args:
      problems: names, groups ("landscapes"), "package.module:problem", `Problem`s or functions
        that return one. Default: four quick ones.
      optimizers: names, "package.module:factory" or factories `f(learning_rate, ...)`; "all"
        is everything that has a name. Default: the rules of the ten papers that the zoo began with,
        and the baselines.
      lrs: learning rates for everybody, or a `Grid`. Default: five multiples, a tenth to ten
        times, of each rule's own default (0.001 for a plug-in without one); while the best lies
        on the edge the grid grows by five more on that side, at most three times.
      tuner: "grid" tries those; "random:32" tries so many settings of learning rate, weight decay,
        b1, b2 and whatever else a rule has ranges for (`Entry.tunable`), drawn at random;
        "tpe:32" lets Optuna choose them, eight at a time.
      schedules: "constant" and any others, "cosine" or "cyclical(period=50)": every rule takes
        part under each, except those that own their schedule. Those with arguments are for rules
        that are given by name.
      weight_decay: held at this value for every rule that has the argument. Default: each rule's
        own.
      seeds: how many seeds; runs with the same seed start equal and see the same batches.
      steps: gradients that a run may spend, and so its steps, unless they cost more than one each:
        SAM's cost two, and it takes half as many. Default: the problem's own number.
      record: "norms" keeps the l1 and l2 norm of every step's gradient with each run; a later
        comparison in the same folder makes the schedule of what ends in "+refined" of them. It
        takes those of the best rate, averaged over the seeds.
      until: also find the smallest number of steps that brings every rule's mean test loss below
        this loss; `Results.until` has the answers, `optzoo.compare.plan.until.Until` the
        statistics.
      confidence: of each one-sided test of that.
      test_seeds: how many seeds test it, which have no part in the comparison itself.
      out: folder for the store, created if need be; runs that it holds already are not repeated.
        Default: results stay in memory.
      executor: what computes, one optimizer on one problem at a time: any executor of
        `concurrent.futures`' kind, such as Dask's `client.get_executor()`. Names travel as names;
        of objects their pickles do. Default: this process, on all its devices.
      command: the command line that led here, for the report.
      progress: called after every optimizer on every problem.

    Returns:
      The results.

    Raises:
      UserError: for anything the arguments ask for that cannot be done.

    Warns:
      PairFailed: for every pair that an executor's workers failed at, while the others went on.
      NotReused: where a problem or an optimizer calls what the store cannot see into, such as
        `jax.pure_callback`; its runs are repeated every time.
    """
    grid = lrs if isinstance(lrs, Grid) or lrs is None else Grid.of(list(lrs))
    search = named_tuner(tuner, grid, DEFAULT)
    seeds = select.whole("seeds", seeds)
    steps = None if steps is None else select.whole("steps", steps)
    if unknown := set(record) - {"norms"}:
        raise UserError(f"cannot record {min(unknown)!r}: there are norms")
    question = Until.asked(until, confidence, test_seeds)
    if executor is not None and machine.is_joined():
        raise UserError("joined processes share the runs among themselves, and need no executor")
    folder = Path(out) if out is not None and machine.leads() else None
    with ExitStack() as stack:
        exists = folder is not None and folder.exists()
        if folder and exists:  # Before all that takes time.
            stack.enter_context(held(folder))
        origins = select.optimizer_sources(optimizers), select.problem_sources(problems)
        entries = {name: select.optimizer(origin) for name, origin in origins[0].items()}
        rules = contestants(entries, schedules, weight_decay)
        for name, rule in rules.items():
            if question and rule.refines:
                raise UserError(
                    f"{name!r}: until needs runs of other lengths, for which no norms are recorded"
                )
        tasks = {name: select.problem(name, origin) for name, origin in origins[1].items()}
        for name, problem in tasks.items():
            select.check(name, problem, rules, steps or problem.steps, tuned=search.tuned)
        if folder and not exists:  # Mistakes leave no folder behind.
            stack.enter_context(held(folder))
        store = stack.enter_context(Store(folder and folder / STORE_NAME))
        about = _about(rules, tasks, search, seeds, steps, weight_decay, question, command)
        store.begin(about | {"workers": type(executor).__name__ if executor else ""})
        asked = Asked(search, range(seeds), steps, "norms" in record, question)
        if executor is None:
            unseen = _run_all(partial(Fill, store, asked), rules, tasks, progress)
        else:
            pairs = units(store, asked, rules, tasks, *origins)
            unseen = run_elsewhere(executor, store, pairs, progress)
        if unseen:
            warnings.warn(_not_reused(unseen), NotReused, stacklevel=2)
        return Results.of(store)


def _run_all(
    fill_of: Callable[..., Fill],
    rules: dict[str, Contestant],
    tasks: dict[str, Problem],
    progress: Callable[[Progress], None],
) -> dict[str, tuple[str, ...]]:
    """One problem after the other, or several where rules are few; a few pairs at a time.

    Returns the operations that fingerprints do not see into, for every pair with such.
    """
    unseen = {}
    start, done, total = time.perf_counter(), 0, len(rules) * len(tasks)
    # Two or more at a time: one compiles while another computes. Joined processes must all start
    # the same programs in the same order.
    workers = min(4, os.cpu_count() or 1) if jax.process_count() == 1 else 1
    together = max(1, PAIRS_A_WORKER * workers // len(rules))
    names = list(tasks)
    for first in range(0, len(names), together):
        fills = [
            fill_of(tasks[task], entry, rule, task)
            for task in names[first : first + together]
            for rule, entry in rules.items()
        ]
        with ThreadPoolExecutor(workers) as pool:
            futures = {pool.submit(fill): fill for fill in fills}
            try:
                for future in as_completed(futures):
                    counts, fill = future.result(), futures[future]
                    done += 1
                    left = (time.perf_counter() - start) * (total - done) / done
                    label = f"{fill.rule} on {fill.task}"
                    if fill.sweep.unseen:
                        unseen[label] = fill.sweep.unseen
                    progress(Progress(done, total, label, *counts, left))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        for fill in fills:
            fill.measure()
    return unseen


def _not_reused(unseen: dict[str, tuple[str, ...]]) -> str:
    first, *others = unseen
    more = f" and {len(others)} more" if others else ""
    calls = ", ".join(sorted(set(chain.from_iterable(unseen.values()))))
    return (
        f"{first}{more}: what {calls} does cannot be seen, so these runs are repeated every time, "
        "and never taken from earlier results"
    )


def _about(
    rules: dict[str, Contestant],
    tasks: dict[str, Problem],
    tuner: Tuner,
    seeds: int,
    steps: int | None,
    weight_decay: float | None,
    until: Until | None,
    command: str,
) -> dict[str, Any]:
    """The protocol, as the report tells it."""
    details = {
        name: {
            "summary": task.summary,
            "steps": steps or task.steps,
            "target": task.target,
            "checkpoints": checkpoints(steps or task.steps, path=task.box is not None).tolist(),
            "box": task.box,
            "relief": relief(task),
        }
        for name, task in tasks.items()
    }
    return {
        "optimizers": list(rules),
        "problems": details,
        "tuner": tuner.name,
        "grid": _grid(tuner),
        "schedules": sorted({rule.schedule for rule in rules.values()}),
        "weight_decay": weight_decay,
        "seeds": seeds,
        "until": until and asdict(until),
        "command": command,
        "versions": _versions(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _grid(tuner: Tuner) -> dict[str, Any]:
    """The rates of a grid; none, as multiples of the defaults, for who draws them."""
    grid = tuner.grid if isinstance(tuner, GridSearch) else Grid((), relative=True)
    return {"values": grid.values, "relative": grid.relative}


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in ("optzoo", "jax", "optax", "flax"):
        # A checkout that was never installed has no version.
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions
