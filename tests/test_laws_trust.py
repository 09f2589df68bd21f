"""Laws of steps that are measured by the weights: trust ratios and rotations."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from laws import STEPS, close, law, runner, same, seeds, tree

import optzoo
from optzoo import primitives as zoo

RATE = 0.1


def norms(leaves):
    return {name: np.linalg.norm(np.ravel(leaf)) for name, leaf in leaves.items()}


LARS = jax.jit(optzoo.lars(RATE, weight_decay=0.0, momentum=0.0, trust_coefficient=0.02).update)


@law
@given(seeds)
def test_a_lars_step_is_a_part_of_its_weights_whatever_the_gradients_size(seed):
    params = tree(seed)
    state = optzoo.lars().init(params)
    for scale in (1e-6, 1.0, 1e6):
        grads = tree(seed + 1, scale=scale)
        updates, _ = LARS(grads, state, params)
        sizes, weights = norms(updates), norms(params)
        for name in ("kernel", "conv"):
            np.testing.assert_allclose(sizes[name], RATE * 0.02 * weights[name], rtol=1e-5)
        for name in ("bias", "gain"):
            np.testing.assert_allclose(updates[name], -RATE * grads[name], rtol=1e-6)


def test_a_schedule_enters_once_behind_the_momentum_and_lingers_before_it():
    def rate(count):
        return jnp.where(count < 3, 0.1, 0.001)

    params, grads = tree(0), tree(1, steps=STEPS)
    paper = runner(optzoo.lars(rate, momentum_first=False))(params, grads)[0]
    ours = runner(optzoo.lars(rate))(params, grads)[0]
    same(jax.tree.map(lambda u: u[:1], ours), jax.tree.map(lambda u: u[:1], paper))
    theirs = norms(jax.tree.map(lambda u: u[3], paper))
    assert all(norms(jax.tree.map(lambda u: u[3], ours))[leaf] < theirs[leaf] for leaf in params)
    close(
        paper,
        runner(
            optax.lars(
                rate, 5e-4, weight_decay_mask=zoo.kernel_mask, trust_ratio_mask=zoo.kernel_mask
            )
        )(params, grads)[0],
    )


def test_lamb_is_optaxs_on_kernels_and_plain_adam_on_vectors():
    params, grads = tree(2), tree(3, steps=STEPS)
    ours = runner(optzoo.lamb(RATE))(params, grads)[0]
    with jax.numpy_dtype_promotion("standard"):
        theirs = runner(optax.lamb(RATE, weight_decay=0.01))(params, grads)[0]
    adam = runner(optax.chain(zoo.adam(eps=1e-6), optax.scale(-RATE)))(params, grads)[0]
    start = {name: ours[name][0] for name in ours}
    close(
        {n: ours[n][0] for n in ("kernel", "conv")}, {n: theirs[n][0] for n in ("kernel", "conv")}
    )
    close({n: ours[n] for n in ("bias", "gain")}, {n: adam[n] for n in ("bias", "gain")})
    sizes, weights = norms(start), norms(params)
    np.testing.assert_allclose(sizes["kernel"], RATE * weights["kernel"], rtol=1e-5)


def test_every_layer_of_a_stack_has_a_ratio_and_an_angle_of_its_own():
    rng = np.random.default_rng(0)
    stack = jnp.asarray(rng.normal(size=(3, 4, 5)) * np.array([1, 10, 100])[:, None, None])
    grads = jnp.asarray(rng.normal(size=(3, 4, 5)))
    axes = zoo.Axes((1,), (2,), batch=(0,))
    for tx in (
        zoo.scale_by_trust_ratio(0.5, eps=0.1, weight_decay=0.01, axes=axes),
        zoo.rotate(RATE, axes=axes),
    ):
        together, _ = tx.update({"a": stack}, tx.init({"a": stack}), {"a": grads})
        for i in range(3):
            alone, _ = tx.update({"a": stack[i]}, tx.init({"a": stack[i]}), {"a": grads[i]})
            np.testing.assert_allclose(together["a"][i], alone["a"], rtol=1e-5)


def test_caps_bound_what_counts():
    params, updates = {"w": jnp.full((2, 2), 10.0)}, {"w": jnp.full((2, 2), 50.0)}

    def ratio(**options):
        tx = zoo.scale_by_trust_ratio(**options)
        return float(tx.update(updates, tx.init(params), params)[0]["w"][0, 0]) / 50

    assert ratio() == pytest.approx(20 / 100)
    assert ratio(norm_cap=10.0) == pytest.approx(10 / 100)
    assert ratio(norm_cap=10.0, update_cap=10.0) == pytest.approx(1)
    assert ratio(clip=0.1) == pytest.approx(0.1)
    assert ratio(eps=100.0) == pytest.approx(20 / 200)
    assert ratio(coefficient=lambda k: 0.5 / (k.astype(float) + 1)) == pytest.approx(0.5 * 20 / 100)


LAYCA = runner(optzoo.layca(optax.chain(zoo.adam(), optax.scale(-0.1)), RATE))


@law
@given(seeds)
def test_layca_turns_by_one_angle_and_keeps_every_norm(seed):
    params, grads = tree(seed), tree(seed + 1, steps=STEPS)
    updates, after, _ = LAYCA(params, grads)
    first = {name: leaf[0] for name, leaf in after.items()}
    last = {name: leaf[-1] for name, leaf in after.items()}
    same({n: last[n] for n in ("bias", "gain")}, {n: params[n] for n in ("bias", "gain")})
    turned = optzoo.layer_rotation(params, first)
    for name in ("kernel", "conv"):
        np.testing.assert_allclose(norms(last)[name], norms(params)[name], rtol=1e-5)
        np.testing.assert_allclose(turned[name], 1 - 1 / np.sqrt(1 + RATE**2), rtol=1e-4)
    assert turned["bias"] == 0


def test_layca_may_train_the_rest_and_goes_by_directions_alone():
    params, grads = tree(4), tree(5, steps=STEPS)
    free = runner(optzoo.layca(optax.sgd(0.5), RATE, freeze=False))(params, grads)[0]
    plain = runner(optax.sgd(0.5))(params, grads)[0]
    held = runner(optzoo.layca(optax.sgd(1e-3), RATE))(params, grads)[0]
    same({n: free[n] for n in ("bias", "gain")}, {n: plain[n] for n in ("bias", "gain")})
    close(free["kernel"], held["kernel"])
    still = runner(optzoo.layca(optax.sgd(1e-9), RATE))(params, grads)[0]
    assert not np.any(still["kernel"])


def test_rotation_is_measured_where_one_minus_the_cosine_loses_every_digit():
    start = {"w": jnp.array([1.0, 0.0]), "zero": jnp.zeros(2)}
    now = {"w": jnp.array([1.0, 1e-5]), "zero": jnp.zeros(2)}
    turned = optzoo.layer_rotation(start, now)
    np.testing.assert_allclose(turned["w"], 0.5e-10, rtol=1e-4)
    assert turned["zero"] == 0
    opposite = optzoo.layer_rotation(start, {"w": -start["w"], "zero": jnp.ones(2)})
    assert opposite["w"] == 2 and opposite["zero"] == pytest.approx(0.5)
