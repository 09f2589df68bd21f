"""Laws of measured step sizes, averages of parameters and schedules."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, strategies as st
from laws import STEPS, close, law, mapped, runner, same, scales, seeds, tree

from optzoo import primitives as zoo


def dog(**options):
    step = zoo.dog_step(**options)
    scaled = zoo.merge_leaves(zoo.multiply, zoo.gradient, step)
    return runner(optax.chain(scaled, optax.scale(-1.0)))


DOG = dog(reps_rel=1e-2, eps=0.0)
LDOG = dog(reps_rel=1e-2, eps=0.0, layerwise=True)


@pytest.mark.parametrize("run", [DOG, LDOG])
@law
@given(seed=seeds, scale=scales)
def test_dog_is_blind_to_the_losss_scale(run, seed, scale):
    params, grads = tree(seed), tree(seed + 1, steps=STEPS)
    scaled = jax.tree.map(lambda g: scale * g, grads)
    close(run(params, scaled)[1], run(params, grads)[1])


def distance(tree):
    return sum(float(jnp.sum(x**2)) for x in jax.tree.leaves(tree)) ** 0.5


@law
@given(seeds, scales)
def test_dogs_first_step_is_relative_to_the_weights(seed, scale):
    params, grads = tree(seed, scale=scale), tree(seed + 1, steps=STEPS)
    first = jax.tree.map(lambda u: u[0], DOG(params, grads)[0])
    np.testing.assert_allclose(distance(first), 1e-2 * (1 + distance(params)), rtol=1e-5)


@law
@given(seeds)
def test_layerwise_dog_is_dog_on_each_leaf(seed):
    params, grads = tree(seed), tree(seed + 1, steps=STEPS)
    alone = {name: DOG({name: params[name]}, {name: grads[name]})[1][name] for name in params}
    close(LDOG(params, grads)[1], alone)


def test_dogs_first_step_size_may_be_given_outright():
    params, grads = tree(0), tree(1, steps=STEPS)
    updates, _, _ = dog(learning_rate=0.5, init_eta=0.25)(params, grads)
    same(*(jax.tree.map(lambda x: x[0], t) for t in (updates, scaled(grads, -0.25))))


def scaled(tree, factor):
    return jax.tree.map(lambda x: factor * x, tree)


ADAGO = mapped(zoo.norm_adagrad_step(0.1, gamma=2.0, eps=1e-3, v0=0.5))


@law
@given(seeds, scales)
def test_adagos_step_follows_its_formula_and_never_falls_below_the_floor(seed, scale):
    grads = tree(seed, steps=STEPS, scale=scale)

    def check(alpha, g):
        norms = np.minimum(np.linalg.norm(np.reshape(g, (STEPS, -1)), axis=1), 2.0)
        v = np.sqrt(0.25 + np.cumsum(norms**2))
        np.testing.assert_allclose(alpha, np.maximum(1e-3, 0.1 * norms / v), rtol=1e-5)

    jax.tree.map(check, ADAGO(tree(0), grads), grads)


INNER = optax.sgd(0.1, momentum=0.5)
PLAIN = runner(INNER)


def schedule_free(**options):
    return runner(zoo.schedule_free_average(optax.sgd(0.1), 0.1, **options))


EQUAL = schedule_free(b1=0.8, weight_lr_power=0.0)
GROWING = schedule_free(r=2.0)


@law
@given(seeds)
def test_schedule_free_with_equal_weights_averages_z(seed):
    params, grads = tree(seed), tree(seed + 1, steps=STEPS)
    _, trained, state = EQUAL(params, grads)
    average = jax.tree.map(lambda z: jnp.mean(z, axis=0), state.z)
    last = jax.tree.map(lambda x: x[-1], (state, trained))
    close(zoo.eval_params(*last), average)
    between = jax.tree.map(lambda x, z: 0.8 * x + 0.2 * z[-1], average, state.z)
    close(last[1], between)


@law
@given(seeds)
def test_training_and_evaluation_parameters_are_inverses(seed):
    _, trained, state = EQUAL(tree(seed), tree(seed + 1, steps=STEPS))
    state, params = jax.tree.map(lambda x: x[-1], (state, trained))
    close(zoo.train_params(state, zoo.eval_params(state, params)), params)


@law
@given(seeds)
def test_later_steps_weigh_more_with_r(seed):
    params, grads = tree(seed), tree(seed + 1, steps=STEPS)
    _, trained, state = GROWING(params, grads)
    weights = np.arange(1.0, STEPS + 1) ** 2
    average = jax.tree.map(lambda z: np.tensordot(weights / weights.sum(), z, 1), state.z)
    close(zoo.eval_params(*jax.tree.map(lambda x: x[-1], (state, trained))), average)


def steps_of(x):
    return np.arange(1.0, STEPS + 1).reshape(-1, *(1,) * (x.ndim - 1))


AVERAGED = runner(zoo.polynomial_average(INNER, gamma=0.0))
FOLLOWS = runner(zoo.lookahead(INNER, period=3, alpha=1.0))
RETURNS = runner(zoo.lookahead(INNER, period=3, alpha=0.0))


@law
@given(seeds)
def test_a_polynomial_average_watches_without_touching(seed):
    params, grads = tree(seed), tree(seed + 1, steps=STEPS)
    updates, trained, state = AVERAGED(params, grads)
    close(updates, PLAIN(params, grads)[0])
    means = jax.tree.map(lambda p: np.cumsum(p, 0) / steps_of(p), trained)
    close(zoo.eval_params(state, trained), means)


@law
@given(seeds)
def test_lookahead_that_goes_all_the_way_is_its_inner_optimizer(seed):
    params, grads = tree(seed), tree(seed + 1, steps=STEPS)
    close(FOLLOWS(params, grads)[1], PLAIN(params, grads)[1])


@law
@given(seeds)
def test_lookahead_that_does_not_go_returns_to_the_start(seed):
    params, grads = tree(seed), tree(seed + 1, steps=STEPS)
    _, trained, state = RETURNS(params, grads)
    for step in (2, 5):
        close(jax.tree.map(lambda p, step=step: p[step], trained), params)
    same(jax.tree.map(lambda p: p[-1], zoo.eval_params(state, trained)), params)


@law
@given(st.integers(1, 50), st.floats(1e-3, 1e3))
def test_warm_up_starts_above_zero_and_arrives(length, peak):
    schedule = zoo.linear_warmup(peak, length)
    want = peak * np.minimum(1, np.arange(1, 101) / length)
    np.testing.assert_allclose(schedule(jnp.arange(100)), want, rtol=1e-5)


def test_no_warm_up_is_the_rate_itself():
    assert zoo.linear_warmup(0.5, 0)(0) == 0.5


@law
@given(st.floats(0.5, 0.99), st.floats(0.9951, 0.9999))
def test_half_lives_grow_linearly(start, end):
    t = jnp.arange(1.0, 51.0)
    decays = np.array(zoo.half_life_warmup(start, end, 50, eps=0.0)(t), np.float64)
    half_lives = np.log(0.5) / np.log(decays)
    assert np.all(np.diff(half_lives) > 0)
    # In float32 a decay near 1 tells its half-life to a few ten-thousandths, the differences less.
    np.testing.assert_allclose(np.diff(half_lives)[:-1], half_lives[1] - half_lives[0], rtol=5e-2)
    np.testing.assert_allclose(decays[-1], end, rtol=1e-6)


@law
@given(st.floats(0.1, 10), st.integers(2, 50))
def test_alpha_grows_linearly_and_stays(alpha, steps):
    t = jnp.arange(1.0, 101.0)
    want = alpha * np.minimum(1, np.array(t) / steps)
    np.testing.assert_allclose(zoo.alpha_warmup(alpha, steps)(t), want, rtol=1e-5)


@law
@given(st.integers(20, 200), st.floats(0.4, 0.9))
def test_explore_exploit_climbs_stays_and_falls_to_the_floor(total, start):
    schedule = zoo.explore_exploit(
        1.0, total, warmup_steps=total // 5, warmdown_start=start, min_learning_rate=0.01
    )
    rates = np.array(schedule(jnp.arange(200)))[:total]
    fall = int(start * total) - 1
    assert np.all(np.diff(rates[: total // 5]) > 0)
    np.testing.assert_allclose(rates[total // 5 - 1 : fall], 1.0, rtol=1e-6)
    assert np.all(np.diff(rates[fall:]) < 0)
    np.testing.assert_allclose(rates[-1], 0.01, rtol=1e-4)


@law
@given(st.sampled_from([0.9, 0.99, 0.999, 0.9999]), st.integers(1, 10_000))
def test_rectification_is_the_papers_to_single_precision(b2, t):
    longest = 2 / (1 - b2) - 1
    length = longest - 2 * t * b2**t / (1 - b2**t)
    factor, trusted = zoo.rectification(b2, jnp.asarray(float(t)))
    assert bool(trusted) == (length > 4)
    scale = (longest - 4) * (longest - 2) * length
    want = max(0.0, (length - 4) * (length - 2) * longest / scale) ** 0.5 if length > 4 else 0.0
    np.testing.assert_allclose(factor, want, rtol=1e-4)
