"""Laws that all matrix rules share, and what each of the parts behind them promises."""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from laws import STEPS, close, law, runner, same, seeds, tree

import optzoo
from optzoo import primitives as zoo

RULES = optzoo.REGISTRY.of(kind="optimizer", family="matrix")
STACK = {"kernel": zoo.Axes((1,), (2,), (0,))}
names = pytest.mark.parametrize("name", RULES)


def built(name, **options):
    """A rule that sees a stack of matrices."""
    known = inspect.signature(RULES[name].factory).parameters
    axes = {"axes": STACK} if "axes" in known else {}
    return RULES[name].factory(**axes, **options)


def two_steps(tx, params, grads):
    """The updates of two steps with the same gradient."""
    state = tx.init(params)
    first, state = tx.update(grads, state, params)
    return first, tx.update(grads, state, params)[0]


STEPPERS = {name: jax.jit(partial(two_steps, built(name))) for name in RULES}


def stack(seed, count=3, rows=4, columns=6):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.standard_normal((count, rows, columns)), jnp.float32)


@names
def test_a_matrix_that_is_not_finite_spoils_no_other_of_its_stack(name):
    params, grads = stack(0), stack(1)
    if RULES[name].traits & {optzoo.registry.Trait.COUPLED}:
        pytest.skip("one step size for all leaves")
    for value in (jnp.nan, jnp.inf):
        spoilt = {"kernel": grads.at[0, 0, 0].set(value)}
        for got, want in zip(
            STEPPERS[name]({"kernel": params}, spoilt),
            STEPPERS[name]({"kernel": params}, {"kernel": grads}),
            strict=True,
        ):
            close(got["kernel"][1:], want["kernel"][1:], atol=1e-7)
            assert np.isfinite(want["kernel"]).all()


GRADIENTS = {
    "zero": lambda g: 0 * g,
    "rank one": lambda g: g[..., :1] * g[..., :1, :],
    "dead output": lambda g: g.at[..., 0].set(0),
    "dead input": lambda g: g.at[..., 0, :].set(0),
    "huge": lambda g: 1e30 * jnp.sign(g),
    "tiny": lambda g: 1e-30 * g,
}


@pytest.mark.parametrize("kind", GRADIENTS)
@names
def test_degenerate_gradients_give_finite_updates(name, kind):
    grads = {"kernel": GRADIENTS[kind](stack(1))}
    for updates in STEPPERS[name]({"kernel": stack(0)}, grads):
        assert np.isfinite(updates["kernel"]).all()


@names
def test_matrices_of_one_row_or_column_are_matrices(name):
    for shape in ((2, 1, 5), (2, 5, 1)):
        params, grads = (stack(seed, *shape) for seed in (0, 1))
        for updates in STEPPERS[name]({"kernel": params}, {"kernel": grads}):
            assert np.isfinite(updates["kernel"]).all()
            assert np.all(np.any(np.asarray(updates["kernel"]) != 0, axis=(1, 2)))


@names
def test_a_stack_steps_as_its_matrices_do_by_themselves(name):
    if RULES[name].traits & {optzoo.registry.Trait.COUPLED}:
        pytest.skip("one step size for all leaves")
    params, grads = stack(0), stack(1)
    alone = {f"w{i}": params[i] for i in range(3)}, {f"w{i}": grads[i] for i in range(3)}
    options = {"mass": 3.0} if name == "modula" else {}
    together = STEPPERS[name]({"kernel": params}, {"kernel": grads})
    apart = two_steps(RULES[name].factory(**({"mass": 1.0} if options else {})), *alone)
    factor = 3.0 if options else 1.0
    for whole, parts in zip(together, apart, strict=True):
        for i in range(3):
            close(whole["kernel"][i], factor * parts[f"w{i}"], rtol=1e-4, atol=1e-6)


NORMUON = runner(optzoo.scale_by_normuon())
MUON = runner(optzoo.scale_by_muon())
ADAMUON = runner(optzoo.scale_by_adamuon())


