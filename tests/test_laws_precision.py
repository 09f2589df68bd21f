"""Laws of training with parameters that are too narrow for their updates."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from hypothesis import given
from laws import close, law, runner, same, seeds, tree

from optzoo import primitives as zoo

STEPS = 64
INNER = optax.sgd(1e-4, momentum=0.9)
PLAIN = runner(INNER)
MASTERED = runner(zoo.master_weights(INNER))


def narrow(tree):
    return jax.tree.map(lambda x: x.astype(jnp.bfloat16), tree)


def wide(tree):
    return jax.tree.map(lambda x: x.astype(jnp.float32), tree)


@law
@given(seeds)
def test_master_weights_leave_wide_parameters_alone(seed):
    params, grads = tree(seed), tree(seed + 1, steps=STEPS)
    same(MASTERED(params, grads)[1], PLAIN(params, grads)[1])


@law
@given(seeds)
def test_narrow_parameters_are_the_wide_ones_rounded(seed):
    params, grads = narrow(tree(seed)), tree(seed + 1, steps=STEPS)
    trained = MASTERED(params, narrow(grads))[1]
    exact = PLAIN(wide(params), wide(narrow(grads)))[1]
    close(wide(trained), exact, rtol=2.0**-8)


def test_stochastic_rounding_is_right_on_average():
    params = jnp.full((20_000,), 1.0, jnp.bfloat16)
    step = 0.1 * 2.0**-7
    tx = zoo.stochastic_round(optax.sgd(1.0), 0)
    grads = jnp.full(params.shape, -step, jnp.bfloat16)
    updates, state = tx.update(grads, tx.init(params), params)
    moved = optax.apply_updates(params, updates).astype(jnp.float32) - 1.0
    assert set(np.unique(moved)) == {0.0, 2.0**-7}
    np.testing.assert_allclose(np.mean(moved), step, rtol=0.1)
    again, _ = tx.update(grads, state, params)
    assert not np.array_equal(again, updates)
