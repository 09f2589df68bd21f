"""The registry and the primitives as subjects of the conformance kit."""

import functools
import inspect
import types
import typing
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import optax
import pytest

import optzoo
from optzoo import compose, primitives
from optzoo.registry import Entry, Trait
from optzoo.testing import Subject, Traits
from optzoo.testing.offers import offers

TOTAL_STEPS = 2000
WINDOW = 20
"""Gradients that a rule keeps to solve for a step: a system of its default size takes seconds."""
ONE_EACH = [
    name for family in optzoo.REGISTRY.families.values() for name in list(family.optimizers)[:1]
]
"""A rule of each family, where what is tested is not the rule."""


def in_turn(rule: str, choices: Sequence[Any], choice: Any):
    """Of what looks at the same in several ways, each rule does one by default; -m slow, all."""
    mine = choices[list(optzoo.REGISTRY).index(rule) % len(choices)]
    return () if choice == mine else pytest.mark.slow


def factory(entry: Entry, total_steps: int = TOTAL_STEPS):
    """The factory with what it requires filled in, and a window that thousands of steps allow."""
    given = {}
    if Trait.SCHEDULED in entry.traits:
        given["total_steps"] = total_steps
    if "window" in entry.defaults:
        given["window"] = WINDOW
    return functools.partial(entry.factory, **given) if given else entry.factory


def traits(entry: Entry) -> Traits:
    """What the registry and the docstring claim, in the kit's words."""
    claimed = " ".join(entry.section("Returns").split())
    return Traits(
        needs_params="It needs the parameters in `update`." in claimed,
        averages=Trait.AVERAGES in entry.traits,
        stochastic=Trait.RANDOM in entry.traits,
        needs=tuple(name for trait in entry.traits for name in trait.arguments),
        couples_leaves=Trait.COUPLED in entry.traits,
        shape_dependent=Trait.SHAPED in entry.traits,
        static=static(entry.factory),
    )


def static(factory) -> tuple[str, ...]:
    """Numeric arguments that are annotated as plain numbers, which no array may replace."""

    def kinds(hint):
        origin, inside = typing.get_origin(hint), typing.get_args(hint)
        if origin is typing.Annotated:
            return kinds(inside[0])
        if origin in (typing.Union, types.UnionType):
            return set().union(*map(kinds, inside))
        return {hint} & {int, float, complex}

    hints = typing.get_type_hints(factory, include_extras=True).items()
    return tuple(name for name, hint in hints if kinds(hint) and complex not in kinds(hint))


def answered(tx: optax.GradientTransformation, entry: Entry):
    """A transformation for plain loops: what its rule asks for, and they do not give, it gets.

    It comes from the kit's loss.
    """
    asked = [name for trait in entry.traits for name in trait.arguments]
    if not asked:
        return tx

    def update(updates, state, params=None, **extra_args):
        offered = offers(params, updates)
        given = {name: offered[name] for name in asked}
        return tx.update(updates, state, params, **given | extra_args)

    return optax.GradientTransformationExtraArgs(tx.init, update)


@functools.cache
def subject(name: str, leaves: int = 64) -> Subject:
    """The subject of one optimizer, shared by all tests, and with it the compilations."""
    entry = optzoo.REGISTRY[name]
    return Subject(
        factory(entry),
        traits=traits(entry),
        eval_params=optzoo.eval_params if Trait.AVERAGES in entry.traits else None,
        leaves=leaves,
        name=name,
    )


