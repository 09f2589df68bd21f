"""Estimates of the gradient: recorded, without bias, and as noisy as is said."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from golden.replay import CASES, build, deviation, load, patchnet

import optzoo

FORWARD = [name for name in CASES if name.startswith("forward_gradient")]
SLOPE = jnp.asarray([1.0, -2.0, 3.0, 0.5])
COUNT = 20_000


@pytest.mark.parametrize("name", FORWARD)
def test_forward_gradients_lead_where_they_were_recorded(name):
    arrays, tx = load(name), build(CASES[name]["optzoo"], {})
    estimate = optzoo.forward_gradient(lambda params, batch: patchnet(batch, params))

    def step(carry, inputs):
        params, state = carry
        batch, along = inputs
        updates, state = tx.update(estimate(params, batch, along=along), state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    with jax.enable_x64(True):
        start = jax.tree.map(jnp.asarray, arrays["params0"])
        inputs = jax.tree.map(jnp.asarray, (arrays["data"], arrays["direction"]))
        run = jax.jit(lambda p, xs: jax.lax.scan(step, (p, tx.init(p)), xs)[1])
        found = jax.tree.map(np.asarray, run(start, inputs))
    parted = deviation(found, arrays["params"], arrays["params0"], 2e-14)
    assert max(np.max(part) for part in parted.values()) <= 1e-10


def bowl(params):
    """A loss with gradient `SLOPE` at 0, in two leaves."""
    return jnp.vdot(SLOPE[:3], params["w"]) + SLOPE[3] * params["b"] + jnp.sum(params["w"] ** 2)


def outcome(key, params):
    return jnp.append(params["w"], params["b"]) + 0.5 * jax.random.normal(key, (4,))


def log_density(params, x):
    return -jnp.sum((x - jnp.append(params["w"], params["b"])) ** 2) / (2 * 0.5**2)


ESTIMATES = {
    # With what the variance is to be, in units of the gradient's squared norm.
    "forward": (optzoo.forward_gradient(bowl), 5),
    "forward, three signs": (optzoo.forward_gradient(bowl, directions=3, draws="sign"), 1),
    "perturbed": (optzoo.perturbed_gradient(bowl), 5),
    "perturbed, signs": (optzoo.perturbed_gradient(bowl, draws="sign"), 3),
    "likelihood ratio": (
        optzoo.likelihood_ratio_gradient(
            lambda params, x: jnp.vdot(SLOPE, x), outcome, log_density, draws=6
        ),
        1,
    ),
}


@pytest.mark.parametrize("name", ESTIMATES)
def test_estimates_have_no_bias_and_the_variance_that_is_said(name):
    estimate, relative = ESTIMATES[name]
    params = {"w": jnp.zeros(3), "b": jnp.zeros([])}
    keys = jax.random.split(jax.random.key(0), COUNT)
    found = jax.jit(jax.vmap(lambda key: estimate(params, key=key)))(keys)
    each = np.column_stack([found["w"], found["b"]])
    noise = relative * float(jnp.sum(SLOPE**2))
    assert np.linalg.norm(each.mean(0) - np.asarray(SLOPE)) < 4 * np.sqrt(noise / COUNT)
    assert each.var(0).sum() == pytest.approx(noise, rel=0.05)


def test_a_loss_of_the_parameters_and_of_outcomes_gets_both_gradients():
    estimate = optzoo.likelihood_ratio_gradient(
        lambda params, x, factor: factor * (params["w"] * x)[0],
        lambda key, params: params["w"] + jax.random.normal(key, (1,)),
        lambda params, x: -jnp.sum((x - params["w"]) ** 2) / 2,
        draws=100_000,
    )
    # E[factor·w·x] = factor·w².
    slope = estimate({"w": jnp.array([1.5])}, 2.0, key=1)
    assert float(slope["w"][0]) == pytest.approx(6.0, rel=0.03)


def test_estimates_keep_dtypes_and_take_arguments_as_the_loss_does():
    params = {"w": jnp.ones(3, jnp.bfloat16)}
    for maker in (optzoo.forward_gradient, optzoo.perturbed_gradient):
        estimate = maker(lambda p, x, *, power: jnp.sum(x * p["w"]) ** power, directions=2)
        found = estimate(params, jnp.ones(3, jnp.bfloat16), power=2, key=0)
        assert found["w"].dtype == jnp.bfloat16 and found["w"].shape == (3,)


def test_what_has_nothing_to_draw_from_says_so():
    with pytest.raises(ValueError, match="perturbed_gradient draws its directions: call with key="):
        optzoo.perturbed_gradient(bowl)({"w": jnp.zeros(3), "b": jnp.zeros([])})
    with pytest.raises(ValueError, match="directions must lie in"):
        optzoo.forward_gradient(bowl, directions=0)
