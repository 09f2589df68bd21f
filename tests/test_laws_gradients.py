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