def _halved(leaf):
    return jax.ShapeDtypeStruct([max(1, size // 2) for size in leaf.shape], leaf.dtype)


# What primitives require, by the argument's name.
REQUIRED: dict[str, Any] = {
    "base": optax.sgd(0.1),
    "below": 0.1,
    "base_shapes": lambda params: jax.tree.map(_halved, params),
    "decay": 0.9,
    "direction": optax.scale(-1.0),
    "factor": 0.1,
    "key": jax.random.key(0),
    "learning_rate": 0.1,
    "level": 0.5,
    "magnitude": optax.sgd(0.1),
    "mask": None,
    "matrices": optax.sgd(0.1),
    "noise_decay": 0.9,
    "norms": np.linspace(1, 2, 40),  # rising: the first rate is the largest
    "period": 10,
    "rest": optax.sgd(0.01),
    "strength": 1.0,
    "tx": optax.chain(primitives.adam(), optax.scale(-0.01)),
    "warmup_steps": 10,
    "weigh": primitives.equal_norms,
    "weight_decay": 0.1,
}
# These make a part of an update: how it joins the gradient.
PARTS = {
    "dog_step": primitives.multiply,
    "dual_norm": primitives.multiply,
    "friction": primitives.multiply,
    "layer_rms": primitives.divide,
    "norm_adagrad_step": primitives.multiply,
    "radial_decay": primitives.add,
    "rate": primitives.multiply,
    "relative_rate": primitives.multiply,
    "rms": primitives.divide,
    "rss": primitives.divide,
    "unit_rms": primitives.divide,
}


def wrapped(name: str, tx: optax.GradientTransformation, **options: Any):
    """A wrapper of the registry around a transformation, with what else it requires."""
    entry = optzoo.REGISTRY[name]
    inside, *rest = entry.signature.parameters.values()
    needed = {p.name: REQUIRED[p.name] for p in rest if p.default is p.empty} | options
    return entry.factory(tx, **needed)


BASES = ("adamw", "muon")


@functools.cache
def wrapper_subject(name: str, base: str) -> Subject:
    """A wrapper of the registry around a base, as the kit sees it: one factory with numbers."""
    entry = optzoo.REGISTRY[name]
    numbers = {n: v for n, v in entry.defaults.items() if isinstance(v, int | float)}
    inside = compose.entry(base)

    def factory(learning_rate=0.01, **options):
        return wrapped(name, inside.factory(learning_rate), **numbers | options)

    keyword = inspect.Parameter.KEYWORD_ONLY
    rate = inspect.Parameter("learning_rate", keyword, default=0.01)
    own = [inspect.Parameter(n, keyword, default=v) for n, v in numbers.items()]
    vars(factory)["__signature__"] = inspect.Signature([rate, *own])
    # What is random in half precision alone is not in the kit's float32.
    stochastic = None if Trait.RANDOM in entry.traits else False
    # A wrapper that does not need the parameters itself may pass them to a base that does.
    needed = traits(entry).needs_params or None
    claimed = replace(
        traits(entry),
        needs_params=needed,
        stochastic=stochastic,
        shape_dependent=None,
        static=tuple(name for name in static(entry.factory) if name in numbers),
    )
    return Subject(
        factory,
        traits=claimed,
        eval_params=optzoo.eval_params,
        leaves=64,
        name=f"{name}({base})",
    )


def _makes_a_transformation(function: Any) -> bool:
    made = inspect.isfunction(function) and inspect.signature(function).return_annotation
    return isinstance(made, type) and issubclass(made, optax.GradientTransformation)


# The combinators take branches besides arguments.
PRIMITIVES = {
    "merge": lambda: primitives.merge(optax.tree.add, primitives.gradient, primitives.adam()),
    "merge_leaves": lambda: primitives.merge_leaves(
        primitives.add, primitives.gradient, primitives.adam()
    ),
} | {
    name: function
    for name, function in {**vars(primitives), **vars(optzoo)}.items()
    if _makes_a_transformation(function) and name not in {*optzoo.REGISTRY, "merge", "merge_leaves"}
}


@functools.cache
def primitive_subject(name: str) -> Subject:
    """The subject of one public function that makes a transformation but is no optimizer."""
    function = PRIMITIVES[name]
    parameters = inspect.signature(function).parameters
    needed = {arg: REQUIRED[arg] for arg, p in parameters.items() if p.default is p.empty}
    claimed = Traits(static=static(function))
    made = functools.partial(function, **needed)
    if any(isinstance(value, optax.GradientTransformation) for value in needed.values()):
        return Subject(made, traits=claimed, leaves=64, name=name)

    @functools.wraps(made)
    def descending(**arguments):
        direction = made(**arguments)
        if name in PARTS:
            direction = primitives.merge_leaves(PARTS[name], primitives.gradient, direction)
        return optax.chain(direction, optax.scale(-0.01))

    return Subject(descending, traits=claimed, leaves=64, name=name)
