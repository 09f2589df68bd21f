"""Laws that every schedule of the registry keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from subjects import REQUIRED

import optzoo
from optzoo.primitives.base import at

STEPS, RATE = 50, 0.3
COUNTS = np.arange(STEPS + 1)
BEYOND = [STEPS, 2 * STEPS, 2**31 - 1]
everywhere = pytest.mark.parametrize("name", optzoo.REGISTRY.schedules)


def arguments(name):
    """What a schedule is tried with: its defaults and what it requires."""
    entry = optzoo.REGISTRY[name]
    known = REQUIRED | {"learning_rate": RATE, "total_steps": STEPS}
    return {
        n: known[n] if p.default is p.empty else p.default
        for n, p in entry.signature.parameters.items()
    }


def rates(name, counts, **options):
    schedule = optzoo.REGISTRY[name].factory(**arguments(name) | options)
    return np.asarray([schedule(jnp.asarray(count, jnp.int32)) for count in counts])


@everywhere
def test_rates_are_finite_and_never_negative(name):
    values = rates(name, [*COUNTS, *BEYOND])
    assert values.shape == (len(COUNTS) + len(BEYOND),)
    assert np.isfinite(values).all() and (values >= 0).all() and values.any()


def stated(name):
    """The counts and rates under `Values:` in the docstring."""
    given = arguments(name)
    lines = [line.split(": ") for line in optzoo.REGISTRY[name].section("Values").splitlines()]
    return zip(*([eval(text, dict(given)) for text in line] for line in lines), strict=True)


@everywhere
def test_values_are_those_of_the_docstring(name):
    counts, wanted = stated(name)
    assert counts[0] == 0 and len(counts) > 1
    np.testing.assert_allclose(rates(name, counts), wanted, rtol=2e-6, atol=1e-7 * RATE)


@everywhere
def test_64_bits_are_exact_and_agree_with_32(name):
    with jax.enable_x64(True):
        wide = rates(name, COUNTS)
        counts, wanted = stated(name)
        np.testing.assert_allclose(rates(name, counts), wanted, rtol=1e-13, atol=1e-16)
        # Between those, too: 32 bits on the way would leave errors of 1e-8.
        compiled = optzoo.REGISTRY[name].factory(**arguments(name))
        program = str(jax.make_jaxpr(compiled)(jnp.asarray(3, jnp.int32)))
    assert wide.dtype == np.float64 and "f32" not in program
    np.testing.assert_allclose(rates(name, COUNTS), wide, rtol=1e-5, atol=1e-6 * RATE)


@everywhere
def test_counts_may_be_traced(name):
    schedule = optzoo.REGISTRY[name].factory(**arguments(name))
    counts = jnp.asarray([*COUNTS, *BEYOND], jnp.int32)
    traced = jax.jit(jax.vmap(lambda count: jnp.asarray(schedule(count))))(counts)
    np.testing.assert_allclose(traced, rates(name, counts), rtol=1e-5, atol=1e-7)


@everywhere
def test_numbers_may_be_traced(name):
    given = arguments(name)
    numbers = {n: v for n, v in given.items() if isinstance(v, int | float) and v is not True}

    @jax.jit
    def traced(numbers):
        schedule = optzoo.REGISTRY[name].factory(**given | numbers)
        return jnp.stack([jnp.asarray(schedule(jnp.asarray(c, jnp.int32))) for c in COUNTS[::10]])

    np.testing.assert_allclose(traced(numbers), rates(name, COUNTS[::10]), rtol=1e-5, atol=1e-7)


@everywhere
def test_the_end_is_where_it_stays(name):
    last, *later = rates(name, BEYOND)
    np.testing.assert_allclose(later, last, rtol=1e-6)


@everywhere
def test_the_learning_rate_may_be_a_schedule(name):
    def doubled(count):
        return 2 * RATE

    constant = rates(name, COUNTS, learning_rate=2 * RATE)
    np.testing.assert_allclose(rates(name, COUNTS, learning_rate=doubled), constant, rtol=1e-6)
    assert at(doubled, jnp.asarray(0)) == 2 * RATE
