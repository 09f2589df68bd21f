"""From what the user asked for to optimizers and problems that are known to work."""

import dataclasses
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from itertools import chain, count
from typing import Any

import jax
import jax.numpy as jnp

import optzoo
from optzoo import compose, plugins, registry
from optzoo.compare.errors import UserError
from optzoo.compare.machine import compiler_options
from optzoo.compare.plan.baselines import BASELINES
from optzoo.compare.plan.contestants import Contestant
from optzoo.plugins import one_line
from optzoo.problems import LARGE, PROBLEMS, Problem
from optzoo.registry import Entry, unpublished

# What an optimizer or a problem is built from, in any process: its name, or the user's own object.
Source = Any


def all_optimizers() -> dict[str, Entry]:
    """The registry and the baselines, by name."""
    return {**optzoo.REGISTRY.optimizers, **BASELINES}


def optimizers(wanted: Iterable[str | Callable[..., Any]] | None) -> dict[str, Entry]:
    """The optimizers to compare, by name; see `optimizer_sources`."""
    return {name: optimizer(source) for name, source in optimizer_sources(wanted).items()}


def optimizer(source: Source) -> Entry:
    """The optimizer that a source gives.

    Raises:
      UserError: for a plug-in that cannot be imported, or what is no factory.
    """
    if not isinstance(source, str):
        return _entry(repr(source), source)
    return all_optimizers().get(source) or _composed(source, {})


def optimizer_sources(wanted: Iterable[str | Callable[..., Any]] | None) -> dict[str, Source]:
    """What to build the optimizers of a comparison from, by name.

    Args:
      wanted: what `optzoo.build` reads, families, "baselines" and "all", which is the registry and
        the baselines; or factories `f(learning_rate, ...)`, of which those whose name is taken get
        a number. None for those declared as default.

    Raises:
      UserError: for an unknown name, a plug-in that cannot be imported, or an empty list.
    """
    known = all_optimizers()
    if wanted is None:
        return {name: name for name, entry in known.items() if entry.default}
    families = optzoo.REGISTRY.optimizers.families
    groups: dict[str, Mapping[str, Entry]] = {**families, "baselines": BASELINES, "all": known}
    chosen: dict[str, Source] = {}
    own = list[Any]()
    for item in wanted:
        if not isinstance(item, str):
            own.append(item)
        else:
            names = [*groups[item]] if item in groups else [_composed(item, known | groups).name]
            chosen.update({name: name for name in names})
    return _some("optimizer", chosen | _named_apart("optimizer", own, chosen))


def problems(
    wanted: Iterable[str | Problem | Callable[[], Problem]] | None,
) -> dict[str, Problem]:
    """The problems to compare on, by name; see `problem_sources`."""
    return {name: problem(name, source) for name, source in problem_sources(wanted).items()}


def problem(name: str, source: Source) -> Problem:
    """The problem of that name that a source gives.

    Raises:
      UserError: for a plug-in that cannot be imported, or what is no problem.
    """
    if not isinstance(source, str):
        return _problem(name, source)
    return _problem(source, _load("problem", source)) if ":" in source else PROBLEMS[source]()


def problem_sources(
    wanted: Iterable[str | Problem | Callable[[], Problem]] | None,
) -> dict[str, Source]:
    """What to build the problems of a comparison from, by name.

    Args:
      wanted: names, groups, "package.module:problem", problems, or functions that return one, of
        which those whose name is taken get a number; "all" is a group, too, of all but the large
        ones. None for the default ones.

    Raises:
      UserError: for an unknown name, a plug-in that cannot be imported or is no problem, or an
        empty list.
    """
    groups = {"all": [one.name for one in PROBLEMS.values() if one.group != LARGE]}
    for declared in PROBLEMS.values():
        groups.setdefault(declared.group, []).append(declared.name)
    if wanted is None:
        wanted = [declared.name for declared in PROBLEMS.values() if declared.default]
    chosen: dict[str, Source] = {}
    own = list[Any]()
    for item in wanted:
        if not isinstance(item, str):
            own.append(item)
        elif ":" in item:
            chosen[item] = item
        else:
            names = groups.get(item) or [_named("problem", item, {**PROBLEMS, **groups}).name]
            chosen.update({name: name for name in names})
    return _some("problem", chosen | _named_apart("problem", own, chosen))


