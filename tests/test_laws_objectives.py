"""Laws of what makes one gradient of several."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from laws import close, tree

import optzoo
from optzoo import primitives

STILL = optax.identity()
PARAMS = tree(0)
FOUR = tree(1, steps=4)


def combined(wrapper, gradients, **options):
    return combiner(wrapper, **options)(gradients)


def combiner(wrapper, **options):
    """A compiled function from the objectives' gradients to the one made of them."""

    def combine(gradients):
        tx = wrapper(STILL, **options)
        mean = jax.tree.map(lambda rows: rows.mean(0), gradients)
        extra = {"gradients": gradients, "values": jnp.ones(len(gradients["bias"]))}
        return tx.update(mean, tx.init(mean), mean, **extra)[0]

    return jax.jit(combine)


def rows(gradients):
    leaves = jax.tree.leaves(gradients)
    return np.concatenate([np.float64(leaf).reshape(len(leaf), -1) for leaf in leaves], axis=1)


def flat(update):
    return rows(jax.tree.map(lambda leaf: leaf[None], update))[0]


def test_the_quadratic_program_is_solved_to_the_last_digit():
    rng = np.random.default_rng(0)
    size, count = 7, 200
    with jax.enable_x64(True):
        factors = rng.standard_normal((count, size, 5))
        # Of rank 5, but for a ten-thousandth of the identity: gradients in nearly one plane.
        matrices = factors @ factors.transpose(0, 2, 1) + 1e-4 * np.eye(size)
        lower = np.maximum(rng.standard_normal((count, size)), 0)
        found = np.asarray(jax.jit(jax.vmap(primitives.least_quadratic))(matrices, lower))
    above, slope = found - lower, np.einsum("nij,nj->ni", matrices, found)
    scale = np.abs(matrices).max(axis=(1, 2)) * np.abs(found).max(axis=1)
    assert (above >= 0).all() and (slope >= -1e-12 * scale[:, None]).all()
    assert (np.minimum(above, slope) <= 1e-12 * scale[:, None]).all()
    assert (above > 0).any(axis=1).mean() > 0.5


@pytest.mark.parametrize("project", ["each", "mean"])
def test_upgrad_harms_no_objective(project):
    combine = combiner(optzoo.upgrad, project=project, reg_eps=1e-7)
    for seed in range(5):
        opposed = jax.tree.map(
            lambda leaf: leaf.at[0].set(leaf[0] - 2 * leaf[1]), tree(seed, steps=4)
        )
        each = rows(opposed)
        assert (each @ each.mean(0)).min() < 0
        gains = each @ flat(combine(opposed))
        assert (gains > -1e-4 * np.abs(gains).max()).all()


WITHOUT_CONFLICT = {"bias": jnp.array([[1.0, 0, 0], [1.0, 2, 0], [3.0, 0, 1]])}


def test_without_conflicts_nothing_is_bent():
    mean = {"bias": WITHOUT_CONFLICT["bias"].mean(0)}
    close(combined(optzoo.upgrad, WITHOUT_CONFLICT), mean)
    close(combined(optzoo.upgrad, WITHOUT_CONFLICT, project="mean"), mean)
    close(combined(optzoo.pcgrad, WITHOUT_CONFLICT), jax.tree.map(lambda x: 3 * x, mean))
    preferred = combined(optzoo.upgrad, WITHOUT_CONFLICT, pref_vector=jnp.array([1.0, 0, 2]))
    close(preferred, {"bias": jnp.array([1.0, 0, 2]) @ WITHOUT_CONFLICT["bias"]})


def test_one_objective_is_an_ordinary_gradient():
    one, alone = tree(2, steps=1), jax.tree.map(lambda leaf: leaf[0], tree(2, steps=1))
    for wrapper, options in (
        (optzoo.upgrad, {}),
        (optzoo.pcgrad, {}),
        (optzoo.bloop, {}),
        (optzoo.gradnorm, {}),
    ):
        close(combined(wrapper, one, **options), alone)


def test_two_gradients_lose_what_they_have_against_each_other():
    two = {"bias": jnp.array([[1.0, 0.0], [-1.0, 1.0]])}
    close(combined(optzoo.pcgrad, two), {"bias": jnp.array([0.5, 1.5])})
    close(combined(optzoo.upgrad, two, reg_eps=1e-9), {"bias": jnp.array([0.25, 0.75])})
    # All of the main gradient, and of the other what is across it.
    close(combined(optzoo.bloop, two, lbda=0.5), {"bias": jnp.array([1.0, 0.5])})


