"""The registry: what a rule, wrapper or schedule declares about itself, once, beside its code."""

import enum
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from typing import Any, Literal, TypeVar, get_args

Kind = Literal["optimizer", "wrapper", "schedule"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Factory = Callable[..., Any]
F = TypeVar("F", bound=Factory)
V = TypeVar("V")


class Trait(enum.Enum):
    """What a caller must know about an entry that its signature does not tell."""

    AVERAGES = "evaluate and save eval_params(opt_state, params), not the training parameters"
    COUPLED = "the update of one leaf depends on the other leaves"
    SHAPED = "the update depends on how a leaf's numbers are arranged in axes"
    SCHEDULED = "owns its learning-rate schedule and needs the number of steps in advance"
    SELF_TUNING = "finds its own step size; learning_rate only multiplies it"
    RANDOM = "the update depends on a random key in the state"
    VALUE = "update needs value=, the loss of this step's batch"
    VALUE_FN = "update needs value_fn=, the loss of this step's batch as a function of parameters"
    OUTPUTS = (
        "update needs outputs_fn=, the model's outputs on this step's batch as a function of "
        "parameters, and loss_fn=, the loss as a function of outputs"
    )
    GRADIENTS = "update needs gradients=, one for each objective along a leading axis"
    VALUES = "update needs values=, the loss of each objective in one vector"

    @property
    def arguments(self) -> tuple[str, ...]:
        """The extra arguments of `update` that it is about."""
        return ARGUMENTS.get(self, ())


ARGUMENTS = {
    Trait.VALUE: ("value",),
    Trait.VALUE_FN: ("value_fn",),
    Trait.OUTPUTS: ("outputs_fn", "loss_fn"),
    Trait.GRADIENTS: ("gradients",),
    Trait.VALUES: ("values",),
}


@dataclass(frozen=True)
class Range:
    """Where to look for a good value of an argument.

    Attributes:
      low, high: its ends.
      scale: what is spread evenly: the value ("linear"), its logarithm ("log"), or the logarithm of
        its distance to 1 ("decay"), for averages that forget.

    Raises:
      ValueError: for ends in the wrong order, or beyond what the scale has logarithms of.
    """

    low: float
    high: float
    scale: Literal["linear", "log", "decay"] = "log"

    def __post_init__(self) -> None:
        known = {"linear": -math.inf < self.low, "log": 0 < self.low, "decay": self.high < 1}
        if not (known[self.scale] and self.low < self.high < math.inf):
            raise ValueError(f"{self!r} is no range")

    def at(self, share: float) -> float:
        """The value at a share of the way from `low` to `high`."""
        low, high = self._to(self.low), self._to(self.high)
        return self._from(low + share * (high - low))

    def share(self, value: float) -> float:
        """Where a value lies, from 0 to 1; values outside count as the nearest end."""
        low, high = self._to(self.low), self._to(self.high)
        return min(max((self._to(value) - low) / (high - low), 0.0), 1.0)

    def _to(self, value: float) -> float:
        if self.scale == "linear":
            return value
        return math.log(value) if self.scale == "log" else -math.log(1 - value)

    def _from(self, place: float) -> float:
        if self.scale == "linear":
            return place
        return math.exp(place) if self.scale == "log" else 1 - math.exp(-place)


RANGES = {
    "weight_decay": Range(1e-4, 1.0),
    "b1": Range(0.5, 0.995, "decay"),
    "momentum": Range(0.5, 0.995, "decay"),
    "b2": Range(0.8, 0.9995, "decay"),
}
"""Where to look for arguments that mean the same in every rule, unless it declares otherwise."""
MULTIPLES = Range(1 / 30, 30.0)
"""Where to look for the learning rate, as a multiple of the rule's own default."""


@dataclass(frozen=True)
class Entry:
    """What is registered: a factory and where it comes from; all else derives from these.

    Attributes:
      factory: the public function. An optimizer is `factory(learning_rate, **options)`, a wrapper
        `factory(tx, **options)` around a transformation, a schedule
        `factory(learning_rate, **options)`, which returns a function of the finished steps.
      title: title of the paper.
      authors: the paper's authors, in its order, "Given Family" each.
      year: the year of the paper's first version.
      arxiv: its arXiv identifier; None for what was published elsewhere.
      url: where to read it.
      code: address of the authors' own code, or None where none is public.
      traits: what the signature does not tell; see `Trait`.
      kind: "optimizer", "wrapper" or "schedule".
      default: whether it belongs to a comparison that names no optimizers.
      gradients: how many gradients (forward and backward passes of the same batch) a step costs at
        most; of a wrapper, how many around a rule that takes one.
      ranges: where to look for good values of its arguments, beside and instead of `RANGES`; None
        for what is not to be tuned.
    """

    factory: Factory
    title: str
    authors: tuple[str, ...]
    year: int
    arxiv: str | None
    url: str
    code: str | None
    traits: frozenset[Trait]
    kind: Kind = "optimizer"
    default: bool = False
    gradients: int = 1
    ranges: Mapping[str, Range | None] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.factory.__name__

    @property
    def family(self) -> str:
        """The folder of `optzoo.optimizers`, or the file of `optzoo.primitives`, it lies in."""
        package, *parts = self.factory.__module__.split(".")
        return parts[1] if package == "optzoo" and len(parts) > 1 else ""

    @cached_property
    def signature(self) -> inspect.Signature:
        return inspect.signature(self.factory)

    @property
    def defaults(self) -> dict[str, Any]:
        """Every argument with a default, in the order of the signature."""
        parameters = self.signature.parameters.items()
        return {name: p.default for name, p in parameters if p.default is not p.empty}

    @property
    def tunable(self) -> dict[str, Range]:
        """Where to look for good values of what a rule has numbers for, but its learning rate."""
        numbers = {
            name
            for name, value in self.defaults.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        known = {**RANGES, **self.ranges}
        ranges = {name: known.get(name) for name in self.defaults if name in numbers}
        return {name: one for name, one in ranges.items() if one and name != "learning_rate"}

    @property
    def _doc(self) -> list[str]:
        return (inspect.getdoc(self.factory) or "").splitlines() or [""]

    @property
    def summary(self) -> str:
        """The first line of the factory's docstring, without its full stop."""
        return self._doc[0].rstrip(".")

    def section(self, title: str) -> str:
        """The text under `title:` in the factory's docstring; empty where there is none."""
        lines = iter(self._doc)
        if f"{title}:" not in lines:
            return ""
        body = []
        for line in lines:
            if line and not line.startswith(" "):
                break
            body.append(line)
        return inspect.cleandoc("\n" + "\n".join(body)).strip()

    def build(
        self, learning_rate: Any = None, *, total_steps: int, peak: Any = None, **options: Any
    ) -> Any:
        """What the factory makes for a run of `total_steps` steps.

        `learning_rate=None` keeps the rule's own default; `learning_rate`, `total_steps` and
        `peak`, the largest rate where `learning_rate` is a schedule, reach only those that ask for
        them. A wrapper takes its transformation as an option, by name.
        """
        if learning_rate is not None and "learning_rate" in self.signature.parameters:
            options["learning_rate"] = learning_rate
        if "total_steps" in self.signature.parameters:
            options.setdefault("total_steps", total_steps)
        if peak is not None and "peak" in self.signature.parameters:
            options.setdefault("peak", peak)
        return self.factory(**options)


class Registry(Mapping[str, Entry]):
    """Entries by name, in alphabetical order; no two share a name, whatever their kinds."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._entries = {entry.name: entry for entry in entries}

    def __getitem__(self, name: str) -> Entry:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: Entry) -> None:
        if entry.name in self._entries:
            raise ValueError(f"an entry named {entry.name!r} is registered already")
        self._entries[entry.name] = entry

    @property
    def optimizers(self) -> "Registry":
        return self.of(kind="optimizer")

    @property
    def wrappers(self) -> "Registry":
        return self.of(kind="wrapper")

    @property
    def schedules(self) -> "Registry":
        return self.of(kind="schedule")

    @property
    def families(self) -> dict[str, "Registry"]:
        """The entries of each family, in alphabetical order."""
        names = sorted({entry.family for entry in self.values()})
        return {name: self.of(family=name) for name in names}

    def family(self, name: str) -> "Registry":
        """The entries of one family.

        Raises:
          ValueError: if there is no such family; the message gives the nearest one.
        """
        return named("family", name, self.families)

    def of(self, *, kind: Kind | None = None, family: str | None = None) -> "Registry":
        """The entries of a kind, a family, or both; None means any."""
        return Registry(
            entry
            for entry in self.values()
            if kind in (None, entry.kind) and family in (None, entry.family)
        )


REGISTRY = Registry()


def get(name: str) -> Entry:
    """The entry of one optimizer, wrapper or schedule.

    Raises:
      ValueError: if nothing has that name; the message gives the nearest one.
    """
    return named("optimizer", name, REGISTRY)


def unpublished(
    factory: Factory, *, default: bool = False, ranges: Mapping[str, Range | None] | None = None
) -> Entry:
    """An entry for a factory that is not in the registry: it can be run, but has no paper."""
    facts = "", (), 0, None, "", None, frozenset[Trait]()
    return Entry(factory, *facts, default=default, ranges=ranges or {})


def named(kind: str, name: str, known: Mapping[str, V]) -> V:
    """known[name], for a name that somebody typed.

    Raises:
      ValueError: if there is no such name; the message gives the nearest one, or says that it is
        a family's.
    """
    if name in known:
        return known[name]
    if name in REGISTRY.families:
        raise ValueError(f"{name} is a family: name one of its members")
    near = get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
    raise ValueError(f"unknown {kind} {name!r}: {hint}")


class Declaration:
    """A decorator that registers a factory as an entry of one kind."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind

    def __call__(
        self,
        *,
        title: str,
        authors: tuple[str, ...],
        year: int,
        code: str | None,
        arxiv: str | None = None,
        url: str | None = None,
        traits: tuple[Trait, ...] = (),
        default: bool = False,
        gradients: int = 1,
        ranges: Mapping[str, Range | None] | None = None,
    ) -> Callable[[F], F]:
        """Registers the factory it decorates; see `Entry` for the arguments.

        Raises:
          ValueError: without both arxiv and url, for a name that is registered already, or for
            the range of an argument that there is not.
        """
        kind, link = self.kind, url or (arxiv and f"https://arxiv.org/abs/{arxiv}")
        if not link:
            raise ValueError(f"{kind}: {title!r} needs an arxiv identifier or a url")

        def register(factory: F) -> F:
            facts = title, authors, year, arxiv, link, code, frozenset(traits)
            entry = Entry(factory, *facts, kind, default, gradients, ranges or {})
            if unknown := entry.ranges.keys() - entry.signature.parameters.keys():
                raise ValueError(f"{entry.name} has no argument {min(unknown)!r} to range over")
            REGISTRY.add(entry)
            return factory

        return register


optimizer = Declaration("optimizer")
wrapper = Declaration("wrapper")
schedule = Declaration("schedule")
