"""Runs a comparison: every optimizer on every problem, through the store."""

import os
import platform
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache, partial
from importlib.metadata import PackageNotFoundError, version
from itertools import chain, product
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import optzoo
from optzoo import compose
from optzoo.compare import machine
from optzoo.compare.engines.spread import TRIES, Failure, spread
from optzoo.compare.engines.versions import versions
from optzoo.compare.errors import NotReused, PairFailed, UserError
from optzoo.compare.keep.answer import answer
from optzoo.compare.keep.folder import held
from optzoo.compare.keep.kept import Kept
from optzoo.compare.keep.store import STORE_NAME, Chosen, Run, Store
from optzoo.compare.machine import agree
from optzoo.compare.plan import select
from optzoo.compare.plan.contestants import CONSTANT, Contestant, contestants, paced
from optzoo.compare.plan.grid import DEFAULT, Grid
from optzoo.compare.plan.tuners import GridSearch, Trial, Tuner, tuner as named_tuner
from optzoo.compare.plan.until import Until
from optzoo.compare.show.notebook import Results
from optzoo.compare.work.cost import PREPARING, step_seconds
from optzoo.compare.work.fingerprint import SETTINGS
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
        asked = (search, range(seeds), steps, "norms" in record, question)
        if executor is None:
            unseen = _run_all(partial(_Fill, store, *asked), rules, tasks, progress)
        else:
            units = _units(store, asked, rules, tasks, *origins)
            unseen = _run_elsewhere(executor, store, units, progress)
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


# What to try, seeds, steps unless they are the problem's own, whether to record norms, and what to
# answer besides.
Asked = tuple[Tuner, Sequence[int], int | None, bool, Until | None]


@dataclass(frozen=True)
class _Unit:
    """One optimizer on one problem, as another process can compute it.

    Attributes:
      rule, task: what the comparison calls the two.
      origins: what to build the two from.
      contestant: the optimizer's part in the comparison, without what builds it.
      asked: what `_Fill` is told of every pair.
      kept: what the store holds of the pair.
      settings: those of JAX that have a say in what is computed.
      seconds: a guess at how long that takes.
    """

    rule: str
    task: str
    origins: tuple[select.Source, select.Source]
    contestant: dict[str, Any]
    asked: Asked
    kept: bytes
    settings: dict[str, Any]
    seconds: float

    @property
    def targets(self) -> list[str]:
        """The plug-ins among what it is built from."""
        rule, problem = (origin if isinstance(origin, str) else "" for origin in self.origins)
        return [*(compose.plugins_in(rule) if rule else []), *([problem] if ":" in problem else [])]


class _Filled(NamedTuple):
    """What `_Fill` has to say, and the store that it filled."""

    counts: tuple[int, int]
    unseen: tuple[str, ...]
    kept: bytes


def _run_elsewhere(
    executor: Executor,
    store: Store,
    units: Sequence[_Unit],
    progress: Callable[[Progress], None],
) -> dict[str, tuple[str, ...]]:
    """All pairs by an executor, each worker on a store of its own; only this process writes ours.

    Returns the operations that fingerprints do not see into, for every pair with such.
    """
    unseen, failed = {}, {}
    costs = [unit.seconds for unit in units]
    expected = versions(chain.from_iterable(unit.targets for unit in units))
    start, spent = time.perf_counter(), 0.0
    with closing(spread(executor, _computed, units, costs, expected)) as results:
        for done, (unit, filled) in enumerate(results, 1):
            label, counts = f"{unit.rule} on {unit.task}", (0, 0)
            if isinstance(filled, Failure):
                failed[label] = filled.reason
            else:
                store.take(filled.kept, unit.task, unit.rule)
                counts = filled.counts
                if filled.unseen:
                    unseen[label] = filled.unseen
            spent += unit.seconds
            left = (time.perf_counter() - start) * (sum(costs) - spent) / spent
            progress(Progress(done, len(units), label, *counts, max(0.0, left)))
    if len(failed) == len(units):
        raise UserError(f"all workers failed: {next(iter(failed.values()))}")
    for label, reason in failed.items():
        warnings.warn(f"{label} failed {TRIES} times: {reason}", PairFailed, stacklevel=3)
    return unseen


