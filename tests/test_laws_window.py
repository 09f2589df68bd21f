"""Laws of the window of gradients and of what M-FAC makes of it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from laws import close, law, runner, same, seeds, tree

import optzoo
from optzoo import primitives as zoo

SIZE, STEPS = 3, 8


def flat(x):
    return np.concatenate([np.reshape(leaf, (len(leaf), -1)) for leaf in jax.tree.leaves(x)], 1)


@law
@given(seed=seeds)
def test_the_step_is_the_inverse_of_the_windows_fisher_matrix(seed):
    with jax.enable_x64(True):
        params, grads = jax.tree.map(
            lambda x: x.astype(float), (tree(seed), tree(seed, steps=STEPS))
        )
        tx = optzoo.scale_by_mfac(window=SIZE, damping=0.1)
        updates, _, state = runner(tx)(params, grads)
        d = flat(grads)
        for step, u in enumerate(flat(updates)):
            recent = d[max(0, step - SIZE + 1) : step + 1]
            fisher = 0.1 * np.eye(d.shape[1]) + recent.T @ recent / SIZE
            close(u, np.linalg.solve(fisher, d[step]), rtol=1e-9, atol=1e-12)
        held = np.roll(d[-SIZE:], STEPS % SIZE, axis=0)
        close(state[0].products[-1], held @ held.T, rtol=1e-9, atol=1e-12)


def test_weights_see_the_newest_gradient_in_its_place():
    tx = zoo.gradient_window(SIZE, lambda products, place: jnp.eye(3)[place])
    grads = {"w": jnp.arange(10.0).reshape(5, 2)}
    updates = runner(tx)({"w": jnp.zeros(2)}, grads)[0]
    same(updates, grads)


@pytest.mark.parametrize("filter_type", ["mean", "sum"])
@pytest.mark.parametrize("warmup", [True, False])
def test_grokfast_adds_the_mean_or_the_sum_of_the_last_gradients(filter_type, warmup):
    params, grads = tree(0), tree(1, steps=STEPS)
    tx = optzoo.grokfast_ma(
        optax.identity(), window_size=SIZE, lamb=2.0, filter_type=filter_type, warmup=warmup
    )
    got, d = flat(runner(tx)(params, grads)[0]), flat(grads)
    for step, out in enumerate(got):
        recent = d[max(0, step - SIZE + 1) : step + 1]
        slow = recent.mean(0) if filter_type == "mean" else recent.sum(0)
        close(out, d[step] + 2.0 * slow * (not warmup or step >= SIZE - 1))


def test_a_window_is_a_whole_number():
    with pytest.raises(ValueError, match=r"window must lie in \[1, inf\) and be a whole number"):
        optzoo.mfac(window=2.5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_a_gradient_without_finite_products_is_skipped(bad):
    params = {"w": jnp.ones(3), "b": jnp.ones(())}
    tx = optzoo.mfac(0.1, window=SIZE, damping=1.0)
    _, state = tx.update(params, tx.init(params), params)
    updates, after = tx.update({"w": jnp.full(3, bad), "b": jnp.ones(())}, state, params)
    same(updates, jax.tree.map(jnp.zeros_like, params))
    same(
        (after[1][0].last.window, after[1][0].products),
        (state[1][0].last.window, state[1][0].products),
    )
