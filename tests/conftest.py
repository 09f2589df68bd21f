"""Strictness for every test: no implicit dtype or rank promotion, no random deadlines."""

import hypothesis
import jax
import pytest

import optzoo

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Compilation makes the first example of a property far slower than the others.
hypothesis.settings.register_profile("optzoo", deadline=None, max_examples=50, derandomize=True)
hypothesis.settings.load_profile("optzoo")


def pytest_collection_modifyitems(items):
    """Keeps the tests of one optimizer in one process, where they share compilations."""
    for item in items:
        name = getattr(item, "callspec", None) and item.callspec.params.get("name")
        if name in optzoo.REGISTRY and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(name))