def _units(
    store: Store,
    asked: Asked,
    rules: Mapping[str, Contestant],
    tasks: Mapping[str, Problem],
    optimizers: Mapping[str, select.Source],
    problems: Mapping[str, select.Source],
) -> list[_Unit]:
    tuner, seeds, steps, *_ = asked
    settings = {name: jax.config.values[name] for name in SETTINGS}
    units = []
    for task, problem in tasks.items():
        run = (steps or problem.steps) * step_seconds(problem)
        for rule, contestant in rules.items():
            runs = len(tuner.propose(contestant, [], [])) * len(seeds)
            # What was computed before is most likely found again.
            left = 0.0 if store.earlier(task, rule) else runs * run
            # A schedule with arguments has become part of the rule.
            optimizer = optimizers.get(rule.removesuffix(f"+{contestant.schedule}"), rule)
            kept = store.part(task, [rule, contestant.refines])
            origins = optimizer, problems[task]
            words = rule, task, origins, contestant.terms
            units.append(_Unit(*words, asked, kept, settings, PREPARING + left))
    return units


def _computed(unit: _Unit) -> _Filled:
    """Computes a unit, in whatever process this is."""
    for name, value in unit.settings.items():
        jax.config.update(name, value)
    optimizer, problem = unit.origins
    contestant = Contestant(select.optimizer(optimizer), **unit.contestant)
    with Store(None, unit.kept) as store:
        fill = _Fill(
            store, *unit.asked, _built(unit.task, problem), contestant, unit.rule, unit.task
        )
        counts = fill()
        fill.measure()
        return _Filled(counts, fill.sweep.unseen, store.content())


# A worker gets many units of a problem, and need not load its data for each.
_built = lru_cache(maxsize=4)(select.problem)


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
        tuner: Tuner,
        seeds: Sequence[int],
        steps: int | None,
        norms: bool,
        until: Until | None,
        problem: Problem,
        contestant: Contestant,
        rule: str,
        task: str,
    ) -> None:
        self.store, self.tuner, self.seeds, self.rule, self.task = store, tuner, seeds, rule, task
        self.until = until
        steps = steps or problem.steps
        if contestant.refines:
            taken = int(paced([steps], contestant.gradients(problem))[0])
            contestant = replace(contestant, norms=self._recorded(contestant.refines, taken))
        tuned = tuner.tuned(contestant)
        self.sweep = Sweep(problem, contestant, steps, norms=norms, tuned=tuned)
        self.kept = Kept(store, self.sweep)

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
            for run in self.store.find(grid.program, grid.trials, self.seeds):
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
        timed = agree(np.asarray(bool(self.store.costs(program))))
        if self.kept.computed or not timed:
            first = self.tuner.propose(self.sweep.contestant, [], [])
            seconds = self.sweep.seconds_per_step(list(product(first, self.seeds)))
            self.store.save_cost(program, machine.device(), seconds)

    def _fill(self) -> tuple[int, int]:
        contestant, tried, losses = self.sweep.contestant, list[Trial](), list[float]()
        while trials := self.tuner.propose(contestant, tried, losses):
            tried += trials
            means = self.kept.losses(trials, self.seeds)[..., -2].mean(axis=1)
            losses += np.where(np.isnan(means), np.inf, means).tolist()
        program, default = self.sweep.fingerprint, contestant.default_rate
        costs = self.sweep.state_ratio, self.sweep.gradients
        self.store.choose(Chosen(self.task, self.rule, program, default, tried, *costs))
        computed, reused = self.kept.computed, len(tried) * len(self.seeds) - self.kept.computed
        if self.until:
            found, more = answer(self.until, self.kept, tried, self.seeds)
            self.store.answer(self.task, self.rule, found)
            computed += more
        return computed, reused


def _mean_loss(runs: Sequence[Run]) -> float:
    """The mean final validation loss; divergence is infinitely bad."""
    mean = np.mean([run.curves["loss"][-1] for run in runs])
    return float(mean) if np.isfinite(mean) else np.inf


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
