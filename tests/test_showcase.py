"""The problems that show what rules are for do show it, and StableMax is the recorded one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from golden.replay import CASES, build, load

import optzoo
from optzoo.problems import PROBLEMS, stablemax_cross_entropy

KEY = jax.random.key(0)


def trained(name, tx):
    """Losses along a run, and the report and parameters after it."""
    task, tx = PROBLEMS[name](), optax.with_extra_args_support(tx)

    def step(carry, count):
        params, state = carry
        gradients, extra = task.differentiate(params, task.draw(KEY, count))
        updates, state = tx.update(gradients, state, params, **extra)
        return (optax.apply_updates(params, updates), state), extra["value"]

    def run(params):
        carry = params, tx.init(params)
        (params, _), losses = jax.lax.scan(step, carry, jnp.arange(task.steps))
        return losses, task.evaluate(params, "test"), params

    return jax.jit(run)(task.init(KEY))


def test_stablemax_is_the_recorded_one():
    arrays = load("stablemax_values")
    error = build(CASES["stablemax_values"]["optzoo"], {})
    with jax.enable_x64(True):
        logits, labels = jnp.asarray(arrays["logits"][""]), jnp.asarray(arrays["labels"][""])
        loss, slope = jax.value_and_grad(lambda x: error(x, labels).mean())(logits)
        every = jnp.stack([error(logits, jnp.full_like(labels, k)) for k in range(7)], axis=1)
    np.testing.assert_allclose(-every, arrays["logprobs"][""], rtol=1e-12)
    np.testing.assert_allclose(loss, arrays["loss"][""], rtol=1e-12)
    np.testing.assert_allclose(slope, arrays["grad"][""], rtol=1e-12, atol=1e-15)


def test_stablemax_has_a_slope_everywhere():
    logits = jnp.array([1.0, 0.0, -1e30, 1e30])
    slopes = jax.vmap(jax.grad(stablemax_cross_entropy), (None, 0))(logits, jnp.arange(4))
    assert np.isfinite(slopes).all()


def test_gradient_descent_leaves_what_is_too_steep_for_its_rate():
    def valley(rate):
        _, _, params = trained("edge_of_stability", optax.sgd(rate))
        x = float(params["point"][0])
        return 4 * (x**2 + 1 / x**2)

    assert valley(0.02) > 60
    assert valley(0.04) < 1.1 * 2 / 0.04


def test_huge_steps_on_separable_points_are_the_fast_ones():
    (_, slow, _), (losses, fast, _) = (
        trained("separable", optax.sgd(rate)) for rate in (1.0, 100.0)
    )
    assert losses[1] > losses[0] and fast["loss"] < slow["loss"] / 10


def test_no_objective_is_given_up_for_one_that_counts_more():
    adam = optax.chain(optzoo.primitives.adam(), optax.scale(-0.03))
    _, alone, _ = trained("conflicting", adam)
    _, together, _ = trained("conflicting", optzoo.upgrad(adam))
    assert together["loss"] < PROBLEMS["conflicting"]().target < alone["loss"]


@pytest.mark.parametrize("name", ["imbalance", "conflicting"])
def test_the_loss_is_the_mean_of_the_objectives(name):
    task = PROBLEMS[name]()
    params, batch = task.init(KEY), task.draw(KEY, jnp.asarray(0))
    np.testing.assert_allclose(
        task.objectives(params, batch).mean(), task.loss(params, batch), rtol=1e-5
    )
