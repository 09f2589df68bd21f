"""Schedules equal their authors' code in float64: recorded rates, one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden.replay import SCHEDULES, rates

import optzoo
from optzoo.primitives import momentum

MOMENTA = [name for name, entry in SCHEDULES.items() if "momentum" in entry]


@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_are_the_recorded_ones(name):
    got, want = rates(SCHEDULES[name]["optzoo"], name)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, want, rtol=0, atol=3e-15 * want.max())


@pytest.mark.parametrize("name", MOMENTA)
def test_momenta_are_the_recorded_ones(name):
    got, want = rates(SCHEDULES[name]["momentum"], name, "momentum", first=1)
    np.testing.assert_allclose(got, want, rtol=0, atol=3e-15)


def test_constant_norms_refine_to_linear_decay():
    refined, linear = optzoo.refined(1.0, np.full(30, 7.0)), optzoo.linear_decay(1.0, 29)
    counts = jnp.arange(40)
    np.testing.assert_allclose(jax.vmap(refined)(counts), jax.vmap(linear)(counts), atol=1e-6)


def test_momentum_takes_a_schedule():
    """With one number it is what it was; with one a step, a product of them."""
    decay = optzoo.one_cycle_momentum(10)
    tx, params = momentum(decay), jnp.zeros(2)
    state = tx.init(params)
    want = np.zeros(2)
    for t in range(1, 12):
        updates, state = tx.update(params + t, state)
        want = float(decay(jnp.asarray(float(t)))) * want + t
        np.testing.assert_allclose(updates, want, rtol=1e-6)


def test_restarts_come_on_time_for_long():
    """Every restart of many doublings is at the peak, and the step before near the floor."""
    starts = 1000 * (2 ** np.arange(1, 12) - 1)
    schedule = optzoo.cosine_restarts(1.0, 1000, mult=2)
    for start in starts:
        assert float(schedule(jnp.asarray(start, jnp.int32))) == pytest.approx(1, abs=1e-5)
        assert float(schedule(jnp.asarray(start - 2, jnp.int32))) < 1e-3


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: optzoo.cyclical(1.0, 10, mode="saw"), "mode must be one of"),
        (lambda: optzoo.cosine_restarts(1.0, 10, mult=0.5), r"mult must lie in \[1, inf\)"),
        (lambda: optzoo.warmup_stable_decay(1.0, 9, shape="exponential"), "floor must be positive"),
        (lambda: optzoo.refined(1.0, [1.0, 0.0]), "norms must be a row of two or more positive"),
        (lambda: optzoo.refined(1.0, [1.0, 2.0], window=1.5), r"window must lie in \[0, 1\]"),
    ],
)
def test_bad_arguments_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