@law
@given(seeds)
def test_normuon_keeps_muons_length_and_evens_out_its_units(seed):
    start, grads = tree(seed), tree(seed + 1, steps=STEPS)
    ours, muon = (run(start, grads)[0]["kernel"] for run in (NORMUON, MUON))
    np.testing.assert_allclose(
        np.linalg.norm(ours, axis=(1, 2)), np.linalg.norm(muon, axis=(1, 2)), rtol=1e-4
    )
    rows = np.linalg.norm(ours[0], axis=0)
    np.testing.assert_allclose(rows, rows[0], rtol=1e-4)


@law
@given(seeds)
def test_adamuons_step_has_a_fixed_size(seed):
    updates = ADAMUON(tree(seed), tree(seed + 1, steps=STEPS))[0]["kernel"]
    np.testing.assert_allclose(np.sqrt(np.mean(updates**2, axis=(1, 2))), 0.2, rtol=1e-4)


def test_evening_out_is_grafting_onto_units_in_one_call():
    start, grads = tree(0), tree(1, steps=STEPS)
    units = zoo.merge_leaves(zoo.divide, zoo.gradient, zoo.unit_rms(0.9, 1e-10))
    parts = optax.chain(zoo.orthogonalize(), zoo.graft(zoo.gradient, units))
    apart, together = (runner(tx)(start, grads)[0] for tx in (parts, zoo.orthogonalize_evenly(0.9)))
    for name in ("kernel", "conv"):
        close(together[name], apart[name], atol=1e-5)


def test_what_is_kept_of_matrices_takes_no_shardings_of_parameters():
    params = {"conv": jnp.ones((2, 2, 3, 5)), "bias": jnp.ones(5)}
    for tx, size in (
        (zoo.precondition(zoo.gradient), 5 * 5),
        (zoo.orthogonalize_evenly(0.9), 5),
        (zoo.power_iteration(2), 5 * 2),
    ):
        assert jax.eval_shape(tx.init, params)[-1].shape == (size,)


def test_units_are_outputs_or_inputs():
    grads = {"kernel": jnp.asarray([[3.0, 0.0, 0.0], [4.0, 1.0, 0.0]])}
    for options, want in (
        ({}, np.sqrt([[12.5, 0.5, 0.0]])),
        ({"total": True}, [[5.0, 1.0, 0.0]]),
        ({"unit": "input", "total": True}, np.sqrt([[9.0], [17.0]])),
    ):
        tx = zoo.unit_rms(0.0, 0.0, **options)
        out = tx.update(grads, tx.init(grads))[0]["kernel"]
        np.testing.assert_allclose(out, want, rtol=1e-6)


def test_grafting_takes_one_length_and_the_other_direction():
    grads = {"kernel": stack(0), "bias": jnp.asarray([3.0, -4.0])}
    tx = zoo.graft(zoo.gradient, optax.stateless(lambda u, _: jax.tree.map(jnp.sign, u)))
    out = tx.update(grads, tx.init(grads))[0]
    np.testing.assert_allclose(out["bias"], [5 / 2**0.5, -5 / 2**0.5], rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(out["kernel"]), np.linalg.norm(grads["kernel"]), 1e-5)
    size = zoo.match_rms(0.5, axes=STACK["kernel"])
    matched = size.update(grads, size.init(grads))[0]["kernel"]
    np.testing.assert_allclose(np.sqrt(np.mean(matched**2, axis=(1, 2))), 0.5, rtol=1e-5)


@law
@given(seeds)
def test_dion_at_full_rank_moves_all_directions_and_keeps_what_it_leaves(seed):
    grads = {"kernel": stack(seed, 1)[0]}
    tx = zoo.power_iteration(rank_fraction=1.0, momentum=0.9)
    _, state = tx.update(grads, tx.init(grads))
    # At full rank what is applied is all of M, of which momentum stays.
    close(state.momentum["kernel"], 0.9 * grads["kernel"], atol=1e-5)
    low = zoo.power_iteration(1)
    update, state = low.update(grads, low.init(grads))
    assert np.linalg.matrix_rank(update["kernel"], tol=1e-5) == 1
    np.testing.assert_allclose(np.linalg.norm(update["kernel"]), 1, rtol=1e-5)
    same(state.basis.shape, (4,))


