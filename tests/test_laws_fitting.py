"""Laws of fitted preconditioners: norms, balance, what they tend to, what they are asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden.replay import FITS, load
from hypothesis import given
from laws import close, law, runner, same, seeds

import optzoo
from optzoo import primitives as zoo
from optzoo.primitives.fitting import balanced, turned_upright

FORMS = ("q0p5eq1p5", "qeq", "qep", "eq", "quad", "pro4p", "quad4p")


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), float)


@law
@given(seed=seeds)
def test_the_bound_is_below_the_norm_and_exact_for_rank_one(seed):
    with jax.enable_x64(True):
        bound, x = zoo.norm_bound(), normal(seed, 6, 6)
        for matrix, skew in ((x @ x.T, False), (x - x.T, True)):
            norm = np.linalg.norm(matrix, 2)
            assert 0.5 * norm <= bound(matrix, skew) <= norm * (1 + 1e-12)
        close(bound(jnp.outer(x[0], x[0])), x[0] @ x[0], rtol=1e-12)
        assert bound(jnp.zeros((3, 3))) == 0


@law
@given(seed=seeds)
def test_balanced_factors_have_the_same_product_and_size(seed):
    one, other = balanced((100 * normal(seed, 3, 3), normal(seed + 1, 4)))
    close(jnp.max(jnp.abs(one)), jnp.max(jnp.abs(other)))
    want = jnp.einsum("ij,k->ijk", 100 * normal(seed, 3, 3), normal(seed + 1, 4))
    close(jnp.einsum("ij,k->ijk", one, other), want, rtol=1e-4, atol=1e-3)


@law
@given(seed=seeds)
def test_a_turn_brings_a_matrix_nearer_to_a_symmetric_one(seed):
    x = normal(seed, 4, 4)
    q = x @ x.T + jnp.eye(4) + 0.1 * (x - x.T)

    def skew(q):
        return jnp.linalg.norm(q - q.T)

    for third in (False, True):
        turned = turned_upright(q, zoo.norm_bound(), largest=1 / 8, third=third)
        assert skew(turned) < skew(q)
        close(turned.T @ turned, q.T @ q, rtol=1e-2, atol=1e-2 * jnp.max(q.T @ q))


@pytest.mark.parametrize("name", FITS)
def test_a_dense_fit_is_the_recorded_one(name):
    with jax.enable_x64(True):
        recorded = load(name)
        pairs = tuple(jnp.asarray(recorded[kind][""]) for kind in ("v", "h"))
        options, state = FITS[name]["optzoo"]["arguments"], pairs[0].shape[1]
        step = jax.jit(lambda state, v, h: zoo.fit_hessian(state, v, h, **options))
        state = zoo.fit_hessian(state, pairs[0][0], pairs[1][0], **options)
        tolerance = FITS[name]["displacement"]
        for number, want in enumerate(recorded["params"]["P"]):
            if number:
                state = step(state, pairs[0][number], pairs[1][number])
            moved = np.abs(want - np.eye(len(want))).max()
            close(state.preconditioner, want, rtol=0, atol=tolerance * moved)


@pytest.mark.parametrize("fit", FORMS)
def test_gradients_become_white(fit):
    with jax.enable_x64(True):
        left, right = normal(1, 4, 4), normal(2, 4, 4)
        draws = normal(3, 3000, 4, 4)
        grads = {"w": jnp.einsum("ij,tjk,lk->til", left, draws, right)}
        tx = optzoo.psgd(1.0, fit=fit, momentum=0.0, clip=None, fit_rate=0.05)
        steps = runner(tx)({"w": jnp.zeros((4, 4))}, grads)[0]["w"]
        late = steps[-1000:].reshape(1000, 16)
        values = np.linalg.eigvalsh(late.T @ late / 1000)
        assert 0.5 < values.min() and values.max() < 2


def quadratic(seed):
    x = normal(seed, 4, 4)
    hessian = x @ x.T + 0.1 * jnp.eye(4)
    return hessian, lambda params: params["w"] @ hessian @ params["w"] / 2


def test_newton_takes_products_or_makes_them_from_value_fn():
    hessian, value_fn = quadratic(0)
    params = {"w": normal(1, 4)}
    grads = jax.grad(value_fn)(params)
    tx = optzoo.psgd(1.0, newton=True, key=3)
    state = tx.init(params)
    made, _ = tx.update(grads, state, params, value_fn=value_fn)
    with pytest.raises(ValueError, match="value_fn"):
        tx.update(grads, state, params)
    for scale in (1.0, 2.0):
        probe = {"w": scale * jnp.ones(4)}
        product = {"w": hessian @ probe["w"]}
        given_, _ = tx.update(grads, state, params, probe=probe, product=product)
        by_function, _ = tx.update(grads, state, params, probe=probe, value_fn=value_fn)
        close(by_function, given_)
    assert np.isfinite(made["w"]).all()


def test_noise_is_drawn_only_where_there_is_a_key():
    params = {"w": jnp.ones((3, 3))}
    grads = {"w": normal(0, 5, 3, 3).astype(jnp.float32)}

    def last(**options):
        return runner(optzoo.psgd(1.0, damping=0.1, **options))(params, grads)[0]["w"][-1]

    same(last(), last())
    assert np.abs(last(key=0) - last(key=1)).max() > 1e-3
    assert not any(
        jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        for leaf in jax.tree.leaves(optzoo.psgd().init(params))
    )


@law
@given(seed=seeds)
def test_stacked_layers_are_leaves_of_their_own(seed):
    stacked = {"layers": {"w": normal(seed, 7, 3, 4, 4).astype(jnp.float32)}}
    apart = {name: stacked["layers"]["w"][:, i] for i, name in enumerate("abc")}

    def updates(grads):
        params = jax.tree.map(lambda g: g[0], grads)
        tx = optzoo.scale_by_psgd(init_scale=1.0, clip=None)
        return runner(tx)(params, grads)[0]

    alone = updates(apart)
    joined = jnp.stack([alone[name] for name in "abc"], 1)
    close(updates(stacked)["layers"]["w"], joined, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_a_bad_gradient_leaves_factors_as_they_were(bad):
    params = {"w": jnp.ones((3, 4))}
    tx = optzoo.psgd(0.1)
    update = jax.jit(tx.update)
    _, state = update({"w": normal(0, 3, 4).astype(jnp.float32)}, tx.init(params), params)
    _, after = update({"w": jnp.full((3, 4), bad)}, state, params)
    assert all(np.isfinite(q).all() for q in jax.tree.leaves(after[0][0].factors))


def test_a_running_mean_is_a_mean_until_it_forgets():
    grads = {"w": normal(0, 6, 2).astype(jnp.float32)}
    means = runner(zoo.running_mean(0.75))({"w": jnp.zeros(2)}, grads)[0]["w"]
    close(means[3], jnp.mean(grads["w"][:4], 0))
    close(means[4], 0.75 * means[3] + 0.25 * grads["w"][4])


def test_amplitudes_are_clipped_by_mean_then_by_entry():
    u = {"w": jnp.array([6.0, 0.0, 0.0, 0.0]), "v": jnp.array([1.0, -1.0])}
    tx = zoo.clip_amplitude(1.0, 1.5)
    out, _ = tx.update(u, tx.init(u))
    close(out, {"w": jnp.array([1.5, 0.0, 0.0, 0.0]), "v": u["v"]})


@pytest.mark.parametrize("newton", [False, True])
def test_a_low_rank_fit_tends_to_the_root_or_the_inverse(newton):
    with jax.enable_x64(True):
        x, draws = normal(5, 6, 2), normal(4, 4000, 6)
        root = jnp.eye(6) + x @ x.T
        options = dict(rank=3, momentum=0.0, clip=None, fit_rate=0.1, init_scale=0.5, newton=newton)
        tx = optzoo.scale_by_psgd(**options, damping=0.0)
        params = {"a": jnp.zeros((2, 2)), "b": jnp.zeros(2)}

        def parts(v):
            return {"a": v[:4].reshape(2, 2), "b": v[4:]}

        def step(state, v):
            h = root @ v
            extra = {"probe": parts(v), "product": parts(h)} if newton else {}
            return tx.update(parts(h), state, params, **extra)[::-1]

        _, out = jax.jit(lambda: jax.lax.scan(step, tx.init(params), draws))()
        late = jnp.concatenate([out["a"].reshape(4000, 4), out["b"]], 1)[-1000:]
        values = np.linalg.eigvalsh(late.T @ late / 1000)
        assert 0.4 < values.min() and values.max() < 2.5


def test_the_amplitude_of_all_leaves_together():
    u = {"w": jnp.array([6.0, 0.0]), "v": jnp.array([0.0, 0.0])}
    out, _ = (tx := zoo.clip_amplitude(1.0, 10.0, whole=True)).update(u, tx.init(u))
    close(out["w"], jnp.array([2.0, 0.0]))
