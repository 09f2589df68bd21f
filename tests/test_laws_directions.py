"""Laws of the maps from gradients to directions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from laws import SHAPES, STEPS, close, law, mapped, same, scales, seeds, tree

from optzoo import primitives as zoo

ALWAYS = 1e3
"""A threshold that every channel passes."""


def once(tx, grads, params):
    return tx.update(grads, tx.init(params), params)[0]


def channels(x):
    """The rows that feed one output each."""
    return x.reshape(-1, x.shape[-1]).T


def is_matrix(name):
    return len(SHAPES[name]) > 1


@law
@given(seeds, scales)
def test_projection_leaves_no_radial_component_and_never_lengthens(seed, scale):
    params, grads = tree(seed), tree(seed + 1, scale=scale)
    out = once(zoo.project_radial(zoo.gradient, delta=ALWAYS), grads, params)
    for name in filter(is_matrix, SHAPES):
        u, p, g = (channels(x[name]) for x in (out, params, grads))
        radial = jnp.sum(u * p, axis=1) / jnp.linalg.norm(p, axis=1)
        assert np.all(np.abs(radial) <= 1e-6 * np.linalg.norm(g, axis=1))
        longest = np.linalg.norm(g, axis=1) * (1 + 1e-6)
        assert np.all(np.linalg.norm(u, axis=1) <= longest)


@law
@given(seeds)
def test_a_layer_is_projected_as_a_whole_where_its_channels_are_not(seed):
    column = tree(seed)["kernel"][:, :1]
    params = {"kernel": jnp.concatenate([column, column], axis=1)}
    grads = {"kernel": jnp.concatenate([column, -column], axis=1)}
    only_params = optax.stateless(lambda updates, params: params)
    out = once(zoo.project_radial(only_params, delta=0.1), grads, params)
    close(out, jax.tree.map(jnp.zeros_like, params))


@law
@given(seeds)
def test_vectors_and_a_threshold_of_zero_are_never_projected(seed):
    params, grads = tree(seed), tree(seed + 1)
    same(once(zoo.project_radial(zoo.gradient, delta=0.0), grads, params), grads)
    projected = once(zoo.project_radial(zoo.gradient, delta=ALWAYS), grads, params)
    for name in SHAPES:
        assert np.array_equal(projected[name], grads[name]) != is_matrix(name)


@law
@given(seeds, scales)
def test_projection_is_blind_to_the_weights_scale(seed, scale):
    params, grads = tree(seed), tree(seed + 1)
    tx = zoo.project_radial(zoo.gradient, delta=ALWAYS, eps=0.0)
    scaled = jax.tree.map(lambda p: scale * p, params)
    close(once(tx, grads, scaled), once(tx, grads, params))


@law
@given(seeds)
def test_decay_weakens_where_the_gradient_is_orthogonal_to_the_weights(seed):
    params = tree(seed)
    tx = zoo.radial_decay(0.5, ratio=0.1, delta=0.1)
    orthogonal = jax.tree.map(jnp.zeros_like, params)
    weak, full = once(tx, orthogonal, params), once(tx, params, params)
    close(full, jax.tree.map(lambda p: 0.5 * p, params))
    close(weak, {n: (0.05 if is_matrix(n) else 0.5) * p for n, p in params.items()})


FRICTION = mapped(zoo.friction())


@law
@given(seeds, scales)
def test_friction_is_a_brake_between_a_half_and_one(seed, scale):
    grads = tree(seed, steps=STEPS, scale=scale, zeros=0.3)
    for x, g in zip(*map(jax.tree.leaves, (FRICTION(tree(0), grads), grads)), strict=True):
        assert np.all((x >= 0.5) & (x <= 1))
        np.testing.assert_allclose(x[0], jax.nn.sigmoid(jnp.abs(g[0])), rtol=1e-6)


@law
@given(seeds)
def test_friction_brakes_most_where_nothing_changes(seed):
    grads = jax.tree.map(lambda g: jnp.stack([g] * STEPS), tree(seed))
    for x in jax.tree.leaves(FRICTION(tree(0), grads)):
        assert np.all(x[1:] == 0.5)


@law
@given(seeds, scales)
def test_centralized_gradients_have_mean_zero_at_each_output(seed, scale):
    grads = tree(seed, scale=scale)
    out = once(zoo.centralize(), grads, grads)
    close(once(zoo.centralize(), out, grads), out, atol=1e-6 * scale)
    for name in SHAPES:
        if is_matrix(name):
            means = jnp.mean(channels(out[name]), axis=1)
            np.testing.assert_allclose(means, 0, atol=1e-6 * scale)
            slopes = jax.tree.map(jnp.diff, (channels(out[name]), channels(grads[name])))
            np.testing.assert_allclose(*slopes, rtol=1e-5, atol=1e-6 * scale)
        else:
            same(out[name], grads[name])


def test_centralizing_convolutions_only_leaves_other_kernels():
    grads = tree(0) | {"image": jax.random.normal(jax.random.key(0), (3, 3, 2, 4))}
    out = once(zoo.centralize(conv_only=True), grads, grads)
    for name, grad in grads.items():
        assert np.array_equal(out[name], grad) == (name != "image")


@law
@given(seeds, scales)
def test_normalized_gradients_have_unit_deviation(seed, scale):
    grads = tree(seed, scale=scale)
    out = once(zoo.normalize(), grads, grads)
    same(out["gain"], grads["gain"])
    for name in ("kernel", "conv", "bias"):
        assert abs(np.std(out[name], ddof=1) - 1) < 1e-4
        cosine = np.vdot(out[name], grads[name])
        cosine /= np.linalg.norm(out[name]) * np.linalg.norm(grads[name])
        assert abs(cosine - 1) < 1e-5


@law
@given(seeds, scales)
def test_clipping_bounds_each_unit_by_its_weights_and_keeps_directions(seed, scale):
    params, grads = tree(seed, zeros=0.5), tree(seed + 1, scale=scale)
    out = once(zoo.adaptive_clip(0.1, 1e-3), grads, params)
    for name in SHAPES:
        rows = channels if is_matrix(name) else lambda x: x.reshape(1, -1)
        p, g, u = (np.linalg.norm(rows(x[name]), axis=1) for x in (params, grads, out))
        limit = 0.1 * np.maximum(p, 1e-3)
        np.testing.assert_allclose(u, np.minimum(g, limit), rtol=1e-5)
        along = rows(out[name]) * g[:, None]
        np.testing.assert_allclose(along, rows(grads[name]) * u[:, None], rtol=1e-4)


def test_numbers_that_are_all_alike_are_not_normalized():
    alike = {"bias": jnp.full(6, 0.5)}
    close(once(zoo.normalize(), alike, alike), alike)


@law
@given(seeds)
def test_normalizing_again_in_the_same_step_needs_no_new_sum(seed):
    grads = tree(seed, scale=1e-3)
    again = once(zoo.normalize(0.1), once(zoo.normalize(0.1), grads, grads), grads)
    close(once(zoo.normalize(0.1, times=2), grads, grads), again)


@law
@given(seeds)
def test_stable_decay_compares_its_strength_with_the_gradients_size(seed):
    second = jax.tree.map(jnp.square, tree(seed))
    total = sum(float(jnp.sum(v)) for v in jax.tree.leaves(second))
    size = (total / sum(v.size for v in jax.tree.leaves(second))) ** 0.5
    close(zoo.stable_decay(0.1 * size, second), 0.9)


@pytest.mark.parametrize("moved", [False, True])
def test_a_decay_that_knows_its_rate_follows_the_step(moved):
    params, steps = tree(0), tree(1, steps=3)

    def rate(count):
        return 0.1 * (jnp.asarray(count, float) + 1)

    tx = zoo.rated_decay(
        rate,
        0.5,
        {"kernel": True, "conv": True, "bias": False, "gain": False},
        moved=moved,
        start=1,
    )
    got = mapped(tx)(params, steps)
    for name, decayed in {"kernel": True, "bias": False}.items():
        for count in range(3):
            weights = params[name] + float(moved) * steps[name][count]
            left = float(decayed and count >= 1) * 0.5 * rate(count) * weights
            close(got[name][count], steps[name][count] - left)
    free = zoo.rated_decay(rate, 0.0)
    same(mapped(free)(params, steps), steps)
    with pytest.raises(ValueError, match="parameters"):
        free.update(params, free.init(params))


@law
@given(seeds)
def test_norm_loss_sees_the_parameters_after_the_decay(seed):
    params = tree(seed)
    halves = jax.tree.map(lambda p: p / 2, params)
    after = zoo.pull_norms(params, 0.1, eps=1e-3, axes=None, scale=0.5)
    close(after, zoo.pull_norms(halves, 0.1, eps=1e-3, axes=None))


@law
@given(seeds, scales)
def test_norm_loss_at_full_strength_gives_every_unit_norm_one(seed, scale):
    params = tree(seed, scale=scale)
    out = zoo.pull_norms(params, 0.5, eps=0.0, axes=None)
    for name in SHAPES:
        rows = channels if is_matrix(name) else lambda x: x.reshape(1, -1)
        np.testing.assert_allclose(np.linalg.norm(rows(out[name]), axis=1), 1, rtol=1e-3)
        assert np.all(np.sign(out[name]) == np.sign(params[name]))
