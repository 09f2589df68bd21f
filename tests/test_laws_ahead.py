"""Laws of the rules that take gradients ahead of their weights."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from laws import STEPS, close, runner, tree

import optzoo
from optzoo import primitives

RATE = 1e-2
CURVES = jnp.array([1.0, 4.0, 0.5])
START = {"w": jnp.array([3.0, -1.0, 0.5])}
UNIT = optax.stateless(lambda g, _: optax.tree.scale(1 / optax.tree.norm(g), g))


def on_a_bowl(tx, steps=8):
    """The weights after each step, without noise, of an optimizer on a quadratic."""

    def step(carry, _):
        params, state = carry
        updates, state = tx.update({"w": CURVES * params["w"]}, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), optzoo.eval_params(state, params)["w"]

    return jax.lax.scan(step, (START, tx.init(START)), length=steps)[1]


TRANSPORTED = {
    "all": (optzoo.igt(optax.sgd(0.1), interval=None), optax.sgd(0.1)),
    "the last half": (optzoo.igt(optax.sgd(0.1)), optax.sgd(0.1)),
    "the last tenth": (
        optzoo.igt(optax.sgd(0.1, momentum=0.5), interval=10.0),
        optax.sgd(0.1, momentum=0.5),
    ),
    "never against": (optzoo.igt(optax.sgd(0.1), interval=10.0, clip=True), optax.sgd(0.1)),
    "nigt": (optzoo.nigt(0.1), optax.chain(UNIT, optax.sgd(0.1))),
}


@pytest.mark.parametrize("name", TRANSPORTED)
def test_on_a_quadratic_transported_averages_are_the_gradient(name):
    ours, plain = TRANSPORTED[name]
    np.testing.assert_allclose(on_a_bowl(ours), on_a_bowl(plain), rtol=2e-4, atol=1e-5)


def test_a_long_interval_may_average_from_zero_up():
    tx = optzoo.igt(optax.identity(), interval=10.0, clip=True)
    state = tx.init(START)
    for g in (1.0, 2.0, 3.0):
        # Negative shares would take part of the older gradients away.
        _, state = tx.update({"w": jnp.full(3, g)}, state, START)
        np.testing.assert_array_equal(optax.tree.get(state, "moment")["w"], g)


def test_without_optimism_it_is_adam():
    ours = runner(optzoo.optimistic_adam(RATE, optimism=0.0))
    known = runner(
        optax.chain(primitives.adam(eps_on_debiased=False), optax.scale_by_learning_rate(RATE))
    )
    params, grads = tree(0), tree(1, steps=STEPS)
    close(ours(params, grads)[0], known(params, grads)[0])


def test_the_weights_of_opt_amsgrad_are_those_of_amsgrad():
    rule = optzoo.opt_amsgrad(RATE, residual=False)
    known = optax.chain(
        primitives.adam(amsgrad=True, eps_on_debiased=False), optax.scale_by_learning_rate(RATE)
    )
    params, grads = tree(0), tree(1, steps=STEPS)
    _, trained, states = runner(rule)(params, grads)
    weights = jax.vmap(optzoo.eval_params)(states, trained)
    close(weights, runner(known)(params, grads)[1])
    close(jax.vmap(optzoo.train_params)(states, weights), trained)


def test_extrapolation_finds_where_geometric_gradients_end():
    tx = primitives.window_extrapolation(4, damping=1e-6)
    state = tx.init(START)
    for step in range(7):
        gradient = {"w": CURVES + START["w"] * 0.5**step}
        found, state = tx.update(gradient, state)
        if step < 2:
            close(found, gradient)
    np.testing.assert_allclose(found["w"], CURVES, atol=2e-3)
