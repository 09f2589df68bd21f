"""An optimizer as it takes part in a comparison."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import optzoo
from optzoo import compose
from optzoo.compare.errors import UserError
from optzoo.compare.plan.grid import FALLBACK
from optzoo.problems import Problem
from optzoo.registry import MULTIPLES, REGISTRY, Entry, Range, Trait

CONSTANT = "constant"


@dataclass(frozen=True)
class Contestant:
    """A rule with its learning-rate schedule and its weight decay.

    Attributes:
      entry: the rule.
      schedule: "constant" or the name of a schedule that knows the number of steps.
      weight_decay: the decay for a rule that has the argument; None for the rule's own default.
      refines: the rule whose recorded gradient norms the schedule is made of; empty for none.
      norms: those norms.
    """

    entry: Entry
    schedule: str = CONSTANT
    weight_decay: float | None = None
    refines: str = ""
    norms: optzoo.GradientNorms | None = field(default=None, compare=False)

    @property
    def terms(self) -> dict[str, Any]:
        """What it is beside the rule."""
        return {name: value for name, value in vars(self).items() if name != "entry"}

    @property
    def default_rate(self) -> float:
        """The rule's own default learning rate, which the grid is centred on."""
        rate = self.entry.defaults.get("learning_rate")
        return float(rate) if isinstance(rate, int | float) else FALLBACK

    @property
    def planned(self) -> bool:
        """Whether what it does at a step depends on the length of the run."""
        return self.schedule != CONSTANT or "total_steps" in self.entry.signature.parameters

    @property
    def space(self) -> dict[str, Range]:
        """Where to look for a good learning rate, and for all else that is not held."""
        rate, low, high = self.default_rate, MULTIPLES.low, MULTIPLES.high
        own = self.entry.ranges.get("learning_rate") or Range(low * rate, high * rate)
        held = {"weight_decay"} if self.weight_decay is not None else set()
        others = self.entry.tunable
        return {"learning_rate": own} | {name: others[name] for name in others if name not in held}

    @property
    def options(self) -> list[str]:
        """The arguments in `space` beside the learning rate."""
        return [name for name in self.space if name != "learning_rate"]

    def gradients(self, problem: Problem) -> int:
        """How many gradients a step costs; where it needs each objective's, as many more."""
        if Trait.GRADIENTS not in self.entry.traits or problem.objectives is None:
            return self.entry.gradients

        def losses(key):
            return problem.objectives(problem.init(key), problem.draw(key, jnp.asarray(0)))

        return self.entry.gradients - 1 + len(jax.eval_shape(losses, jax.random.key(0)))

    def build(
        self, learning_rate: Any, total_steps: Any, **options: Any
    ) -> optax.GradientTransformationExtraArgs:
        """The transformation for a run of `total_steps` steps; `options` are the rule's."""
        if self.weight_decay is not None and "weight_decay" in self.entry.signature.parameters:
            options["weight_decay"] = self.weight_decay
        if self.schedule != CONSTANT:
            options["peak"] = learning_rate
            schedule = REGISTRY[self.schedule]
            learning_rate = schedule.build(
                learning_rate, total_steps=total_steps, **self._earlier(schedule)
            )
        options |= self._earlier(self.entry)
        rule = self.entry.build(learning_rate, total_steps=total_steps, **options)
        return optax.with_extra_args_support(rule)

    def _earlier(self, entry: Entry) -> dict[str, Any]:
        return {compose.EARLIER: self.norms} if _reads_norms(entry) else {}


def paced(counts: Sequence[int] | np.ndarray, gradients: int) -> np.ndarray:
    """The steps that so many gradients pay for; in the end at least one.

    Every run has the same number of gradients, whatever its steps cost.
    """
    steps = np.asarray(counts, np.int32) // gradients
    steps[-1] = max(1, steps[-1])
    return steps


def contestants(
    entries: Mapping[str, Entry], schedules: Sequence[str], weight_decay: float | None
) -> dict[str, Contestant]:
    """Every rule under every schedule, by name; a rule that owns its schedule keeps it.

    Raises:
      UserError: for an unknown schedule, an empty list, or a default learning rate that no grid can
        be centred on.
    """
    if not schedules:
        raise UserError("the list of schedules is empty")
    known = {CONSTANT, *(name for name, entry in REGISTRY.schedules.items() if _is_complete(entry))}
    for schedule in schedules:
        if "(" not in schedule and schedule not in known:
            names = ", ".join(sorted(known))
            raise UserError(f"unknown schedule {schedule!r}: there are {names}")
    if weight_decay is not None and not (
        isinstance(weight_decay, int | float) and 0 <= weight_decay < float("inf")
    ):
        raise UserError(f"weight decay must be a number from 0 up, not {weight_decay!r}")
    chosen = {}
    for name, entry in entries.items():
        default = Contestant(entry).default_rate
        if not 0 < default < float("inf"):
            raise UserError(
                f"optimizer {name!r}: its default learning_rate must be a positive number, not "
                f"{default:g}"
            )
        # Whoever asks for the number of steps has a schedule of its own.
        own = "total_steps" in entry.signature.parameters
        for schedule in [CONSTANT] if own else schedules:
            if "(" in schedule:
                composed = _composed(f"{name}+{schedule}")
                refines = compose.unrefined(composed.name) if _reads_norms(composed) else ""
                chosen[composed.name] = Contestant(composed, CONSTANT, weight_decay, refines)
                continue
            label = name if schedule == CONSTANT else f"{name}+{schedule}"
            refines = compose.unrefined(name) if _reads_norms(entry) else ""
            if schedule != CONSTANT and _reads_norms(REGISTRY[schedule]):
                refines = name
            chosen[label] = Contestant(entry, schedule, weight_decay, refines)
    return chosen


def _composed(rule: str) -> Entry:
    try:
        return compose.entry(rule)
    except ValueError as error:
        raise UserError(str(error)) from error


def _is_complete(schedule: Entry) -> bool:
    """Whether a schedule needs nothing but what every run knows."""
    parameters = schedule.signature.parameters.values()
    required = {p.name for p in parameters if p.default is p.empty}
    return required <= {"learning_rate", "total_steps", compose.EARLIER}


def _reads_norms(entry: Entry) -> bool:
    """Whether a schedule, or one inside a rule, needs the gradient norms of an earlier run."""
    norms = entry.signature.parameters.get(compose.EARLIER)
    return norms is not None and norms.default is norms.empty
