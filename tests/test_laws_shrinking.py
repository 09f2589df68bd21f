"""Laws of what stops leaves for good, and of steps that are factors."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optzoo
from optzoo import primitives

PARAMS = {"a": jnp.ones((2, 2)), "b": jnp.ones((2, 2)), "bias": jnp.ones(2)}


def stepped(tx, sizes, params=PARAMS):
    """Updates, and what is frozen, after gradients of these sizes: of leaf a, and of the others."""
    state, seen = tx.init(params), []
    step = jax.jit(tx.update)
    for size, rest in sizes:
        grads = {
            name: jnp.full(p.shape, float(size if name == "a" else rest))
            for name, p in params.items()
        }
        updates, state = step(grads, state, params)
        frozen = optzoo.frozen_leaves(state, params)
        seen.append((float(jnp.max(abs(updates["a"]))), bool(frozen["a"])))
        assert not frozen["bias"] and jnp.all(updates["bias"] == -rest)
    return seen, state


@pytest.mark.parametrize("statistic", ["update", "gradient", "gradient_change"])
def test_a_matrix_at_rest_stays_at_rest(statistic):
    tx = optzoo.grades(optax.sgd(1.0, momentum=0.0), tau=0.5, start=3, statistic=statistic)
    seen, state = stepped(tx, [(0.01, 2), (0.01, 2), (0.01, 2), (0.01, 2), (9.0, 3)])
    # By its update it freezes from the next step on, by its gradient at once.
    moves = [True, True, True, False, False]
    assert [move > 0 for move, _ in seen] == moves
    assert [frozen for _, frozen in seen] == (
        [False] * 2 + [True] * 3 if statistic == "update" else [False] * 3 + [True] * 2
    )
    assert not optzoo.frozen_leaves(state, PARAMS)["b"]


def test_the_first_look_freezes_nothing_and_looks_are_some_steps_apart():
    tx = optzoo.grades(optax.sgd(1.0), tau=0.5, start=0, every=2)
    seen, _ = stepped(tx, [(0.0, 1)] * 5)
    assert [frozen for _, frozen in seen] == [False, False, False, True, True]
    # What moves to and fro between two looks has not moved.
    seen, _ = stepped(tx, [(1.0, 1), (-1.0, 1)] * 3)
    assert [frozen for _, frozen in seen] == [False, False, False, True, True, True]


def test_momentum_and_decay_do_not_move_what_is_frozen():
    rule = optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1, momentum=0.9))
    tx = optzoo.grades(rule, tau=1e9, start=0)
    state = tx.init(PARAMS)
    for finite in (True, True, True, False):
        grads = jax.tree.map(lambda p, fine=finite: jnp.where(fine, p, jnp.nan), PARAMS)
        updates, state = tx.update(grads, state, PARAMS)
    assert jnp.all(updates["a"] == 0) and jnp.all(jnp.isnan(updates["bias"]))


def test_who_is_frozen_is_asked_of_a_state_that_tells():
    with pytest.raises(ValueError, match="frozen_leaves needs one state of freeze over 3 leaves"):
        optzoo.frozen_leaves(optax.sgd(0.1).init(PARAMS), PARAMS)


def test_factors_keep_signs_and_zeros():
    params = {"w": jnp.array([1e-6, -2.0, 0.0, 5.0])}
    tx = optzoo.exponentiated_gradient(optax.sgd(1.0), weight_decay=0.1)
    grads = {"w": jnp.array([3.0, 3.0, 3.0, -1e9])}
    updates, _ = tx.update(grads, tx.init(params), params)
    after = optax.apply_updates(params, updates)["w"]
    want = params["w"] * jnp.exp(jnp.array([-3.1, 2.9, 0.0, 40.0]))
    np.testing.assert_allclose(after, want, rtol=1e-5)


def test_parts_add_up_to_the_total_and_are_plain_steps_near_zero():
    params = {"w": jnp.linspace(-0.01, 0.01, 6).reshape(2, 3)}
    tx = optzoo.exponentiated_plus_minus(optax.sgd(1e-3), beta=2.0)
    updates, _ = tx.update(params, tx.init(params), params)
    np.testing.assert_allclose(updates["w"], -4e-3 * params["w"], rtol=1e-3, atol=1e-9)
    tx = optzoo.exponentiated_plus_minus(optax.sgd(0.3), total=20.0)
    state = tx.init(params)
    for _ in range(3):
        updates, state = tx.update({"w": jnp.ones((2, 3))}, state, params)
        params = optax.apply_updates(params, updates)
        (beta,) = state.beta
        np.testing.assert_allclose(jnp.sum(jnp.hypot(params["w"], 2 * beta)), 20.0, rtol=1e-5)


def test_freeze_may_judge_everything():
    tx = primitives.freeze(optax.sgd(1.0), 1e9)
    state = tx.init(PARAMS)
    for _ in range(3):
        updates, state = tx.update(PARAMS, state)
    assert all(jax.tree.leaves(optzoo.frozen_leaves(state, PARAMS)))
    assert not any(jnp.any(leaf) for leaf in jax.tree.leaves(updates))
