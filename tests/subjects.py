"""The registry as subjects of the conformance kit."""

import functools

import optzoo
from optzoo.registry import Entry, Trait
from optzoo.testing import Subject, Traits

TOTAL_STEPS = 2000


def factory(entry: Entry):
    """The factory with what it requires filled in."""
    if Trait.SCHEDULED in entry.traits:
        return functools.partial(entry.factory, total_steps=TOTAL_STEPS)
    return entry.factory


def traits(entry: Entry) -> Traits:
    """What the registry and the docstring claim, in the kit's words."""
    claimed = entry.section("Returns")
    return Traits(
        needs_params="It needs the parameters in `update`." in claimed,
        averages=Trait.AVERAGES in entry.traits,
        stochastic=False,
        couples_leaves=Trait.COUPLED in entry.traits,
        shape_dependent=Trait.SHAPED in entry.traits,
    )


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
