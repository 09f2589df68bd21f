"""Random trees, dtypes, arguments and gradients: finite in, finite out, and only clear errors."""

import math
import types
import typing
from typing import Any, Literal

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import strategies as st
from subjects import TOTAL_STEPS, answered

import optzoo
from optzoo.primitives.base import Range
from optzoo.registry import Entry, Trait
from optzoo.testing.offers import offers
from optzoo.testing.trees import all_finite, same_types

# Few shapes, since eager JAX compiles every operation once a shape.
SHAPES = [(), (1,), (3,), (2, 3), (3, 2), (1, 4), (0, 3), (2, 2, 3), (2, 1, 2, 3), (2, 2, 1, 2, 2)]
NAMES = ["kernel", "bias", "embedding", "head", "scale", "w_in"]
DTYPES = [jnp.float32, jnp.bfloat16, jnp.float16]


@st.composite
def leaves(draw):
    """A description of one leaf: shape, dtype and the size of its parameters."""
    return draw(st.sampled_from(SHAPES)), draw(st.sampled_from(DTYPES)), draw(sizes(-3, 2))


def sizes(low: float, high: float) -> st.SearchStrategy:
    """Zero, or a power of ten."""
    return st.just(0.0) | st.floats(low, high).map(lambda exponent: 10.0**exponent)


modules = st.dictionaries(st.sampled_from(NAMES), leaves() | st.none(), max_size=3)
trees = modules | st.dictionaries(st.sampled_from(["block_0", "attention"]), modules, max_size=2)


def arguments(entry: Entry) -> st.SearchStrategy[dict[str, Any]]:
    """Values for any of the factory's numeric, boolean and literal arguments."""
    hints = typing.get_type_hints(entry.factory, include_extras=True)
    found = {
        name: _values(hints[name], default)
        for name, default in entry.defaults.items()
        if not callable(default)
    }
    known = {name: strategy for name, strategy in found.items() if strategy is not None}
    return st.fixed_dictionaries({}, optional=known)


def _values(hint: Any, default: Any) -> st.SearchStrategy | None:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        parts = [part for part in typing.get_args(hint) if part is not type(None)]
        inner = [values for part in parts if (values := _values(part, default)) is not None]
        return st.none() | inner[0] if default is None and inner else inner[0] if inner else None
    if typing.get_origin(hint) is Literal:
        return st.sampled_from(typing.get_args(hint))
    if hint is bool:
        return st.booleans()
    for note in getattr(hint, "__metadata__", ()):
        if isinstance(note, Range):
            return _within(note, default)
    return None


def _within(allowed: Range, default: Any) -> st.SearchStrategy:
    low, high = (float(bound) for bound in allowed.interval[1:-1].split(","))
    if math.isfinite(high):
        return st.floats(low + 1e-3, high - 1e-3)
    if allowed.whole:
        # Each compiles anew.
        return st.sampled_from([1, 5])
    if low == 1:
        return st.integers(1, 20)
    if not default:
        return st.sampled_from([default, 1e-3, 0.1])
    # A power or a step size of 100 overflows by right.
    return st.floats(-2, 0.3 if default >= 1 else 2).map(lambda exponent: default * 10.0**exponent)


@st.composite
def cases(draw, entry: Entry):
    """Arguments, parameters and the gradients of three steps."""
    options = draw(arguments(entry))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shapes, spread = draw(trees), [draw(sizes(-6, 6)) for _ in range(3)]

    def array(leaf, size):
        shape, dtype, _ = leaf
        size = min(size, 1.0) if dtype == jnp.float16 else size
        return jnp.asarray(size * rng.standard_normal(shape), jnp.float32).astype(dtype)

    def made(fn):
        return jax.tree.map(fn, shapes, is_leaf=lambda node: isinstance(node, tuple))

    params = made(lambda leaf: array(leaf, leaf[2]))
    return options, params, [made(lambda leaf, s=size: array(leaf, s)) for size in spread]


def fuzz(entry: Entry, examples: int) -> None:
    """Tries one optimizer on random cases."""

    @hypothesis.settings(max_examples=examples, database=None)
    @hypothesis.given(cases(entry))
    def run(case):
        options, params, gradients = case
        if Trait.SCHEDULED in entry.traits:
            options = {"total_steps": TOTAL_STEPS, **options}
        tx = answered(entry.factory(**options), entry)
        state = tx.init(params)
        for gradient in gradients:
            # Options may ask for more than the rule's traits do.
            given = offers(params, gradient) | {"previous_grad": gradient}
            # The loss that is offered is written as users write theirs.
            with jax.numpy_dtype_promotion("standard"):
                updates, new = tx.update(gradient, state, params, **given)
            same_types("the updates", updates, params)
            same_types("state leaves", jax.eval_shape(_itself, new), jax.eval_shape(_itself, state))
            all_finite("the updates", updates)
            params, state = optax.apply_updates(params, updates), new

    run()


def _itself(tree: Any) -> Any:
    return tree


@pytest.mark.parametrize("name", optzoo.REGISTRY.optimizers)
def test_random_cases(name):
    fuzz(optzoo.REGISTRY[name], 20)


@pytest.mark.slow
@pytest.mark.parametrize("name", optzoo.REGISTRY.optimizers)
def test_many_random_cases(name):
    fuzz(optzoo.REGISTRY[name], 2000)


@pytest.mark.parametrize("name", optzoo.REGISTRY.optimizers)
def test_arguments_out_of_range_raise_errors_that_name_them(name):
    entry = optzoo.REGISTRY[name]
    hints = typing.get_type_hints(entry.factory, include_extras=True)
    ranged = [arg for arg in entry.defaults if _range(hints[arg])]
    assert "learning_rate" in ranged

    @hypothesis.settings(max_examples=30, database=None)
    @hypothesis.given(st.sampled_from(ranged), st.sampled_from([-1.0, -1e-9, math.nan]))
    def run(argument, value):
        with pytest.raises(ValueError, match=rf"{argument} must lie in .*; got {value!r}"):
            entry.build(total_steps=TOTAL_STEPS, **{argument: value})

    run()


def _range(hint: Any) -> bool:
    notes = [*getattr(hint, "__metadata__", ())]
    for part in typing.get_args(hint):
        notes += getattr(part, "__metadata__", ())
    return any(isinstance(note, Range) for note in notes)