def test_weights_do_not_hang_on_the_size_of_gradients():
    for wrapper, options in ((optzoo.upgrad, {"norm_eps": 0.0}), (optzoo.pcgrad, {})):
        combine = combiner(wrapper, **options)
        for scale in (1e-25, 1e30):
            got = combine(jax.tree.map(lambda leaf, by=scale: by * leaf, FOUR))
            close(jax.tree.map(lambda leaf, by=scale: leaf / by, got), combine(FOUR))


def test_small_gradients_are_averaged_by_default():
    small = jax.tree.map(lambda leaf: 1e-4 * leaf, FOUR)
    close(combined(optzoo.upgrad, small), jax.tree.map(lambda leaf: leaf.mean(0), small))


def test_zero_gradients_among_others_do_no_harm():
    zeros = jax.tree.map(lambda leaf: leaf.at[1].set(0), FOUR)
    for wrapper in (optzoo.upgrad, optzoo.pcgrad):
        combine = combiner(wrapper)
        assert np.isfinite(flat(combine(zeros))).all()
        assert not flat(combine(jax.tree.map(jnp.zeros_like, FOUR))).any()


def test_equal_norms_add_directions():
    update = combined(
        lambda tx: optax.chain(primitives.weigh_objectives(primitives.equal_norms), tx), FOUR
    )
    each = rows(FOUR)
    want = (each / np.linalg.norm(each, axis=1, keepdims=True)).sum(0)
    np.testing.assert_allclose(flat(update), want, rtol=1e-5)


def test_gradnorm_favours_the_loss_that_is_slow():
    tx = optzoo.gradnorm(STILL, objectives=2)
    gradients = {"bias": jnp.array([[1.0, 0.0], [0.0, 1.0]])}
    state = tx.init({"bias": jnp.zeros(2)})
    for values in ([2.0, 4.0], [2.0, 1.0]):
        update, state = tx.update(
            {"bias": jnp.zeros(2)}, state, gradients=gradients, values=jnp.array(values)
        )
        close(update, {"bias": jnp.ones(2)})
    slow, fast = optax.tree.get(state, "weights")
    assert slow > 1 > fast and float(slow + fast) == pytest.approx(2)


def test_gradnorm_measures_the_shared_leaves_as_the_parameters_have_them():
    def matrices(tree):
        return jax.tree.map(lambda leaf: leaf.ndim == 2, tree)

    seen = primitives.Objectives(FOUR, jnp.ones([]), {})
    chosen = {name: name == "kernel" for name in FOUR}
    close(seen.norms(matrices), seen.norms(chosen))
    want = np.linalg.norm(np.reshape(FOUR["kernel"], (4, -1)), axis=1)
    np.testing.assert_allclose(seen.norms(chosen), want, rtol=1e-5)


def test_the_order_is_drawn_anew_and_can_be_given():
    tx = optzoo.pcgrad(STILL, key=3)
    mean = jax.tree.map(lambda rows: rows.mean(0), FOUR)
    update = jax.jit(lambda state, **extra: tx.update(mean, state, gradients=FOUR, **extra))
    first, state = update(tx.init(mean))
    second, _ = update(state)
    assert not np.array_equal(flat(first), flat(second))
    fixed = jnp.tile(jnp.arange(4), (4, 1))
    given, _ = update(state, order=fixed)
    close(given, combined(optzoo.pcgrad, FOUR, shuffle=False))


def test_what_weighs_can_be_differentiated():
    @jax.jit
    def size(scale):
        gradients = {"bias": FOUR["bias"].at[0].multiply(scale)}
        return jnp.sum(combined(optzoo.upgrad, gradients)["bias"] ** 2)

    slope, change = jax.grad(size)(1.0), (size(1.02) - size(0.98)) / 0.04
    assert float(slope) == pytest.approx(float(change), rel=1e-2)


def test_what_does_not_fit_is_refused():
    mean = jax.tree.map(lambda rows: rows.mean(0), FOUR)
    for wrapper, options, gradients, match in (
        (optzoo.upgrad, {}, mean, "one more axis in front"),
        (optzoo.upgrad, {}, {**FOUR, "bias": FOUR["bias"][:2]}, "one more axis in front"),
        (optzoo.upgrad, {"pref_vector": jnp.ones(3)}, FOUR, "one number for each of the 4"),
        (optzoo.bloop, {}, FOUR, "of two objectives; got 4"),
        (optzoo.gradnorm, {"objectives": 3}, FOUR, "of 3 objectives; got 4 gradients"),
    ):
        tx = wrapper(STILL, **options)
        with pytest.raises(ValueError, match=match):
            tx.update(mean, tx.init(mean), gradients=gradients, values=jnp.ones(3))
