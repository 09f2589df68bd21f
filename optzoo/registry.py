"""The registry: what an optimizer declares about itself, once, beside its code."""

import enum
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import Any, TypeVar

import optax

Factory = Callable[..., optax.GradientTransformationExtraArgs]
F = TypeVar("F", bound=Factory)
V = TypeVar("V")


class Trait(enum.Enum):
    """What a caller must know about a rule that its signature does not tell."""

    AVERAGES = "evaluate and save eval_params(opt_state, params), not the training parameters"
    COUPLED = "the update of one leaf depends on the other leaves"
    SHAPED = "the update depends on how a leaf's numbers are arranged in axes"
    SCHEDULED = "owns its learning-rate schedule and needs the number of steps in advance"
    SELF_TUNING = "finds its own step size; learning_rate only multiplies it"


@dataclass(frozen=True)
class Entry:
    """One optimizer: its factory and where it comes from; all else derives from these.

    Attributes:
      factory: the public function, `factory(learning_rate, **options)`.
      title: title of the paper.
      authors: the paper's authors, in its order, "Given Family" each.
      year: the year of the paper's first version.
      arxiv: its arXiv identifier; None for what was published elsewhere.
      url: where to read it.
      code: address of the authors' own code, or None where none is public.
      traits: what the signature does not tell; see `Trait`.
      default: whether it belongs to a comparison that names no optimizers.
    """

    factory: Factory
    title: str
    authors: tuple[str, ...]
    year: int
    arxiv: str | None
    url: str
    code: str | None
    traits: frozenset[Trait]
    default: bool = False

    @property
    def name(self) -> str:
        return self.factory.__name__

    @property
    def family(self) -> str:
        """The folder that the factory's file lies in."""
        return self.factory.__module__.split(".")[-2]

    @cached_property
    def signature(self) -> inspect.Signature:
        return inspect.signature(self.factory)

    @property
    def defaults(self) -> dict[str, Any]:
        """Every argument with a default, in the order of the signature."""
        parameters = self.signature.parameters.items()
        return {name: p.default for name, p in parameters if p.default is not p.empty}

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

    def build(self, learning_rate: Any = None, *, total_steps: int, **options: Any):
        """The transformation for a run of `total_steps` steps.

        `learning_rate=None` keeps the rule's own default; `total_steps` reaches only those rules
        that ask for it.
        """
        if learning_rate is not None:
            options["learning_rate"] = learning_rate
        if "total_steps" in self.signature.parameters:
            options.setdefault("total_steps", total_steps)
        return self.factory(**options)


class Registry(Mapping[str, Entry]):
    """The registered optimizers by name, in alphabetical order."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def __getitem__(self, name: str) -> Entry:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: Entry) -> None:
        if entry.name in self._entries:
            raise ValueError(f"an optimizer named {entry.name!r} is registered already")
        self._entries[entry.name] = entry


REGISTRY = Registry()


def get(name: str) -> Entry:
    """The entry of one optimizer.

    Raises:
      ValueError: if no optimizer has that name; the message gives the nearest one.
    """
    return named("optimizer", name, REGISTRY)


def named(kind: str, name: str, known: Mapping[str, V]) -> V:
    """known[name], for a name that somebody typed.

    Raises:
      ValueError: if there is no such name; the message gives the nearest one.
    """
    if name in known:
        return known[name]
    near = get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
    raise ValueError(f"unknown {kind} {name!r}: {hint}")


def optimizer(
    *,
    title: str,
    authors: tuple[str, ...],
    year: int,
    code: str | None,
    arxiv: str | None = None,
    url: str | None = None,
    traits: tuple[Trait, ...] = (),
    default: bool = False,
) -> Callable[[F], F]:
    """Registers the factory it decorates; see `Entry` for the arguments.

    Raises:
      ValueError: without both arxiv and url, or for a name that is registered already.
    """
    link = url or (arxiv and f"https://arxiv.org/abs/{arxiv}")
    if not link:
        raise ValueError(f"optimizer: {title!r} needs an arxiv identifier or a url")

    def register(factory: F) -> F:
        facts = (title, authors, year, arxiv, link, code)
        REGISTRY.add(Entry(factory, *facts, frozenset(traits), default))
        return factory

    return register