def check(
    problem_name: str,
    problem: Problem,
    rules: Mapping[str, Contestant],
    steps: int,
    *,
    tuned: Callable[[Contestant], Iterable[str]] = lambda contestant: (),
) -> None:
    """Traces one step of every optimizer on a problem, and computes the loss that it starts from.

    The arguments that `tuned` names of an optimizer are then numbers that only the run knows.

    Raises:
      UserError: if the problem or an optimizer cannot be traced or returns the wrong things, or
        the first loss is not finite.
    """

    def start(key):
        params = problem.init(key)
        batch = problem.draw(key, jnp.asarray(0, "int32"))
        problem.differentiate(params, batch)
        reports = [problem.evaluate(params, split) for split in SPLITS]
        seen = problem.observe(params, params, batch) if problem.observe else {}
        flat = {"point": jnp.zeros(2)}
        heights = problem.evaluate(flat, SPLITS[0]) if problem.box else {}
        return params, batch, reports, seen, heights

    try:
        params, batch, reports, seen, heights = jax.eval_shape(start, jax.random.key(0))
        for report in reports:
            if not isinstance(report, dict) or "loss" not in report:
                raise TypeError('evaluate must return a dictionary with the entry "loss"')
            if any(leaf.shape for leaf in report.values()):
                raise TypeError("evaluate must return scalars")
        if not isinstance(seen, dict) or any(leaf.shape for leaf in seen.values()):
            raise TypeError("observe must return a dictionary of scalars")
        if names := seen.keys() & reports[0].keys():
            raise TypeError(f"observe and evaluate both report {min(names)!r}")
        if problem.box and not {"x", "y"} <= heights.keys():
            raise TypeError('with a box, evaluate must report "x" and "y"')
    except Exception as error:
        raise UserError(f"problem {problem_name!r} cannot be traced: {one_line(error)}") from error

    def first(key):
        return problem.evaluate(problem.init(key), SPLITS[0])["loss"]

    try:
        loss = float(jax.jit(first, compiler_options=compiler_options())(jax.random.key(0)))
    except Exception as error:
        raise UserError(
            f"problem {problem_name!r} cannot be evaluated: {one_line(error)}"
        ) from error
    if not math.isfinite(loss):
        raise UserError(f"problem {problem_name!r} starts at a loss of {loss:g}")

    for name, contestant in rules.items():
        # Any norms will do to try a rule.
        some = optzoo.GradientNorms(*[jnp.ones(steps)] * 2, *[jnp.ones((steps, 1))] * 2)
        contestant = dataclasses.replace(contestant, norms=some)

        def step(learning_rate, options, params, batch, contestant=contestant):
            rule = contestant.build(learning_rate, steps, **options)
            gradients, extra = problem.differentiate(params, batch)
            return rule.update(gradients, rule.init(params), params, **extra)

        rate = jax.ShapeDtypeStruct((), "float32")
        try:
            jax.eval_shape(step, rate, dict.fromkeys(tuned(contestant), rate), params, batch)
        except Exception as error:
            raise UserError(f"optimizer {name!r} on {problem_name!r}: {one_line(error)}") from error


SPLITS = ("validation", "test")


def _named(kind: str, name: str, known: Mapping[str, Any]) -> Any:
    try:
        return registry.named(kind, name, known)
    except ValueError as error:
        raise UserError(str(error)) from error


def _named_apart(kind: str, items: Iterable[Any], taken: Iterable[str]) -> dict[str, Any]:
    """Objects by name, each once, no two under one name and none under a name that is taken."""
    named: dict[str, Any] = {}
    for item in items:
        if any(item is other for other in named.values()):
            continue
        # Of `functools.partial` it is the function that has a name.
        names = [getattr(item, "__name__", ""), getattr(item, "name", "")]
        name = next(
            filter(None, [*names, getattr(getattr(item, "func", None), "__name__", "")]), kind
        )
        numbered = chain([name], (f"{name} ({number})" for number in count(2)))
        named[next(free for free in numbered if free not in {*taken, *named})] = item
    return named


def _composed(text: str, known: Mapping[str, Any]) -> Entry:
    try:
        return compose.entry(text)
    except ValueError as error:
        # A name alone may have been meant for a group.
        if text.isidentifier() and text not in optzoo.REGISTRY:
            _named("optimizer", text, known)
        raise UserError(str(error)) from error


def _some(kind: str, chosen: dict[str, Any]) -> dict[str, Any]:
    if not chosen:
        raise UserError(f"the list of {kind}s is empty")
    return chosen


def _load(kind: str, target: str) -> Any:
    try:
        return plugins.load(target)
    except ValueError as error:
        raise UserError(f"{kind} {error}") from error


def _entry(name: str, factory: Any) -> Entry:
    if not callable(factory):
        raise UserError(f"optimizer {name!r} is not a function of a learning rate")
    try:
        entry = unpublished(factory)
        entry.signature.bind_partial(learning_rate=0.0)
    except (TypeError, ValueError) as error:
        raise UserError(f"optimizer {name!r} takes no argument learning_rate") from error
    return entry


def _problem(path: str, found: Any) -> Problem:
    if callable(found):
        try:
            found = found()
        except Exception as error:
            raise UserError(f"problem {path!r} cannot be built: {one_line(error)}") from error
    if not isinstance(found, Problem):
        raise UserError(f"problem {path!r} is a {type(found).__name__}, not an optzoo Problem")
    target, box = found.target, found.box
    if not _is_number(target):
        raise UserError(f"problem {path!r}: target must be a number, not {target!r}")
    if box is not None and not (len(box) == 4 and all(map(_is_number, box))):
        raise UserError(f"problem {path!r}: box must be four numbers, not {box!r}")
    steps = whole(f"problem {path!r}: steps", found.steps)
    return dataclasses.replace(found, name=path, target=float(target), steps=steps)


def _is_number(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except TypeError:
        return False


def whole(name: str, value: Any) -> int:
    """A count that somebody gave as `name`.

    Raises:
      UserError: if it is no whole number from 1 up.
    """
    try:
        number = operator.index(value)
    except TypeError as error:
        raise UserError(f"{name} must be a whole number, not {value!r}") from error
    if number < 1:
        raise UserError(f"{name} must be at least 1, not {number}")
    return number
