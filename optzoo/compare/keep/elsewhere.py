"""The pairs of a comparison as units of work, which other processes compute."""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple

import jax

from optzoo import compose
from optzoo.compare.engines.spread import TRIES, Failure, spread
from optzoo.compare.engines.versions import versions
from optzoo.compare.errors import PairFailed, UserError
from optzoo.compare.keep.fill import Asked, Fill
from optzoo.compare.keep.store import Store
from optzoo.compare.plan import select
from optzoo.compare.plan.contestants import Contestant
from optzoo.compare.work.cost import PREPARING, step_seconds
from optzoo.compare.work.fingerprint import SETTINGS
from optzoo.compare.work.progress import Progress
from optzoo.problems import Problem


@dataclass(frozen=True)
class Unit:
    """One optimizer on one problem, as another process can compute it.

    Attributes:
      rule, task: what the comparison calls the two.
      origins: what to build the two from.
      contestant: the optimizer's part in the comparison, without what builds it.
      asked: what `Fill` is told of every pair.
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


class Filled(NamedTuple):
    """What `Fill` has to say, and the store that it filled."""

    counts: tuple[int, int]
    unseen: tuple[str, ...]
    kept: bytes


def run_elsewhere(
    executor: Executor,
    store: Store,
    units: Sequence[Unit],
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


def units(
    store: Store,
    asked: Asked,
    rules: Mapping[str, Contestant],
    tasks: Mapping[str, Problem],
    optimizers: Mapping[str, select.Source],
    problems: Mapping[str, select.Source],
) -> list[Unit]:
    """All pairs, with what workers build them from and what the store has of them."""
    settings = {name: jax.config.values[name] for name in SETTINGS}
    made = []
    for task, problem in tasks.items():
        run = (asked.steps or problem.steps) * step_seconds(problem)
        for rule, contestant in rules.items():
            runs = len(asked.tuner.propose(contestant, [], [])) * len(asked.seeds)
            # What was computed before is most likely found again.
            left = 0.0 if store.earlier(task, rule) else runs * run
            # A schedule with arguments has become part of the rule.
            optimizer = optimizers.get(rule.removesuffix(f"+{contestant.schedule}"), rule)
            kept = store.part(task, [rule, contestant.refines])
            origins = optimizer, problems[task]
            words = rule, task, origins, contestant.terms
            made.append(Unit(*words, asked, kept, settings, PREPARING + left))
    return made


def _computed(unit: Unit) -> Filled:
    """Computes a unit, in whatever process this is."""
    for name, value in unit.settings.items():
        jax.config.update(name, value)
    optimizer, origin = unit.origins
    contestant = Contestant(select.optimizer(optimizer), **unit.contestant)
    problem = _built(unit.task, origin)
    with Store(None, unit.kept) as store:
        fill = Fill(store, unit.asked, problem, contestant, unit.rule, unit.task)
        counts = fill()
        fill.measure()
        return Filled(counts, fill.sweep.unseen, store.content())


# A worker gets many units of a problem, and need not load its data for each.
_built = lru_cache(maxsize=4)(select.problem)
