"""Which settings to try: a grid of learning rates, random search, or Optuna's TPE."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from optzoo.compare.errors import UserError
from optzoo.compare.plan.contestants import Contestant
from optzoo.compare.plan.grid import Grid
from optzoo.compare.plan.select import whole

# Trials that one program trains side by side, and after which the next ones are chosen.
GENERATION = 8
GRID, RANDOM, TPE = "grid", "random", "tpe"
FORMS = f"{GRID}, {RANDOM}:TRIALS or {TPE}:TRIALS"


class Trial(NamedTuple):
    """A setting of one rule; no two trials of a comparison share their rate.

    Attributes:
      rate: the learning rate.
      options: names and values of what else was tuned.
    """

    rate: float
    options: tuple[tuple[str, float], ...] = ()


class Tuner(Protocol):
    """Chooses trials, from what came of those before and from nothing else."""

    @property
    def name(self) -> str:
        """How users call it."""

    def tuned(self, contestant: Contestant) -> list[str]:
        """The arguments that its trials of a rule have options for."""

    def propose(
        self, contestant: Contestant, tried: Sequence[Trial], losses: Sequence[float]
    ) -> list[Trial]:
        """The trials to run next; none when it is done.

        Args:
          contestant: the rule.
          tried: what ran, in the order in which it was proposed.
          losses: the mean final validation loss of each, infinite where it diverged.
        """


@dataclass(frozen=True)
class GridSearch:
    """All learning rates of a grid, and more while the best is the outermost."""

    grid: Grid
    name: str = GRID

    def tuned(self, contestant: Contestant) -> list[str]:
        return []

    def propose(
        self, contestant: Contestant, tried: Sequence[Trial], losses: Sequence[float]
    ) -> list[Trial]:
        if not tried:
            return [Trial(rate) for rate in self.grid.rates(contestant.default_rate)]
        # Of equals the lowest: where everything diverges, the grid grows downwards.
        _, best = min(zip(losses, (trial.rate for trial in tried), strict=True))
        rates = sorted(trial.rate for trial in tried)
        return [Trial(rate) for rate in self.grid.beyond(rates, best)]


@dataclass(frozen=True)
class RandomSearch:
    """Settings drawn at random from the ranges of a rule.

    What two rules share, they share the draws of. The first of many trials are those of few.
    """

    kind: ClassVar[str] = RANDOM
    trials: int

    @property
    def name(self) -> str:
        return f"{self.kind}:{self.trials}"

    def tuned(self, contestant: Contestant) -> list[str]:
        return contestant.options

    def propose(
        self, contestant: Contestant, tried: Sequence[Trial], losses: Sequence[float]
    ) -> list[Trial]:
        return [] if tried else _drawn(contestant, self.trials)


class Tpe(RandomSearch):
    """Optuna's tree-structured Parzen estimator, a generation at a time after a random one."""

    kind = TPE

    def propose(
        self, contestant: Contestant, tried: Sequence[Trial], losses: Sequence[float]
    ) -> list[Trial]:
        count = min(GENERATION, self.trials - len(tried))
        if not tried:
            return _drawn(contestant, count)
        return _suggested(contestant, tried, losses, count) if count else []


def tuner(text: str, grid: Grid | None, default: Grid) -> Tuner:
    """The tuner that a user calls by name.

    Args:
      text: "grid", "random:TRIALS" or "tpe:TRIALS".
      grid: the learning rates asked for, which only a grid takes; None for `default`.
      default: those of a grid if nobody asks for others.

    Raises:
      UserError: for another text, learning rates beside a tuner that chooses them, or a missing
        Optuna.
    """
    kind, _, count = text.partition(":")
    if text == GRID:
        return GridSearch(grid or default)
    if kind not in (RANDOM, TPE):
        raise UserError(f"unknown tuner {text!r}: there are {FORMS}")
    if not count.isdecimal():
        raise UserError(f"tuner {text!r} lacks a number of trials: there are {FORMS}")
    trials = whole(f"the trials of tuner {text!r}", int(count))
    if grid is not None:
        raise UserError(f"tuner {text!r} chooses learning rates itself: leave out the list of them")
    if kind == RANDOM:
        return RandomSearch(trials)
    try:
        import optuna  # noqa: F401
    except ModuleNotFoundError as error:
        raise UserError("tuner tpe needs Optuna: pip install 'optzoo[tune]'") from error
    return Tpe(trials)


def _drawn(contestant: Contestant, count: int) -> list[Trial]:
    shares = {
        name: np.random.default_rng([*name.encode()]).random(count) for name in contestant.space
    }
    places = [{name: float(shares[name][i]) for name in shares} for i in range(count)]
    return _settings(contestant, places, [])


def _suggested(
    contestant: Contestant, tried: Sequence[Trial], losses: Sequence[float], count: int
) -> list[Trial]:
    import optuna

    space = contestant.space
    whole_range: Any = optuna.distributions.FloatDistribution(0.0, 1.0)
    unit = dict.fromkeys(space, whole_range)
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        sampler = optuna.samplers.TPESampler(
            n_startup_trials=1, seed=len(tried), multivariate=True, constant_liar=True
        )
        study = optuna.create_study(sampler=sampler)
        # It looks at the order of the values alone, and takes no infinite ones.
        ranks = np.argsort(np.argsort(losses, kind="stable"), kind="stable")
        for trial, rank in zip(tried, ranks, strict=True):
            values = {"learning_rate": trial.rate, **dict(trial.options)}
            shares = {name: space[name].share(value) for name, value in values.items()}
            told = optuna.trial.create_trial(params=shares, distributions=unit, value=float(rank))
            study.add_trial(told)
        places = [study.ask(unit).params for _ in range(count)]
    finally:
        optuna.logging.set_verbosity(level)
    return _settings(contestant, places, tried)


def _settings(
    contestant: Contestant, places: Sequence[dict[str, float]], tried: Sequence[Trial]
) -> list[Trial]:
    """Trials at places given as shares of the ranges; six digits, and every rate once."""
    taken, made = {trial.rate for trial in tried}, list[Trial]()
    for shares in places:
        values = {name: space.at(shares[name]) for name, space in contestant.space.items()}
        values = {name: float(f"{value:.6g}") for name, value in values.items()}
        rate = values.pop("learning_rate")
        while rate in taken:
            rate = float(f"{1.00001 * rate:.6g}")
        taken.add(rate)
        made.append(Trial(rate, tuple(values.items())))
    return made
