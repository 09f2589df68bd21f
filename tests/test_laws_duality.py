"""Laws of the duality maps: the best point of the ball, and the rules that are one ball each."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from laws import STEPS, close, law, runner, same, scales, seeds, tree

import optzoo
from optzoo import primitives as zoo

POLAR = zoo.polar()


def singular_values(x):
    return np.linalg.svd(x, compute_uv=False)


def rms(x, axis=None):
    return np.sqrt(np.mean(np.square(x), axis=axis))


# The norm of a matrix (in, out) and its dual norm.
NORMS = {
    "spectral": (
        lambda x: singular_values(x).max() * np.sqrt(len(x) / len(x.T)),
        lambda u: singular_values(u).sum() * np.sqrt(len(u.T) / len(u)),
    ),
    "sign": (lambda x: np.abs(x).max() * len(x), lambda u: np.abs(u).sum() / len(u)),
    "max": (lambda x: np.abs(x).max(), lambda u: np.abs(u).sum()),
    "row": (
        lambda x: np.linalg.norm(x, axis=0).max() * np.sqrt(len(x)),
        lambda u: np.linalg.norm(u, axis=0).sum() / np.sqrt(len(u)),
    ),
    "column": (
        lambda x: rms(x, 1).max(),
        lambda u: np.linalg.norm(u, axis=1).sum() * np.sqrt(len(u.T)),
    ),
    "rms": (rms, lambda u: np.linalg.norm(u) * np.sqrt(u.size)),
    "euclidean": (np.linalg.norm, np.linalg.norm),
}


@pytest.mark.parametrize("ball", NORMS)
def test_the_point_is_in_the_ball_and_promises_the_dual_norm(ball):
    options = {"orthogonalizer": POLAR, "eps": 0.0}
    dual = jax.jit(zoo.dualize(ball, **options).update)
    promise = jax.jit(zoo.dual_norm(ball, **options).update)
    promise_state = zoo.dual_norm(ball, **options).init({})
    norm, dual_norm = NORMS[ball]
    for seed, shape in enumerate([(4, 6), (6, 4), (1, 5), (5, 1)]):
        u = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
        x = dual({"kernel": u}, optax.EmptyState())[0]["kernel"]
        np.testing.assert_allclose(norm(x), 1, rtol=1e-5)
        want = dual_norm(u)
        np.testing.assert_allclose(np.sum(u * x), want, rtol=1e-5)
        np.testing.assert_allclose(promise({"kernel": u}, promise_state)[0]["kernel"], want, 1e-5)


@pytest.mark.parametrize("ball", [*NORMS, "kernel"])
def test_zero_stays_zero_and_size_does_not_matter(ball):
    tx = zoo.dualize(ball, orthogonalizer=POLAR, eps=0.0)
    grads = {"kernel": jnp.asarray(np.random.default_rng(0).standard_normal((3, 2, 4)), "float32")}
    zeros = jax.tree.map(jnp.zeros_like, grads)
    same(tx.update(zeros, optax.EmptyState())[0], zeros)
    large = jax.tree.map(lambda g: 2.0**20 * g, grads)
    close(*(tx.update(g, optax.EmptyState())[0] for g in (grads, large)))


def test_balls_are_chosen_by_what_a_leaf_is():
    leaves = {
        "embed": {"embedding": jnp.ones((7, 4))},
        "Conv_0": {"kernel": jnp.ones((3, 3, 2, 4)), "bias": jnp.ones(4)},
        "attention": {"out": {"kernel": jnp.ones((2, 3, 4))}},
        "Dense_0": {"kernel": jnp.ones((4, 5))},
    }
    want = {
        "embed": {"embedding": "column"},
        "Conv_0": {"kernel": "kernel", "bias": "rms"},
        "attention": {"out": {"kernel": "spectral"}},
        "Dense_0": {"kernel": "spectral"},
    }
    options = {"orthogonalizer": POLAR}
    out = [
        zoo.dualize(ball, **options).update(leaves, optax.EmptyState())[0]
        for ball in ("auto", want, {"": "auto", "Dense_0": "spectral"})
    ]
    same(out[0], out[1])
    same(out[0], out[2])
    assert np.ptp([leaf.ravel()[0] for leaf in jax.tree.leaves(out[0])]) > 0.1


def test_a_ball_may_be_a_function_and_a_tree_may_not_leave_one_out():
    grads = {"a": jnp.ones((2, 3)), "b": jnp.ones(3)}
    tx = zoo.dualize({"a": lambda axes, u: len(axes.input) * 2 * u, "b": "max"})
    out = tx.update(grads, optax.EmptyState())[0]
    same(out, {"a": 2 * grads["a"], "b": grads["b"]})
    with pytest.raises(ValueError, match="ball: no entry for 'b'"):
        zoo.dualize({"a": "max"}).update(grads, optax.EmptyState())
    with pytest.raises(ValueError, match="ball must be one of auto, .*; got 'maximum'"):
        zoo.dualize({"a": "maximum"})


def test_each_leaf_is_scaled_by_its_entry_or_the_rest():
    grads = {"a": {"x": jnp.ones(2), "y": jnp.ones(3)}, "head": jnp.ones(())}
    tx = zoo.scale_leaves({"": 2.0, "head": 5.0, "a": {"y": 3.0}})
    out = tx.update(grads, optax.EmptyState())[0]
    same(jax.tree.map(jnp.max, out), {"a": {"x": 2.0, "y": 3.0}, "head": 5.0})
    with pytest.raises(ValueError, match="factor: no entry for 'head'"):
        zoo.scale_leaves({"a": 2.0}).update(grads, optax.EmptyState())


RATE = 0.05
SIGNS = optax.chain(optax.trace(0.9), optax.stateless(lambda u, _: jax.tree.map(jnp.sign, u)))
IDENTITIES = {
    "muon without Nesterov": (
        {"ball": "spectral", "scale": "fan"},
        optzoo.scale_by_muon(momentum=0.9, nesterov=False),
    ),
    "sign descent with momentum": ({"ball": "max"}, SIGNS),
    "normalised descent with momentum, layer by layer": (
        {"ball": "euclidean"},
        optax.chain(
            optax.trace(0.9),
            optax.stateless(lambda u, _: jax.tree.map(lambda x: x / jnp.linalg.norm(x), u)),
        ),
    ),
}


@pytest.mark.parametrize("name", IDENTITIES)
def test_unconstrained_scion_in_one_ball_is_a_rule_of_its_own(name):
    options, direction = IDENTITIES[name]
    ours = runner(optzoo.scion(RATE, momentum=0.9, constrained=False, eps=0.0, **options))
    theirs = runner(optax.chain(direction, optax.scale_by_learning_rate(RATE)))
    for seed in range(3):
        start, grads = tree(seed), tree(seed + 1, steps=STEPS)
        if name.startswith("normalised"):
            start, grads = ({k: v for k, v in t.items() if k != "gain"} for t in (start, grads))
        got, want = (run(start, grads)[1] for run in (ours, theirs))
        close(got, want, atol=2e-5)


@law
@given(seeds, scales)
def test_constrained_iterates_stay_in_their_balls(seed, scale):
    start, grads = tree(seed, scale=0.1), tree(seed + 1, steps=STEPS, scale=scale)
    params = SCION(start, grads)[1]
    kernel, bias = params["kernel"][-1], params["bias"][-1]
    size = 3 * max(1, NORMS["spectral"][0](start["kernel"]) / 3)
    assert NORMS["spectral"][0](kernel) <= size * (1 + 1e-5)
    assert rms(bias) <= 3 * (1 + 1e-5)


SCION = runner(optzoo.scion(0.3, radius=3.0, orthogonalizer=POLAR))
