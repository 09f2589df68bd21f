"""Laws of the rules that change, mix or add gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from laws import STEPS, close, runner, tree

import optzoo
from optzoo import primitives

RATE = 1e-2
ACROSS = primitives.remove_parallel()


def example(seed):
    return tree(seed), tree(seed + 1, steps=STEPS)


SAME = {
    "qhm without its average": (optzoo.qhm(RATE, nu=0.0), optax.sgd(RATE)),
    "qhm of the average alone": (
        optzoo.qhm(RATE, momentum=0.9, nu=1.0),
        optax.sgd(RATE * (1 - 0.9), momentum=0.9),
    ),
    "qhm as Nesterov's": (
        optzoo.qhm(RATE, momentum=0.9, nu=0.9),
        optax.sgd(RATE * (1 - 0.9), momentum=0.9, nesterov=True),
    ),
    "qhadam of the averages alone": (
        optzoo.qhadam(RATE, b1=0.9, nu1=1.0),
        optax.chain(primitives.adam(), optax.scale_by_learning_rate(RATE)),
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_at_its_limits_a_rule_is_another(name):
    ours, known = map(runner, SAME[name])
    params, grads = example(0)
    close(ours(params, grads)[0], known(params, grads)[0])


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e30])
def test_what_orthograd_hands_on_is_across_the_weights_and_as_long(scale):
    params, grads = tree(0), tree(1)
    crossed, _ = ACROSS.update(
        jax.tree.map(lambda g: scale * g, grads), ACROSS.init(params), params
    )
    assert crossed["gain"] == 0
    for name in params.keys() - {"gain"}:
        g, q, p = (np.float64(x[name]) for x in (grads, crossed, params))
        np.testing.assert_allclose(np.linalg.norm(q / scale), np.linalg.norm(g), rtol=1e-5)
        assert abs(np.sum(q / scale * p)) < 1e-5


def test_a_gradient_along_the_weights_leaves_nothing():
    params = tree(0)
    updates, _ = ACROSS.update(params, ACROSS.init(params), params)
    close(updates, jax.tree.map(jnp.zeros_like, params))


def test_what_the_mask_leaves_out_passes():
    params = tree(0)
    tx = optzoo.orthograd(
        optax.identity(), mask=lambda tree: {name: name != "gain" for name in tree}
    )
    updates, _ = tx.update(params, tx.init(params), params)
    assert updates["gain"] == params["gain"]
    close(updates["bias"], jnp.zeros_like(params["bias"]))


def test_cautious_keeps_what_descends_and_enlarges_it():
    fixed = {"w": jnp.array([-1.0, -2.0, 3.0, 0.0])}
    tx = optax.stateless(lambda updates, _: fixed)
    grads = {"w": jnp.array([1e-30, 2.0, 1.0, 1.0])}
    for rescale, factor in (("mean", 2.0), ("plus_one", 4 / 3)):
        filtered = optzoo.cautious(tx, rescale=rescale)
        updates, _ = filtered.update(grads, filtered.init(grads), grads)
        close(updates["w"], factor * jnp.array([-1.0, -2.0, 0.0, 0.0]))


MASK = {"w": True, "gain": False}
CURVES = {"w": jnp.array([1.0, 4.0]), "gain": jnp.array(3.0)}


def bowl(params):
    return sum(jnp.sum(CURVES[name] * p**2) / 2 for name, p in params.items())


def second(params, direction, radius, weight=1.0, scale=1.0):
    tx = primitives.second_gradient(optax.identity(), direction, radius, weight)
    grads = jax.tree.map(lambda c, p: scale * c * p, CURVES, params)
    return tx.update(grads, tx.init(params), params, value_fn=bowl)[0]


def test_second_gradients_of_a_quadratic_are_known():
    params = {"w": jnp.array([3.0, -1.0]), "gain": jnp.array(0.5)}
    curves, p = np.array([1.0, 4.0, 3.0]), np.array([3.0, -1.0, 0.5])
    g = curves * p
    sharp = p**2 * g / np.linalg.norm(p * g)
    directions = {"unit": g / np.linalg.norm(g), "adaptive": sharp, "gradient": g}
    for direction, d in directions.items():
        for radius, weight in ((0.1, 1.0), (-0.2, -0.5)):
            want = g + weight * radius * curves * d
            got = second(params, direction, radius, weight)
            close(jnp.append(got["w"], got["gain"]), jnp.array(want, jnp.float32))


def test_the_ascent_has_its_length_whatever_the_size_of_the_gradient():
    params = {"w": jnp.array([3.0, -1.0]), "gain": jnp.array(0.5)}
    for scale in (1e-25, 1e30):
        jax.tree.map(close, second(params, "unit", 0.1, scale=scale), second(params, "unit", 0.1))
    still = jax.tree.map(jnp.zeros_like, params)
    for direction in ("unit", "adaptive"):
        jax.tree.map(close, second(still, direction, 0.1), still)


@pytest.mark.parametrize("direction", ["unit", "adaptive"])
def test_a_second_gradient_may_come_as_an_update_of_its_own(direction):
    settings = dict(direction=direction, radius=0.1, weight=0.5, eta=0.2, mask=MASK)
    rule = optax.sgd(0.1, momentum=0.9)
    once = primitives.second_gradient(rule, **settings)
    twice = primitives.ascend_then_descend(optzoo.lookahead(rule, period=2), **settings)
    step = jax.jit(twice.update)
    params = at = {"w": jnp.array([3.0, -1.0]), "gain": jnp.array(0.5)}
    known, state = once.init(params), twice.init(params)
    means = optzoo.lookahead(optax.identity(), period=2).init(params).slow
    for count in range(4):
        climb, state = step(jax.grad(bowl)(at), state, at)
        at = optax.apply_updates(at, climb)
        jax.tree.map(close, optzoo.eval_params(state, at), means)
        back, state = step(jax.grad(bowl)(at), state, at)
        at = optax.apply_updates(at, back)
        updates, known = once.update(jax.grad(bowl)(params), known, params, value_fn=bowl)
        params = optax.apply_updates(params, updates)
        if count % 2:
            means = params = jax.tree.map(lambda slow, p: (slow + p) / 2, means, params)
        jax.tree.map(close, at, params)
        jax.tree.map(close, optzoo.eval_params(state, at), means)


def test_what_has_no_size_is_not_moved_unless_eta_gives_it_one():
    params = {"w": jnp.array([3.0, 0.0]), "gain": jnp.array(0.5)}
    slopes = {"w": jnp.array([1.0, 2.0]), "gain": jnp.array(-2.0)}
    for eta, mask in ((0.0, None), (0.5, MASK)):
        tx = optzoo.asam(optax.identity(), rho=0.1, eta=eta, mask=mask)
        moved, _ = tx.update(
            slopes,
            tx.init(params),
            params,
            value_fn=lambda p: sum(jnp.sum(x**2) / 2 for x in jax.tree.leaves(p)),
        )
        sizes = np.array([3.0 + eta, eta, 0.5 if mask is None else 1.0])
        g = np.array([1.0, 2.0, -2.0])
        want = [3.0, 0.0, 0.5] + 0.1 * sizes**2 * g / np.linalg.norm(sizes * g)
        close(jnp.append(moved["w"], moved["gain"]), jnp.array(want, jnp.float32))


def test_gradient_regularization_is_sam_where_strength_is_the_radius():
    params = {"w": jnp.array([3.0, -1.0]), "gain": jnp.array(0.5)}
    grads = jax.grad(bowl)(params)
    made = [
        wrap(optax.identity()).update(grads, optax.EmptyState(), params, value_fn=bowl)[0]
        for wrap in (
            lambda tx: optzoo.sam(tx, rho=0.1),
            lambda tx: optzoo.gradient_regularization(tx, strength=0.1, radius=0.1),
        )
    ]
    jax.tree.map(close, *made)
    with pytest.raises(ValueError, match="gradient_regularization: radius must not be 0; got 0"):
        optzoo.gradient_regularization(optax.identity(), radius=0)


def test_flooding_descends_above_its_level_and_climbs_below():
    tx, grads = primitives.flood(0.5), {"w": jnp.array([1.0, -2.0])}
    for value, sign in ((0.7, 1.0), (0.5, 0.0), (0.3, -1.0)):
        updates, _ = tx.update(grads, tx.init(grads), value=jnp.array(value))
        close(updates["w"], sign * grads["w"])


def test_what_needs_the_loss_says_so():
    params = {"w": jnp.ones(2)}
    for tx, missing in (
        (primitives.second_gradient(optax.identity()), "value_fn"),
        (primitives.flood(0.5), "value"),
    ):
        with pytest.raises(ValueError, match=f"needs {missing}"):
            tx.update(params, tx.init(params), params)
    with pytest.raises(ValueError, match="direction"):
        primitives.second_gradient(optax.identity(), "sideways")
