"""How large a batch may be: recorded answers, two batch sizes, devices, averages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden.replay import BATCHES, CASES, FILES, build, load
from laws import tree

import optzoo


def logistic(params, x, sign):
    return jnp.logaddexp(0.0, -sign * (jnp.sum(params["w"][0] * x) + params["b"][0]))


@pytest.mark.parametrize("name", BATCHES)
def test_batch_sizes_are_the_recorded_ones(name):
    test = build(BATCHES[name]["optzoo"], {})
    with np.load(FILES[name]) as recorded, jax.enable_x64(True):
        arrays = dict(recorded.items())
        each = jax.vmap(jax.grad(logistic), in_axes=(None, 0, 0))
        ends = np.cumsum(arrays["batch/size"])
        for t, (end, size) in enumerate(zip(ends, arrays["batch/size"], strict=True)):
            rows = arrays["draws/index"][end - size : end]
            params = {
                leaf: arrays[f"params/{leaf}"][t - 1] if t else arrays[f"params0/{leaf}"]
                for leaf in ("w", "b")
            }
            gradients = each(params, arrays["data/x"][rows], arrays["data/s"][rows])
            assert max(size, int(test(gradients))) == arrays["batch/next"][t], t


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("noise_scale")])
def test_noise_scales_are_the_recorded_ones(name):
    case, arrays = CASES[name], load(name)
    with jax.enable_x64(True):
        found = jax.jit(jax.vmap(build(case["optzoo"], {})))(arrays["grads"])
        average = optzoo.primitives.ema(case["decay"], debias=False)
        start = jax.tree.map(lambda values: jnp.zeros_like(values[0]), found)
        averaged = jax.lax.scan(
            lambda state, one: average.update(one, state)[::-1], average.init(start), found
        )[1]
    for kind, ours in (("estimate", found), ("average", averaged)):
        np.testing.assert_allclose(ours.noise, arrays[kind]["trace"], rtol=1e-11)
        np.testing.assert_allclose(ours.signal, arrays[kind]["sq_norm"], rtol=1e-11)
    np.testing.assert_allclose(averaged.scale, arrays["scale"][""], rtol=1e-10)


def parts(seed, count=8):
    return jax.tree.map(lambda noise, mean: noise + mean[None], tree(seed, steps=count), tree(9))


def test_the_estimate_is_that_of_two_batch_sizes():
    gradients, examples, count = parts(0), 4, 8
    found = optzoo.gradient_noise(gradients, examples=examples)
    flat = np.concatenate([np.reshape(g, (count, -1)) for g in jax.tree.leaves(gradients)], axis=1)
    small, large = np.mean(np.sum(flat**2, axis=1)), np.sum(flat.mean(axis=0) ** 2)
    noise = (small - large) / (1 / examples - 1 / (count * examples))
    signal = (count * large - small) / (count - 1)
    np.testing.assert_allclose([found.noise, found.signal], [noise, signal], rtol=1e-5)
    np.testing.assert_allclose(found.scale, noise / signal, rtol=1e-5)
    size = optzoo.norm_test(gradients, 0.5, examples=examples)
    assert size == np.ceil(noise / (0.25 * large))


def test_it_finds_the_noise_of_a_known_distribution_through_averages():
    average = optzoo.primitives.ema(0.98)
    start = optzoo.primitives.GradientNoise(jnp.zeros([]), jnp.zeros([]))

    def step(state, key):
        draws = {"w": 1 + 3 * jax.random.normal(key, (4, 50))}
        return average.update(optzoo.gradient_noise(draws, examples=1), state)[::-1]

    keys = jax.random.split(jax.random.key(0), 400)
    averaged = jax.lax.scan(step, average.init(start), keys)[1]
    assert float(averaged.noise[-1]) == pytest.approx(50 * 9, rel=0.1)
    assert float(averaged.signal[-1]) == pytest.approx(50, rel=0.2)


@pytest.mark.parametrize("by_leaf", [False, True])
def test_parts_may_be_spread_over_an_axis(by_leaf):
    gradients = parts(1)
    spread = jax.tree.map(lambda g: g.reshape(4, 2, *g.shape[1:]), gradients)

    def measured(g, axis_name=None):
        return (
            *optzoo.gradient_noise(g, axis_name=axis_name),
            optzoo.norm_test(g, 0.01, axis_name=axis_name),
            optzoo.inner_product_test(g, 0.01, 0.01, by_leaf=by_leaf, axis_name=axis_name),
        )

    over_axis = jax.vmap(lambda g: measured(g, "parts"), axis_name="parts")(spread)
    for got, want in zip(over_axis, measured(gradients), strict=True):
        np.testing.assert_allclose(got, np.full(4, want), rtol=1e-4)


def test_noise_across_and_along_are_told_apart():
    mean = jnp.array([2.0, 0.0])
    along = {"w": mean[None] + jnp.array([[1.0, 0.0], [-1.0, 0.0]])}
    across = {"w": mean[None] + jnp.array([[0.0, 1.0], [0.0, -1.0]])}
    # The variance of the products is 8, that of the rest 2; |ḡ|² is 4.
    assert optzoo.inner_product_test(along, 0.1, 1e3) == np.ceil(8 / (0.01 * 16))
    assert optzoo.inner_product_test(across, 1e3, 0.1) == np.ceil(2 / (0.01 * 4))
    assert optzoo.inner_product_test(across, 0.1, 1e3) <= 1


def test_what_has_no_parts_is_refused():
    with pytest.raises(
        ValueError, match="norm_test: gradients must be of two parts or more; got 1"
    ):
        optzoo.norm_test({"w": jnp.ones((1, 2))})
    for gradients in ({"w": jnp.ones((2, 2)), "b": jnp.ones([])}, {}, {"b": jnp.ones([])}):
        with pytest.raises(ValueError, match="one leading axis of parts in every leaf"):
            optzoo.gradient_noise(gradients)
    with pytest.raises(ValueError, match="eta must lie in"):
        optzoo.norm_test({"w": jnp.ones((2, 2))}, 0.0)
