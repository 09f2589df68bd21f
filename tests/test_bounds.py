"""The bound on a schedule: closed forms, what it ranks, and a run that keeps it."""

import jax.numpy as jnp
import numpy as np
import pytest

import optzoo

T, G, D = 50, 3.0, 2.0


def row(values):
    return lambda count: jnp.asarray(values)[count]


def linear(steps):
    return row(1 - np.arange(1, steps + 1) / (steps + 1))


def test_a_constant_rate_pays_a_logarithm_and_linear_decay_does_not():
    for steps in (50, 5000):
        norms, unit = np.full(steps, G), D * G / np.sqrt(steps)
        constant = optzoo.schedule_bound(row(np.ones(steps)), norms, distance=D)
        harmonic = np.sum(1 / np.arange(1, steps))
        assert constant.value == pytest.approx(unit * np.sqrt(1 + harmonic), rel=1e-5)
        assert constant.rate == pytest.approx(unit / G**2 / np.sqrt(1 + harmonic), rel=1e-5)
        decay = optzoo.schedule_bound(linear(steps), norms, distance=D)
        assert decay.value == pytest.approx(2 * unit, rel=0.05)


def test_the_sums_are_those_of_the_theorem():
    rng = np.random.default_rng(0)
    rates, norms = rng.uniform(0.1, 1, (2, 9))
    total = rates.sum()
    noise = sum((rates * norms) ** 2) / (2 * total)
    for k in range(8):
        tail = slice(k, None)
        share = rates[k] / rates[k + 1 :].sum() / rates[tail].sum()
        noise += share * sum((rates[tail] * norms[tail]) ** 2) / 2
    bound = optzoo.schedule_bound(row(rates), norms)
    np.testing.assert_allclose([bound.start, bound.noise], [1 / (2 * total), noise], rtol=1e-6)
    doubled = optzoo.schedule_bound(row(2 * rates), norms)
    np.testing.assert_allclose(doubled.value, bound.value, rtol=1e-6)
    np.testing.assert_allclose(doubled.rate, bound.rate / 2, rtol=1e-6)


def test_it_ranks_cooldowns_and_schedules_as_the_paper_does():
    steps = 400
    norms = np.ones(steps)
    value = {}
    for share in (0.05, 0.2, 0.6):
        wsd = optzoo.warmup_stable_decay(1.0, steps, warmup=0.0, cooldown=share)
        value[share] = optzoo.schedule_bound(wsd, norms).value
    flat = optzoo.schedule_bound(row(np.ones(steps)), norms).value
    cosine = optzoo.schedule_bound(optzoo.cosine(1.0, steps, warmup=0.0), norms).value
    assert flat > value[0.05] > value[0.2] > value[0.6]
    assert value[0.2] == pytest.approx(cosine, rel=0.1)


def test_the_refined_schedule_beats_linear_decay_by_its_own_norms():
    norms = np.concatenate([np.linspace(10, 1, 100), np.ones(100)])
    refined = optzoo.schedule_bound(optzoo.refined(1.0, norms, window=0.0), norms)
    assert refined.value < optzoo.schedule_bound(linear(200), norms).value


def test_a_subgradient_run_keeps_the_bound_at_every_rate():
    start = np.array([1.0, -0.5])
    for factor in (0.01, 0.1, 1.0):
        x, norms = start.copy(), []
        rates = factor * (1 - np.arange(1, T + 1) / (T + 1))
        for rate in rates:
            last, gradient = x, np.sign(x) * [1.0, 3.0]
            norms.append(np.linalg.norm(gradient))
            x = x - rate * gradient
        bound = optzoo.schedule_bound(
            row(rates), np.maximum(norms, 1e-3), distance=np.linalg.norm(start)
        )
        assert np.sum(np.abs(last) * [1.0, 3.0]) <= bound.start + bound.noise


def test_what_is_no_schedule_is_refused():
    with pytest.raises(ValueError, match="norms must be a row of positive numbers"):
        optzoo.schedule_bound(row([1.0, 1.0]), [1.0, 0.0])
    with pytest.raises(ValueError, match="rates from 0 up"):
        optzoo.schedule_bound(row([0.0, 0.0]), [1.0, 1.0])
    with pytest.raises(ValueError, match="rates from 0 up"):
        optzoo.schedule_bound(row([-1.0, 1.0]), [1.0, 1.0])
