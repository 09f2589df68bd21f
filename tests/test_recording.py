"""What `record_norms` keeps, and where it is found again."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from laws import STEPS, same, tree

import optzoo


def recorded(length, wrap, steps=STEPS):
    params, grads = tree(0), tree(1, steps=steps)
    tx = wrap(optax.chain(optzoo.record_norms(length), optzoo.novograd(0.1)))

    def step(state, gradient):
        updates, state = tx.update(gradient, state, params)
        return state, updates

    state, updates = jax.jit(lambda: jax.lax.scan(step, tx.init(params), grads))()
    return optzoo.recorded_norms(state), grads, updates


@pytest.mark.parametrize("length", [1, 3, STEPS])
def test_the_latest_norms_are_kept_in_order(length):
    norms, grads, _ = recorded(length, lambda tx: optax.apply_if_finite(tx, 3))
    flat = [np.reshape(leaf, (STEPS, -1))[-length:] for leaf in jax.tree.leaves(grads)]
    l1 = np.stack([np.abs(leaf).sum(axis=1) for leaf in flat], axis=1)
    energy = np.stack([np.square(leaf).sum(axis=1) for leaf in flat], axis=1)
    np.testing.assert_allclose(norms.leaf_l1, l1, rtol=1e-5)
    np.testing.assert_allclose(norms.leaf_l2, np.sqrt(energy), rtol=1e-5)
    np.testing.assert_allclose(norms.l1, l1.sum(axis=1), rtol=1e-5)
    np.testing.assert_allclose(norms.l2, np.sqrt(energy.sum(axis=1)), rtol=1e-5)


def test_a_record_changes_no_step_and_makes_a_schedule():
    norms, grads, updates = recorded(STEPS, lambda tx: tx)
    tx, params = optzoo.novograd(0.1), tree(0)
    state = tx.init(params)
    for i in range(2):
        alone, state = jax.jit(tx.update)(jax.tree.map(lambda g, i=i: g[i], grads), state, params)
        same(alone, jax.tree.map(lambda u, i=i: u[i], updates))
    rates = [float(optzoo.refined(0.5, norms.l2)(jnp.int32(k))) for k in range(STEPS)]
    assert max(rates) == 0.5 and rates[-1] == 0


def test_norms_are_right_where_their_squares_overflow():
    tx = optzoo.record_norms()
    grads = {"a": jnp.full((4,), 1e30), "b": jnp.full((12,), 1e30)}
    _, state = tx.update(grads, tx.init(grads))
    assert float(optzoo.recorded_norms(state).l2[0]) == pytest.approx(4e30)


def test_a_state_without_one_record_is_refused():
    params = {"w": jnp.ones(2)}
    record = optzoo.record_norms()
    with pytest.raises(ValueError, match="must hold one record.*it holds 0"):
        optzoo.recorded_norms(optax.sgd(0.1).init(params))
    with pytest.raises(ValueError, match="it holds 2"):
        optzoo.recorded_norms(optax.chain(record, record).init(params))
    with pytest.raises(ValueError, match="length must lie in"):
        optzoo.record_norms(0)