def positive(seed, condition=10.0, size=5):
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((3, size, size)))[0]
    values = np.geomspace(1, condition, size)
    return jnp.asarray((basis * values) @ basis.swapaxes(-1, -2), jnp.float32)


@pytest.mark.parametrize("method", ["polynomial", "newton_schulz", "eigh", "pade"])
def test_inverse_roots_whiten(method):
    matrices = positive(0)
    root = jax.jit(zoo.inverse_root(method, steps=15))(matrices)
    whitened = root @ matrices @ root
    np.testing.assert_allclose(whitened, np.broadcast_to(np.eye(5), (3, 5, 5)), atol=2e-2)
    spoilt = matrices.at[0, 0, 0].set(jnp.nan)
    close(jax.jit(zoo.inverse_root(method, steps=15))(spoilt)[1:], root[1:], atol=1e-4)


def test_iterated_inverse_roots_keep_the_digits_of_float32():
    matrices = positive(0)
    values, basis = np.linalg.eigh(np.asarray(matrices, np.float64))
    want = (basis / np.sqrt(values)[:, None, :]) @ basis.swapaxes(-1, -2)
    # Under vmap with a stack of one, compilers fuse the iterations otherwise than without.
    for method in ("polynomial", "newton_schulz"):
        root = jax.jit(jax.vmap(zoo.inverse_root(method, steps=20)))
        np.testing.assert_allclose(root(matrices[:, None])[:, 0], want, atol=3e-6)


def test_square_roots_are_close_and_have_derivatives():
    matrices, direction = positive(0, size=3), positive(1, size=3)
    for root, error in ((zoo.pade_root(), 2e-2), (zoo.taylor_root(), 5e-2)):
        np.testing.assert_allclose(root(matrices) @ root(matrices), matrices, atol=10 * error)
        got = jax.jvp(root, (matrices,), (direction,))[1]
        want = (root(matrices + 1e-2 * direction) - root(matrices - 1e-2 * direction)) / 2e-2
        np.testing.assert_allclose(got, want, atol=2e-2)


def test_cautious_decay_spares_what_the_step_enlarges():
    params = {"w": jnp.asarray([1.0, 1.0, -1.0, -1.0, 2.0])}
    updates = {"w": jnp.asarray([1.0, -1.0, 1.0, -1.0, 0.0])}
    tx = zoo.cautious_decay(0.5)
    out = tx.update(updates, tx.init(params), params)[0]
    same(out, {"w": jnp.asarray([1.5, -1.0, 1.0, -1.5, 1.0])})
    masked = zoo.cautious_decay(0.5, mask=False)
    same(masked.update(updates, masked.init(params), params)[0], updates)


@law
@given(seeds)
def test_hyperball_turns_each_matrix_on_its_own_sphere(seed):
    start = {"kernel": stack(seed), "bias": jnp.ones(3)}
    grads = {"kernel": stack(seed + 1), "bias": jnp.ones(3)}
    tx = optzoo.hyperball(optax.sgd(7.0), 0.1, axes=STACK | {"bias": None})
    updates, _ = tx.update(grads, tx.init(start), start)
    same(updates["bias"], -7.0 * grads["bias"])
    moved = start["kernel"] + updates["kernel"]
    before, after = (np.linalg.norm(x, axis=(1, 2)) for x in (start["kernel"], moved))
    np.testing.assert_allclose(after, before, rtol=1e-5)
    for i in range(3):
        p, g = np.asarray(start["kernel"][i]), np.asarray(grads["kernel"][i])
        q = p - 0.1 * before[i] * g / np.linalg.norm(g)
        np.testing.assert_allclose(moved[i], before[i] * q / np.linalg.norm(q), atol=1e-5)


def test_a_projected_rule_ends_every_step_on_its_spheres():
    tx = optzoo.modula(0.5, project=True, orthogonalizer=zoo.polar())
    start = {"kernel": stack(0, 1)[0]}
    updates, _ = tx.update({"kernel": stack(1, 1)[0]}, tx.init(start), start)
    values = np.linalg.svd(start["kernel"] + updates["kernel"], compute_uv=False)
    np.testing.assert_allclose(values, np.sqrt(6 / 4), rtol=1e-5)
