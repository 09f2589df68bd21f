"""From what the user asked for to optimizers and problems that are known to work."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
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
from optzoo.problems import PROBLEMS, Problem
from optzoo.registry import Entry, unpublished


def all_optimizers() -> dict[str, Entry]:
    """The registry and the baselines, by name."""
    return {**optzoo.REGISTRY.optimizers, **BASELINES}


def optimizers(wanted: Iterable[str | Callable[..., Any]] | None) -> dict[str, Entry]:
    """The optimizers to compare, by name.

    Args:
      wanted: what `optzoo.build` reads, families, "baselines" and "all", which is the registry and
        the baselines; or factories `f(learning_rate, ...)`. None for those declared as default.

    Raises:
      UserError: for an unknown name, a plug-in that cannot be imported, or an empty list.
    """
    known = all_optimizers()
    if wanted is None:
        return {name: entry for name, entry in known.items() if entry.default}
    families = optzoo.REGISTRY.optimizers.families
    groups: dict[str, Mapping[str, Entry]] = {**families, "baselines": BASELINES, "all": known}
    chosen: dict[str, Entry] = {}
    for item in wanted:
        if isinstance(item, str) and item in groups:
            chosen.update(groups[item])
        elif isinstance(item, str):
            entry = _composed(item, {**known, **groups})
            chosen[entry.name] = entry
        else:
            chosen[getattr(item, "__name__", repr(item))] = _entry(repr(item), item)
    return _some("optimizer", chosen)


def problems(
    wanted: Iterable[str | Problem | Callable[[], Problem]] | None,
) -> dict[str, Problem]:
    """The problems to compare on, by name.

    Args:
      wanted: names, groups, "package.module:problem", problems, or functions that return one; "all"
        is a group, too. None for the default ones.

    Raises:
      UserError: for an unknown name, a plug-in that cannot be imported or is no problem, or an
        empty list.
    """
    groups = {"all": list(PROBLEMS)}
    for declared in PROBLEMS.values():
        groups.setdefault(declared.group, []).append(declared.name)
    if wanted is None:
        wanted = [declared.name for declared in PROBLEMS.values() if declared.default]
    chosen: dict[str, Problem] = {}
    for item in wanted:
        if isinstance(item, str) and ":" in item:
            chosen[item] = _problem(item, _load("problem", item))
        elif isinstance(item, str):
            names = groups.get(item) or [_named("problem", item, {**PROBLEMS, **groups}).name]
            chosen.update({name: PROBLEMS[name]() for name in names})
        else:
            name = getattr(item, "__name__", "") or getattr(item, "name", "") or "problem"
            chosen[name] = _problem(name, item)
    return _some("problem", chosen)


def check(problem_name: str, problem: Problem, rules: Mapping[str, Contestant], steps: int) -> None:
    """Traces one step of every optimizer on a problem, and computes the loss that it starts from.

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
        return params, batch, reports, seen

    try:
        params, batch, reports, seen = jax.eval_shape(start, jax.random.key(0))
        for report in reports:
            if not isinstance(report, dict) or "loss" not in report:
                raise TypeError('evaluate must return a dictionary with the entry "loss"')
            if any(leaf.shape for leaf in report.values()):
                raise TypeError("evaluate must return scalars")
        if not isinstance(seen, dict) or any(leaf.shape for leaf in seen.values()):
            raise TypeError("observe must return a dictionary of scalars")
        if names := seen.keys() & reports[0].keys():
            raise TypeError(f"observe and evaluate both report {min(names)!r}")
    except Exception as error:
        raise UserError(f"problem {problem_name!r} cannot be traced: {one_line(error)}") from error

    def first(key):
        return problem.evaluate(problem.init(key), SPLITS[0])["loss"]

    loss = float(jax.jit(first, compiler_options=compiler_options())(jax.random.key(0)))
    if not math.isfinite(loss):
        raise UserError(f"problem {problem_name!r} starts at a loss of {loss:g}")

    for name, contestant in rules.items():

        def step(learning_rate, params, batch, contestant=contestant):
            rule = contestant.build(learning_rate, steps)
            gradients, extra = problem.differentiate(params, batch)
            return rule.update(gradients, rule.init(params), params, **extra)

        rate = jax.ShapeDtypeStruct((), "float32")
        try:
            jax.eval_shape(step, rate, params, batch)
        except Exception as error:
            raise UserError(f"optimizer {name!r} on {problem_name!r}: {one_line(error)}") from error


SPLITS = ("validation", "test")


def _named(kind: str, name: str, known: Mapping[str, Any]) -> Any:
    try:
        return registry.named(kind, name, known)
    except ValueError as error:
        raise UserError(str(error)) from error


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
    return dataclasses.replace(found, name=path)
