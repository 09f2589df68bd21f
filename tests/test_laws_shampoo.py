"""Laws of Kronecker factors, their roots and grafts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from laws import close, law, runner, same, scales, seeds

import optzoo
from optzoo import primitives as zoo

STEPS = 7


@functools.cache
def shampoo(learning_rate=1.0, **options):
    """A runner for all examples of a law, which then share what is compiled."""
    return runner(optzoo.shampoo(learning_rate, **options))


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def singles(tree):
    return jax.tree.map(lambda x: x.astype(jnp.float32), tree)


def positive(seed, size=5, rank=9):
    x = normal(seed, size, rank)
    return x @ x.T


@pytest.mark.parametrize("exponent", [1 / 4, 1 / 2, 1.0])
@law
@given(seed=seeds, scale=scales)
def test_a_power_undoes_the_matrix(exponent, seed, scale):
    with jax.enable_x64(True):
        v = scale * positive(seed)
        exact = zoo.eigen_power(0.0)(v, exponent)
        whole = jnp.linalg.matrix_power(exact, round(1 / exponent)) @ v
        close(whole, jnp.eye(5), atol=1e-8)
        ridged = zoo.eigen_power(1e-6, relative=True)(v, exponent)
        close(zoo.newton_power(1e-6)(v, exponent), ridged, rtol=1e-4, atol=1e-4 * exact.max())


@pytest.mark.parametrize("size", [0, 1, 4])
def test_powers_of_zero_are_the_ridge_or_nothing(size):
    zero = jnp.zeros((size, size))
    close(zoo.eigen_power(1e-4)(zero, 0.5), 100 * jnp.eye(size), rtol=1e-3)
    same(zoo.eigen_power(0.0)(zero, 0.5), jnp.eye(size))
    close(zoo.newton_power(1e-4, relative=False)(zero, 0.5), 100 * jnp.eye(size), rtol=1e-3)


def test_the_largest_eigenvalue_by_power_iteration():
    with jax.enable_x64(True):
        v = positive(2)
        close(zoo.power_largest(1e-12, steps=2000)(v), jnp.linalg.eigvalsh(v)[-1], rtol=1e-8)


BOX = dict(b1=0.0, b2=None, grafted=False, momentum_first=False, momentum_form="sum", block=None)


@law
@given(seed=seeds)
def test_the_box_on_a_vector_is_full_matrix_adagrad(seed):
    with jax.enable_x64(True):
        grads = {"w": normal(seed, STEPS, 3)}
        updates = shampoo(eps=1e-2, **BOX)({"w": jnp.zeros(3)}, grads)[0]["w"]
        h = 1e-2 * np.eye(3)
        for g, u in zip(np.asarray(grads["w"]), updates, strict=True):
            h = h + np.outer(g, g)
            values, vectors = np.linalg.eigh(h)
            close(u, -(vectors / np.sqrt(values)) @ vectors.T @ g, rtol=1e-9, atol=1e-12)


@law
@given(seed=seeds)
def test_a_long_axis_keeps_sums_of_squares(seed):
    grads = {"w": normal(seed, STEPS, 4, 3).astype(jnp.float32)}
    updates = shampoo(eps=1e-3, max_size=2, **BOX)({"w": jnp.zeros((4, 3))}, grads)[0]["w"]
    squares = np.cumsum(np.square(grads["w"]), axis=0)
    rows, columns = squares.sum(2, keepdims=True), squares.sum(1, keepdims=True)
    close(updates, -grads["w"] * ((rows + 1e-3) * (columns + 1e-3)) ** -0.25, rtol=1e-4)


@law
@given(seed=seeds)
def test_without_a_graft_steps_turn_with_the_problem(seed):
    with jax.enable_x64(True):
        run = shampoo(grafted=False, eps=1e-6)
        left, right = (jnp.linalg.qr(normal(seed + n, n, n))[0] for n in (4, 3))
        params, grads = {"w": normal(seed, 4, 3)}, {"w": normal(seed + 1, STEPS, 4, 3)}

        def turned(tree):
            return jax.tree.map(lambda x: left @ x @ right, tree)

        want = turned(run(params, grads)[0])
        close(run(turned(params), turned(grads))[0], want, rtol=1e-6, atol=1e-8)


ADAM = runner(optax.chain(zoo.adam(), optax.scale(-1.0)))


@law
@given(seed=seeds)
def test_steps_are_as_long_as_adams_and_are_adams_before_the_start(seed):
    params = {"w": normal(seed, 4, 3), "b": normal(seed + 1, 3)}
    params, grads = singles((params, jax.tree.map(lambda p: normal(seed, STEPS, *p.shape), params)))
    updates, adam = shampoo(start=4)(params, grads)[0], ADAM(params, grads)[0]

    def check(u, a):
        close(u[:3], a[:3])
        assert np.abs(u[3:] - a[3:]).max() > 1e-3
        rows = (len(u), -1)
        norms = (np.linalg.norm(np.reshape(x, rows), axis=1) for x in (u, a))
        close(*norms, rtol=1e-4)

    jax.tree.map(check, updates, adam)


SIGN = optax.scale_by_sign()


@law
@given(seed=seeds)
def test_any_rule_makes_the_length(seed):
    params = {"w": jnp.zeros((4, 3))}
    grads = {"w": normal(seed, STEPS, 4, 3).astype(jnp.float32)}
    updates = shampoo(graft=SIGN)(params, grads)[0]["w"]
    close(np.sqrt(np.sum(np.square(updates), (1, 2))), np.full(STEPS, np.sqrt(12)), rtol=1e-4)


@law
@given(seed=seeds)
def test_stacked_layers_and_blocks_are_leaves_of_their_own(seed):
    stacked = {"layers": {"w": normal(seed, STEPS, 3, 4, 2).astype(jnp.float32)}}
    apart = {name: stacked["layers"]["w"][:, i] for i, name in enumerate("abc")}
    options = dict(eps=1e-4, graft_blocks=True)

    def updates(grads, **more):
        params = jax.tree.map(lambda g: g[0], grads)
        return shampoo(**options, **more)(params, grads)[0]

    alone = updates(apart)
    joined = jnp.stack([alone[name] for name in "abc"], 1)
    close(updates(stacked)["layers"]["w"], joined, rtol=1e-3, atol=1e-4)
    whole = {"w": jnp.concatenate([apart[name] for name in "abc"], 1)}
    pieces = jnp.concatenate([alone[name] for name in "abc"], 1)
    close(updates(whole, block=4)["w"], pieces, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("stagger", [False, True])
def test_each_root_is_renewed_once_a_period(stagger):
    every, sizes = 4, [2, 3, 3, 4, 5, 5, 6, 6]
    params = {f"w{i}": normal(i, size, size).astype(jnp.float32) for i, size in enumerate(sizes)}
    grads = {name: normal(9, 9, *p.shape).astype(jnp.float32) for name, p in params.items()}
    tx = optzoo.shampoo(0.1, every=every, start=1, stagger=stagger)
    roots = jax.tree.leaves(runner(tx)(params, grads)[2][0].made[1].roots)
    changed = np.array([[np.any(r[i] != r[i + 1]) for r in roots] for i in range(8)])
    assert np.all(changed[:4].sum(0) == 1) and np.all(changed[4:].sum(0) == 1)
    work = changed @ np.array([r.shape[-1] ** 3 for r in roots])
    assert work.max() <= 2 * work.mean() if stagger else np.count_nonzero(work) == 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_a_bad_gradient_leaves_factors_and_roots_as_they_were(bad):
    params = {"w": jnp.ones((3, 4))}
    tx = optzoo.shampoo(0.1)
    update = jax.jit(tx.update)
    _, state = update({"w": normal(0, 3, 4).astype(jnp.float32)}, tx.init(params), params)
    _, after = update({"w": jnp.full((3, 4), bad)}, state, params)
    same(after[0].made[1].factors, state[0].made[1].factors)
    assert all(np.isfinite(root).all() for root in jax.tree.leaves(after[0].made[1].roots))
