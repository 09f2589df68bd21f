"""Every numeric option declares its range, and a value outside is refused by name."""

import inspect
import math
import typing

import jax
import pytest

import optzoo
from optzoo.primitives.base import Range


def declared(factory):
    """{argument: its Range, or the tuple of its choices} from a factory's annotations."""
    found = {}
    for name, hint in typing.get_type_hints(factory, include_extras=True).items():
        for part in (hint, *typing.get_args(hint)):
            for note in getattr(part, "__metadata__", ()):
                if isinstance(note, Range):
                    found[name] = note
            if typing.get_origin(part) is typing.Literal:
                found[name] = typing.get_args(part)
    return found


def outside(allowed):
    """Values that a declaration excludes."""
    if not isinstance(allowed, Range):
        return {"unknown": "no such choice"}
    low, high = (float(bound) for bound in allowed.interval[1:-1].split(","))
    values = {"nan": math.nan, "text": "0.5"}
    values["below"] = low if allowed.interval[0] == "(" else low - 0.5
    values["above"] = high if allowed.interval[-1] == ")" else high + 0.5
    if not allowed.schedule:
        values["schedule"] = float
    return values


ENTRIES = [optzoo.get(name) for name in optzoo.REGISTRY.optimizers]
CASES = [
    pytest.param(entry, name, allowed, value, id=f"{entry.name}-{name}-{case}")
    for entry in ENTRIES
    for name, allowed in declared(entry.factory).items()
    for case, value in outside(allowed).items()
]


@pytest.mark.parametrize(("entry", "name", "allowed", "value"), CASES)
def test_a_value_out_of_range_is_refused_by_name(entry, name, allowed, value):
    with pytest.raises(ValueError) as raised:
        entry.build(**({"total_steps": 100} | {name: value}))
    words = [allowed.interval] if isinstance(allowed, Range) else map(repr, allowed)
    for word in (entry.name, name, repr(value), *words):
        assert word in str(raised.value)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_number_declares_its_range(entry):
    numeric = {
        name
        for name, parameter in inspect.signature(entry.factory).parameters.items()
        if isinstance(parameter.default, int | float) and not isinstance(parameter.default, bool)
    }
    # A tree of numbers is checked leaf by leaf, and a seed may be any number.
    hints = typing.get_type_hints(entry.factory)
    numeric = {n for n in numeric if hints[n] is not typing.Any and hints[n] != int | jax.Array}
    assert numeric and numeric <= set(declared(entry.factory))
