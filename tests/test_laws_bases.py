"""Laws of rules in another basis: rotations, renewals, stacked and cut leaves, bad numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from asking import ahead
from hypothesis import given
from laws import close, law, runner, same, seeds

import optzoo
from optzoo import primitives as zoo

STEPS = 9
INSIDE = {
    "adam": optax.adam(0.1),
    "adamp": optzoo.adamp(0.1),
    "lion": optax.lion(0.1),
    "scale_by_adam": optax.chain(zoo.adam(), optax.scale(-0.1)),
    "sgd": optax.sgd(0.1, momentum=0.9),
}


@functools.cache
def runner_in_basis(rule, **options):
    """One for all examples of a law, which then share what is compiled."""
    return runner(optzoo.in_basis(INSIDE[rule], **options))


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def rotations(seed, *sizes):
    return [jnp.linalg.qr(normal(seed + size, size, size))[0] for size in sizes]


@pytest.mark.parametrize("rule", ["adam", "lion", "adamp"])
@law
@given(seed=seeds)
def test_every_rule_turns_with_its_problem(rule, seed):
    # Optax's rules promote dtypes implicitly.
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        run = runner_in_basis(rule, every=2)
        left, right = rotations(seed % 1000, 5, 5)
        params, grads = {"w": normal(seed, 5, 5)}, {"w": normal(seed + 1, STEPS, 5, 5)}

        def turned(tree):
            return jax.tree.map(lambda x: left @ x @ right, tree)

        want = turned(run(params, grads)[0])
        close(run(turned(params), turned(grads))[0], want, rtol=1e-6, atol=1e-8)


ALONE = runner(INSIDE["sgd"])


@law
@given(seed=seeds)
def test_a_linear_rule_does_not_see_the_basis(seed):
    with jax.enable_x64(True):
        params, grads = {"w": normal(seed, 3, 2, 4)}, {"w": normal(seed + 1, STEPS, 3, 2, 4)}
        updates = runner_in_basis("sgd", every=1)(params, grads)[0]["w"]
        want = ALONE(params, jax.tree.map(lambda g: g[1:], grads))[0]["w"]
        assert not np.any(updates[0])
        close(updates[1:], want, rtol=1e-9, atol=1e-12)


def test_functions_of_parameters_are_seen_from_the_basis():
    with jax.enable_x64(True):
        params, grads = {"w": normal(0, 3, 4)}, {"w": normal(1, 3, 4)}

        def value_fn(params):
            return jnp.sum(params["w"] ** 4)

        def last(tx):
            state = tx.init(params)
            for _ in range(2):
                updates, state = tx.update(grads, state, params, value_fn=value_fn)
            return updates

        close(last(optzoo.in_basis(ahead(0.1))), last(ahead(0.1)), rtol=1e-9)


def test_a_second_moment_is_put_in_order_and_no_more():
    # A basis along the axes, whose two directions change places when their gradients do.
    def gradient(first, second):
        return {"w": jnp.diag(jnp.asarray([first, second]))}

    tx = optzoo.in_basis(zoo.adam(b2=0.5), decay=0.1, every=1)
    state = tx.init(gradient(0.0, 0.0))
    for g in (gradient(2.0, 1.0), gradient(2.0, 1.0), gradient(1.0, 8.0)):
        before, (_, state) = state, tx.update(g, state)
    moment = jnp.diagonal(state.inner[1].moment["w"])
    close(
        moment[::-1], 0.5 * jnp.diagonal(before.inner[1].moment["w"]) + 0.5 * jnp.array([1.0, 64.0])
    )


@law
@given(seed=seeds)
def test_stacked_layers_and_pieces_are_leaves_of_their_own(seed):
    names = ["a", "b", "c"]
    stacked = {"layers": {"w": normal(seed, STEPS, 3, 4, 2).astype(jnp.float32)}}
    apart = {name: stacked["layers"]["w"][:, i] for i, name in enumerate(names)}

    def updates(grads, **options):
        params = jax.tree.map(lambda g: g[0], grads)
        return runner_in_basis("scale_by_adam", every=2, **options)(params, grads)[0]

    together = updates(stacked)["layers"]["w"]
    joined = jnp.stack([updates(apart)[name] for name in names], 1)
    close(together, joined, rtol=1e-3, atol=1e-4)
    whole = {"w": jnp.concatenate([apart[name] for name in names], 1)}
    pieces = updates(whole, block=4)["w"]
    close(pieces, jnp.concatenate([joined[:, i] for i in range(3)], 1), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("limit", "options", "want"),
    [
        (12, {}, (8, 6)),
        (1, {}, (4, 2, 3, 2)),
        (100, {}, (48,)),
        (12, {"last_first": True}, (4, 12)),
        (100, {"last_first": True, "keep": 2}, (4, 12)),
    ],
)
def test_neighbouring_axes_merge_up_to_the_limit(limit, options, want):
    assert zoo.merge_axes(limit, **options)((4, 2, 3, 2)) == want


def test_axes_of_one_vanish():
    assert zoo.merge_axes(4)((9, 1, 1)) == (9,)
    assert zoo.merge_axes(4)((1, 9, 1)) == (9,)
    assert zoo.merge_axes(4)(()) == ()


def bases(state):
    return jax.tree.leaves(state.basis)


@pytest.mark.parametrize("stagger", [False, True])
def test_each_factor_is_renewed_once_a_period_and_staggered_no_step_does_double_work(stagger):
    every, sizes = 4, [2, 3, 3, 4, 5, 5, 6, 6]
    params = {f"w{i}": normal(i, size, size).astype(jnp.float32) for i, size in enumerate(sizes)}
    tx = optzoo.in_basis(optax.sgd(0.1), every=every, stagger=stagger)
    state = tx.init(params)
    update = jax.jit(tx.update)
    renewed = []
    for step in range(1 + 2 * every):
        grads = {name: normal(100 + step, *p.shape).astype(p.dtype) for name, p in params.items()}
        before, (_, state) = bases(state), update(grads, state, params)
        renewed.append([bool(jnp.any(x != y)) for x, y in zip(before, bases(state), strict=True)])
    work = np.array(renewed[1:]) * np.array([len(q[0]) ** 3 for q in bases(state)])
    assert all(renewed[0])
    assert np.all(np.sum(renewed[1 : 1 + every], axis=0) == 1)
    assert np.all(np.sum(renewed[1 + every :], axis=0) == 1)
    if stagger:
        assert work.sum(1).max() <= 2 * work.sum(1).mean()
    else:
        assert np.count_nonzero(work.sum(1)) == 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_a_bad_gradient_leaves_factors_and_bases_as_they_were(bad):
    params = {"w": jnp.ones((3, 4))}
    tx = optzoo.in_basis(optax.sgd(0.1), every=1)
    update = jax.jit(tx.update)
    state = tx.init(params)
    for seed in range(2):
        _, state = update({"w": normal(seed, 3, 4).astype(jnp.float32)}, state, params)
    _, after = update({"w": jnp.full((3, 4), bad)}, state, params)
    same(after.factors, state.factors)
    updates, _ = update({"w": jnp.ones((3, 4))}, after, params)
    close(updates["w"], -0.1 * jnp.ones((3, 4)))


def test_a_basis_stays_orthogonal_over_many_renewals():
    run = runner(optzoo.in_basis(optax.sgd(0.1), every=1))
    grads = {"w": normal(0, 10_000, 4, 3).astype(jnp.float32)}
    state = run({"w": jnp.zeros((4, 3))}, grads)[2]
    for q in jax.tree.leaves(state.basis):
        close(q[-1, 0].T @ q[-1, 0], jnp.eye(q.shape[-1]), atol=1e-5)


def test_the_basis_of_a_null_space_does_not_depend_on_rounding():
    column = normal(3, 6, 1).astype(jnp.float32)
    tx = optzoo.in_basis(optax.sgd(0.1))

    def basis(g):
        return bases(tx.update({"w": g}, tx.init({"w": g}))[1])[0][0]

    g = jnp.concatenate([column, 2 * column], 1)
    close(jnp.abs(basis(g)), jnp.abs(basis(g * (1 + 1e-6) / 3)), atol=1e-3)


def test_learning_rates_under_vmap_leave_the_renewal_a_branch():
    params = {"w": jnp.ones((3, 4))}

    def step(learning_rate, state):
        return optzoo.soap(learning_rate).update(params, state, params)

    state = optzoo.soap(0.1).init(params)
    program = jax.make_jaxpr(jax.vmap(step, in_axes=(0, None)))(jnp.ones(3), state)
    outside = {equation.primitive.name for equation in program.jaxpr.eqns}
    assert "cond" in str(program) and not {"eigh", "qr", "householder_product"} & outside


@pytest.mark.parametrize(
    ("tx", "kernel", "bias", "stack"),
    [
        (optzoo.soap(), "10² × 4²", "—", "3 of 4² × 4²"),
        (optzoo.soap(max_size=8), "— × 4²", "—", "3 of 4² × 4²"),
        (optzoo.soap(block=4, vectors=True), "2 of 4² × 4² + 2² × 4²", "4²", "3 of 4² × 4²"),
        (optzoo.shampoo(max_size=8), "10 × 4²", "4²", "3 of 4² × 4²"),
        (optzoo.psgd(), "10 × 4²", "4", "3 of 4² × 4²"),
    ],
)
def test_describe_shows_what_is_kept_of_each_axis(tx, kernel, bias, stack):
    shapes = {"a": {"kernel": (10, 4), "bias": (4,)}, "layers": {"w": (3, 4, 4)}}
    params = jax.tree.map(jnp.zeros, shapes, is_leaf=lambda node: isinstance(node, tuple))
    table = optzoo.describe(tx, params).splitlines()
    start, end = table[0].index("factors"), table[0].index("state bytes")
    assert [row[start:end].strip() for row in table[1:4]] == [bias, kernel, stack]
    assert "factors" not in optzoo.describe(optax.adam(1.0), params)
