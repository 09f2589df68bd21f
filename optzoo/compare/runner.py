"""Runs a comparison: every optimizer on every problem, through the store."""

import os
import platform
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import chain, product
from pathlib import Path
from typing import Any

import jax
import numpy as np

import optzoo
from optzoo.compare.errors import NotReused, UserError
from optzoo.compare.keep.store import STORE_NAME, Chosen, Run, Store
from optzoo.compare.machine import agree
from optzoo.compare.plan import select
from optzoo.compare.plan.contestants import CONSTANT, Contestant, contestants, paced
from optzoo.compare.plan.grid import DEFAULT, Grid
from optzoo.compare.show.notebook import Results
from optzoo.compare.work.progress import Progress
from optzoo.compare.work.relief import relief
from optzoo.compare.work.sweep import Sweep, checkpoints
from optzoo.plugins import one_line
from optzoo.problems import Problem

# Times are taken when all pairs begun have ended, so workers wait for the last of them.
PAIRS_A_WORKER = 4


def run(
    problems: Iterable[str | Problem | Callable[[], Problem]] | None = None,
    optimizers: Iterable[str | Callable[..., Any]] | None = None,
    *,
    lrs: Grid | Sequence[float] | None = None,
    schedules: Sequence[str] = (CONSTANT,),
    weight_decay: float | None = None,
    seeds: int = 3,
    steps: int | None = None,
    record: Sequence[str] = (),
    out: str | Path | None = None,
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
      out: folder for the store, created if need be; runs that it holds already are not repeated.
        Default: results stay in memory.
      command: the command line that led here, for the report.
      progress: called after every optimizer on every problem.

    Returns:
      The results.

    Raises:
      UserError: for anything the arguments ask for that cannot be done.

    Warns:
      NotReused: where a problem or an optimizer calls what the store cannot see into, such as
        `jax.pure_callback`; its runs are repeated every time.
    """
    grid = lrs if isinstance(lrs, Grid) else DEFAULT if lrs is None else Grid.of(list(lrs))
    seeds = select.whole("seeds", seeds)
    steps = None if steps is None else select.whole("steps", steps)
    if unknown := set(record) - {"norms"}:
        raise UserError(f"cannot record {min(unknown)!r}: there are norms")
    rules = contestants(select.optimizers(optimizers), schedules, weight_decay)
    tasks = select.problems(problems)
    for name, problem in tasks.items():
        select.check(name, problem, rules, steps or problem.steps)

    with Store(_store_path(out)) as store:
        store.begin(_about(rules, tasks, grid, seeds, steps, weight_decay, command))
        fill = partial(_Fill, store, grid, range(seeds), steps, "norms" in record)
        unseen = _run_all(fill, rules, tasks, progress)
        if unseen:
            warnings.warn(_not_reused(unseen), NotReused, stacklevel=2)
        return Results.of(store)


def _run_all(
    fill_of: Callable[..., "_Fill"],
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


class _Fill:
    """Brings the runs of one optimizer on one problem into the store."""

    def __init__(
        self,
        store: Store,
        grid: Grid,
        seeds: Sequence[int],
        steps: int | None,
        norms: bool,
        problem: Problem,
        contestant: Contestant,
        rule: str,
        task: str,
    ) -> None:
        self.store, self.grid, self.seeds, self.rule, self.task = store, grid, seeds, rule, task
        steps = steps or problem.steps
        if contestant.refines:
            taken = int(paced([steps], contestant.gradients(problem))[0])
            contestant = replace(contestant, norms=self._recorded(contestant.refines, taken))
        self.sweep = Sweep(problem, contestant, steps, norms=norms)
        self.computed = 0

    def __call__(self) -> tuple[int, int]:
        """Computes what is missing; returns how many runs that took, and how many it spared."""
        try:
            return self._fill()
        except UserError:
            raise
        except Exception as error:
            where = f"optimizer {self.rule!r} on {self.task!r}"
            raise UserError(f"{where}: {one_line(error)}") from error

    def _recorded(self, rule: str, steps: int) -> optzoo.GradientNorms:
        """The norms that an earlier comparison recorded of a rule here, at its best rate."""
        found = np.full((2, steps), np.nan)
        for grid in self.store.earlier(self.task, rule):
            by_rate: dict[float, list[Run]] = {}
            for run in self.store.find(grid.program, grid.rates, self.seeds):
                if len(run.curves.get("gradient_l2", ())) == steps:
                    by_rate.setdefault(run.rate, []).append(run)
            if by_rate:
                best = by_rate[min(by_rate, key=lambda rate: _mean_loss(by_rate[rate]))]
                rows = [[run.curves[f"gradient_{kind}"] for run in best] for kind in ("l1", "l2")]
                found = np.mean(np.asarray(rows, float), axis=1)
                break
        l1, l2 = agree(found)
        if np.isnan(l1).any():
            raise UserError(
                f"{self.rule!r} on {self.task!r} needs the gradient norms of {rule!r} over "
                f"{steps} steps: record them first, with --record norms and the same --out, "
                "--steps and --seeds"
            )
        return optzoo.GradientNorms(l1, l2, l1[:, None], l2[:, None])

    def measure(self) -> None:
        """Times a step, with nothing else going on, after new runs or where a stop prevented it."""
        program = self.sweep.fingerprint
        timed = agree(np.asarray(self.store.is_timed(program)))
        if self.computed or not timed:
            rates = self.grid.rates(self.sweep.contestant.default_rate)
            seconds = self.sweep.seconds_per_step(list(product(rates, self.seeds)))
            self.store.save_cost(program, seconds)

    def _fill(self) -> tuple[int, int]:
        default = self.sweep.contestant.default_rate
        tried: list[float] = []
        rates = self.grid.rates(default)
        while rates:
            tried = sorted(tried + rates)
            self._compute_missing(rates)
            rates = self.grid.beyond(tried, self._best(tried))
        costs = self.sweep.state_ratio, self.sweep.gradients
        program = self.sweep.fingerprint
        self.store.choose(Chosen(self.task, self.rule, program, default, tried, *costs))
        return self.computed, len(tried) * len(self.seeds) - self.computed

    def _losses(self, rates: Sequence[float]) -> np.ndarray:
        """Final validation losses as far as the store knows them, shape (rates, seeds).

        NaN where a run diverged, infinity where it is missing. The first process's store counts.
        """
        losses = np.full((len(rates), len(self.seeds)), np.inf)
        for run in self.store.find(self.sweep.fingerprint, rates, self.seeds):
            loss = run.curves["loss"][-1]
            place = rates.index(run.rate), self.seeds.index(run.seed)
            losses[place] = loss if np.isfinite(loss) else np.nan
        return agree(losses)

    def _compute_missing(self, rates: Sequence[float]) -> None:
        missing = np.argwhere(np.isinf(self._losses(rates)))
        cells = [(rates[i], self.seeds[j]) for i, j in missing]
        if not cells:
            return
        outcome = self.sweep.run(cells)
        runs = [
            Run(
                *cell,
                {name: values[i].tolist() for name, values in outcome.curves.items()},
                {name: float(values[i]) for name, values in outcome.final.items()},
            )
            for i, cell in enumerate(cells)
        ]
        self.store.save(self.sweep.fingerprint, runs)
        self.computed += len(cells)

    def _best(self, rates: Sequence[float]) -> float:
        """The rate with the lowest mean final validation loss; divergence is infinitely bad."""
        means = self._losses(rates).mean(axis=1)
        return rates[int(np.argmin(np.where(np.isnan(means), np.inf, means)))]


def _mean_loss(runs: Sequence[Run]) -> float:
    """The mean final validation loss; divergence is infinitely bad."""
    mean = np.mean([run.curves["loss"][-1] for run in runs])
    return float(mean) if np.isfinite(mean) else np.inf


def _store_path(out: str | Path | None) -> Path | None:
    if out is None or jax.process_index() > 0:
        return None
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        # A name with a null character is a ValueError.
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot write to {folder}: {reason}") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"cannot write to {folder}: permission denied")
    return folder / STORE_NAME


def _about(
    rules: dict[str, Contestant],
    tasks: dict[str, Problem],
    grid: Grid,
    seeds: int,
    steps: int | None,
    weight_decay: float | None,
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
        "grid": {"values": grid.values, "relative": grid.relative},
        "schedules": sorted({rule.schedule for rule in rules.values()}),
        "weight_decay": weight_decay,
        "seeds": seeds,
        "command": command,
        "versions": _versions(),
        "device": _device(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _device() -> str:
    kind = jax.devices()[0].device_kind
    cores = f", {os.cpu_count()} cores" if kind == "cpu" else ""
    return f"{jax.device_count()} x {kind}{cores}"


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in ("optzoo", "jax", "optax", "flax"):
        # A checkout that was never installed has no version.
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions
