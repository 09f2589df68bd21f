"""Rules by name: `schedule_free(adamp)`, `lookahead(adamw, period=10)`, `adamw+cosine`.

A rule is a name, of the registry, of one of Optax's rules or "package.module:factory", with
arguments in parentheses: a wrapper's first is the rule that it goes around, all others are
name=value. "+" puts a schedule, or several, behind a rule: it makes the learning rate of
everything before it.
"""

import ast
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import optax

from optzoo import plugins
from optzoo.baselines import BASELINES
from optzoo.registry import REGISTRY, Entry, Kind, named, unpublished

NAME = re.compile(r"[A-Za-z_][\w.]*(?::[A-Za-z_][\w.]*)?")
KEYWORD = re.compile(r"([A-Za-z_]\w*)\s*=(?!=)")
# What a schedule may need of an earlier run, so that no text can give it.
EARLIER = "norms"
HOW: dict[Kind, str] = {
    "optimizer": "a rule of its own",
    "wrapper": "a wrapper: write {0}(RULE)",
    "schedule": "a schedule: write RULE+{0}",
}


def build(
    rule: str, learning_rate: Any = None, *, total_steps: int | None = None, norms: Any = None
) -> optax.GradientTransformationExtraArgs:
    """The transformation that a rule written as text describes.

    Args:
      rule: names that compose, such as "muon", "adamp(b1=0.95)", "schedule_free(adamp)",
        "lookahead(adamw+cosine, period=10)" or "package.module:factory". Values are Python's
        numbers, strings, booleans, None and tuples of them.
      learning_rate: a number, or a schedule of the number of finished steps; it reaches everything
        that takes one; where "+" makes a schedule of a number, `peak` gets the number. Default:
        what the text says, else that of the innermost rule.
      total_steps: length of the run, for what plans it to its end.
      norms: gradient norms of an earlier run, for what is refined by them.

    Returns:
      The optimizer.

    Raises:
      ValueError: for an unknown name, a wrong argument or a missing parenthesis; the message is one
        line that shows the place.
    """
    return parse(rule).build(learning_rate, total_steps, norms)


def entry(text: str) -> Entry:
    """A rule written as text as an entry; the registry's own for a name alone.

    Its factory takes the learning rate, the arguments of the innermost rule, and `total_steps`
    and `norms` where any part needs them.

    Raises:
      ValueError: as `build`.
    """
    return parse(text).entry


def unrefined(text: str) -> str:
    """The rule without the schedules that need an earlier run's norms: the one to record."""
    return str(parse(text)._unrefined)


def plugins_in(text: str) -> list[str]:
    """What of a rule is "package.module:name"."""
    return [part.name for part in parse(text)._parts if ":" in part.name]


def split(text: str) -> list[str]:
    """The parts of a list, at the commas that stand outside all parentheses."""
    commas = [at for at in _outside(text) if text[at] == ","]
    starts, ends = [0, *(at + 1 for at in commas)], [*commas, len(text)]
    parts = [text[a:b].strip() for a, b in zip(starts, ends, strict=True)]
    return [part for part in parts if part]


@dataclass(frozen=True)
class Rule:
    """A name with its arguments, as it stands in a text.

    Attributes:
      name: how the text calls it.
      declared: what that is.
      place: what of the text comes before the name, and the rest.
      options: its arguments but for the inside.
      inside: the rule that a wrapper goes around.
      schedules: what follows after "+".
    """

    name: str
    declared: Entry
    place: tuple[str, str]
    options: Mapping[str, Any]
    inside: "Rule | None" = None
    schedules: tuple["Rule", ...] = ()

    def __str__(self) -> str:
        inside = [] if self.inside is None else [str(self.inside)]
        given = [name for name in self._parameters if name in self.options]
        arguments = ", ".join([*inside, *(f"{name}={self.options[name]!r}" for name in given)])
        call = f"{self.name}({arguments})" if arguments else self.name
        return "+".join([call, *map(str, self.schedules)])

    @property
    def entry(self) -> Entry:
        """The registry's own for a name alone; otherwise one whose factory builds all of it."""
        if str(self) in (*REGISTRY, *BASELINES):
            return self.declared

        def factory(
            learning_rate: Any = None,
            *,
            total_steps: int | None = None,
            norms: Any = None,
            **options: Any,
        ):
            return self.build(learning_rate, total_steps, norms, **options)

        keyword = inspect.Parameter.KEYWORD_ONLY
        rate = inspect.Parameter.empty if self._rate is None else self._rate
        core = self._core
        own = [
            p.replace(kind=keyword, default=core.options.get(name, p.default))
            for name, p in core._parameters.items()
            if name not in ("learning_rate", "total_steps")
            and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        ]
        steps = [inspect.Parameter("total_steps", keyword)] if self._planned else []
        if any(part._lacks_norms for part in self._parts):
            steps.append(inspect.Parameter(EARLIER, keyword))
        first = inspect.Parameter(
            "learning_rate", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=rate
        )
        vars(factory)["__signature__"] = inspect.Signature([first, *own, *steps])
        factory.__name__ = factory.__qualname__ = str(self)
        traits = frozenset(trait for part in self._parts for trait in part.declared.traits)
        gradients = 1 + sum(part.declared.gradients - 1 for part in self._parts)
        # What the text says is not tuned.
        ranges = {**core.declared.ranges, **dict.fromkeys(core.options)}
        entry = unpublished(factory, ranges=ranges)
        return replace(entry, traits=traits, gradients=gradients)

    def build(
        self,
        learning_rate: Any,
        total_steps: int | None,
        norms: Any = None,
        peak: Any = None,
        **options: Any,
    ) -> Any:
        """The transformation; `options` go to the innermost rule."""
        if total_steps is None and self._planned:
            raise ValueError(f"{self} needs total_steps, the number of steps of the run")
        rate = self._rate if learning_rate is None else learning_rate
        if self.schedules and peak is None and not callable(rate):
            peak = rate
        for schedule in self.schedules:
            rate = schedule._made(rate, total_steps, **schedule._earlier(norms))
        if self.inside is None:
            return self._made(rate, total_steps, peak, **options)
        inside = self.inside.build(rate, total_steps, norms, peak, **options)
        return self._made(rate, total_steps, peak, **{next(iter(self._parameters)): inside})

    def _made(self, rate: Any, total_steps: int | None, peak: Any = None, **options: Any) -> Any:
        asks = self._parameters.get("learning_rate")
        if rate is None and asks is not None and asks.default is asks.empty:
            raise ValueError(_marked(f"{self.name} needs a learning rate", *self.place))
        known = {"total_steps": 0 if total_steps is None else total_steps, "peak": peak}
        given = {**known, **self.options, "learning_rate": rate, **options}
        try:
            return self.declared.build(**given)
        except ValueError as error:
            raise ValueError(_marked(str(error), *self.place)) from error

    def _earlier(self, norms: Any) -> dict[str, Any]:
        """What the schedule needs of an earlier run."""
        if not self._lacks_norms:
            return {}
        if norms is None:
            raise ValueError(_marked(f"{self.name} needs {EARLIER}=", *self.place))
        return {EARLIER: norms}

    @property
    def _lacks_norms(self) -> bool:
        asks = self.declared.kind == "schedule" and EARLIER in self._parameters
        return asks and EARLIER not in self.options

    @property
    def _unrefined(self) -> "Rule":
        schedules = tuple(part for part in self.schedules if not part._lacks_norms)
        return replace(
            self,
            schedules=schedules,
            inside=None if self.inside is None else self.inside._unrefined,
        )

    @property
    def _parameters(self) -> Mapping[str, inspect.Parameter]:
        return self.declared.signature.parameters

    @property
    def _core(self) -> "Rule":
        return self if self.inside is None else self.inside._core

    @property
    def _parts(self) -> Iterator["Rule"]:
        yield self
        yield from self.schedules
        if self.inside is not None:
            yield from self.inside._parts

    @property
    def _rate(self) -> Any:
        """The learning rate where nobody gives one; None where text and rule have none."""
        rule = self.declared.defaults.get("learning_rate")
        outer = rule if self.inside is None else self.inside._rate
        return self.options.get("learning_rate", outer)

    @property
    def _planned(self) -> bool:
        return any(
            "total_steps" in part._parameters and "total_steps" not in part.options
            for part in self._parts
        )


def parse(text: str) -> Rule:
    """What a text says; see `build`."""
    reader = _Reader(text)
    rule = reader.rule()
    if reader.at < len(text):
        reader.fail("expected the end" if text[reader.at] != ")" else "there is no ( for this )")
    return rule


class _Reader:
    """A text and how far it is read."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def fail(self, what: str, at: int | None = None) -> NoReturn:
        at = self.at if at is None else at
        raise ValueError(_marked(what, self.text[:at], self.text[at:]))

    def take(self, symbol: str) -> bool:
        """Whether the symbol comes next; reads it, and spaces around it."""
        self._skip()
        found = self.text.startswith(symbol, self.at)
        self.at += len(symbol) * found
        self._skip()
        return found

    def _skip(self) -> None:
        while self.text[self.at : self.at + 1].isspace():
            self.at += 1

    def rule(self) -> Rule:
        rule = self.call("optimizer")
        schedules = []
        while self.take("+"):
            schedules.append(self.call("schedule"))
        return replace(rule, schedules=tuple(schedules))

    def call(self, kind: Kind) -> Rule:
        """A name and its arguments; `kind` is what may stand here besides wrappers with insides."""
        self._skip()
        start, found = self.at, NAME.match(self.text, self.at)
        if not found:
            self.fail("expected a name")
        name, self.at = found[0], found.end()
        inside, options, places = None, dict[str, Any](), dict[str, int]()
        if opened := self.take("("):
            opened_at = self.at - 1
        while opened and not self.take(")"):
            if self.at == len(self.text):
                self.fail("this ( is never closed", opened_at)
            if options or inside:
                if not self.take(","):
                    self.fail("expected , or )")
            if keyword := KEYWORD.match(self.text, self.at):
                if keyword[1] in places:
                    self.fail(f"{keyword[1]} is given twice")
                places[keyword[1]], self.at = self.at, keyword.end()
                options[keyword[1]] = self.value()
            elif options or inside or kind == "schedule":
                self.fail("expected name=value")
            else:
                inside = self.rule()
        wanted: Kind = "wrapper" if inside else kind
        declared = self.declared(name, start, wanted)
        rule = Rule(name, declared, (self.text[:start], self.text[start:]), options, inside)
        self.check(rule, wanted, start, places)
        return rule

    def value(self) -> Any:
        """A literal: what comes before the next comma or parenthesis outside all others."""
        self._skip()
        end = next((at for at in _outside(self.text, self.at) if self.text[at] in ",)"), None)
        end = len(self.text) if end is None else end
        try:
            found = ast.literal_eval(self.text[self.at : end].strip())
        except (SyntaxError, ValueError):
            self.fail("expected a number, a string in quotes, True, False, None or a tuple")
        self.at = end
        return found

    def declared(self, name: str, at: int, kind: Kind) -> Entry:
        """What a name says where a `kind` is wanted."""
        try:
            if ":" in name:
                found = plugins.load(name)
                if not callable(found):
                    raise ValueError(f"{name!r} is no function")
                return replace(unpublished(found), kind=kind)
            entry = named(kind, name, {**REGISTRY, **BASELINES})
        except ValueError as error:
            self.fail(str(error), at)
        if entry.kind != kind:
            self.fail(f"{name} is {HOW[entry.kind].format(name)}", at)
        return entry

    def check(self, rule: Rule, kind: Kind, start: int, places: Mapping[str, int]) -> None:
        """That the arguments of a rule exist and none is missing."""
        try:
            parameters = rule.declared.signature.parameters
        except ValueError as error:
            self.fail(f"{rule.name}: {error}", start)
        names = list(parameters)
        if kind != "wrapper" and "learning_rate" not in names:
            self.fail(f"{rule.name} takes no argument learning_rate", start)
        # The first argument is what stands before: a wrapper's inside, a schedule's rate.
        first = names[:1] if kind != "optimizer" else []
        known = {name: parameters[name] for name in names if name not in first}
        open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        for name, place in places.items():
            if name not in known and not open_ended:
                try:
                    named(f"argument of {rule.name}", name, known)
                except ValueError as error:
                    self.fail(str(error), place)
        later = {"learning_rate", "total_steps", *([EARLIER] if kind == "schedule" else [])}
        needed = {*known} - later - {*rule.options}
        for name in needed:
            p = known[name]
            if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
                self.fail(f"{rule.name} needs {name}=", start)


def _marked(what: str, before: str, after: str) -> str:
    """A message with the place in the text that it is about."""
    return what if not before and NAME.fullmatch(after) else f"{what}, at ^ in {before}^{after}"


def _outside(text: str, start: int = 0) -> Iterator[int]:
    """The places in a text that no bracket or quotation mark opened after `start` encloses."""
    depth, quote = 0, ""
    for at in range(start, len(text)):
        symbol = text[at]
        if quote:
            quote = "" if symbol == quote else quote
        elif symbol in "\"'":
            quote = symbol
        elif symbol in ")]" and depth:
            depth -= 1
        elif symbol in "([":
            depth += 1
        elif not depth:
            yield at
