"""Laws of the orthogonalisers and of what surrounds them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, strategies as st
from laws import close, law, same, scales, seeds, tree

from optzoo import primitives as zoo

METHODS = {"newton_schulz": jax.jit(zoo.newton_schulz()), "polar": jax.jit(zoo.polar())}
BANDS = {"newton_schulz": (0.68, 1.14), "polar": (1 - 1e-5, 1 + 1e-5)}
HALF = jax.jit(zoo.newton_schulz(dtype=jnp.bfloat16))
methods = pytest.mark.parametrize("method", METHODS)


def orthogonal(rng, size):
    return np.linalg.qr(rng.standard_normal((size, size)))[0]


def matrix(seed, rows=4, columns=6, smallest=0.1):
    """A matrix with singular values between `smallest` and 1, and a generator for more."""
    rng = np.random.default_rng(seed)
    values = np.diag(rng.uniform(smallest, 1, min(rows, columns)))
    left, right = orthogonal(rng, rows), orthogonal(rng, columns)
    k = len(values)
    return jnp.asarray(left[:, :k] @ values @ right[:k], jnp.float32), rng


@methods
@law
@given(seed=seeds)
def test_singular_values_come_into_the_stated_band(method, seed):
    values = np.linalg.svd(METHODS[method](matrix(seed)[0]), compute_uv=False)
    low, high = BANDS[method]
    assert np.all((low <= values) & (values <= high))


@methods
@law
@given(seed=seeds)
def test_orthogonalising_commutes_with_transposition(method, seed):
    x, _ = matrix(seed)
    close(METHODS[method](x.T), METHODS[method](x).T)


@methods
@law
@given(seed=seeds)
def test_orthogonalising_commutes_with_changes_of_basis(method, seed):
    x, rng = matrix(seed)
    left, right = (jnp.asarray(orthogonal(rng, size), jnp.float32) for size in x.shape)
    close(METHODS[method](left @ x @ right), left @ METHODS[method](x) @ right, atol=2e-5)


@methods
@law
@given(seed=seeds, scale=scales)
def test_orthogonalising_is_blind_to_scale(method, seed, scale):
    x, _ = matrix(seed)
    close(METHODS[method](scale * x), METHODS[method](x), atol=3e-3)


@methods
def test_zero_stays_zero(method):
    assert not np.any(METHODS[method](jnp.zeros((4, 6))))


def iterated(values, steps):
    a, b, c = zoo.KELLER_JORDAN[0]
    for _ in range(steps):
        values = a * values + b * values**3 + c * values**5
    return values


@pytest.mark.parametrize("columns", [4, 64], ids=["square", "wide"])
@pytest.mark.parametrize("steps", [1, 3, 5])
def test_newton_schulz_is_its_polynomial_on_the_singular_values(steps, columns):
    method = jax.jit(zoo.newton_schulz(steps))
    for seed in range(3):
        x, _ = matrix(seed, 4, columns)
        left, values, right = np.linalg.svd(x, full_matrices=False)
        new = iterated(values / np.linalg.norm(values), steps)
        np.testing.assert_allclose(method(x), left * new @ right, atol=1e-3)


@law
@given(seeds)
def test_the_polar_factor_is_the_nearest_orthogonal_matrix(seed):
    x, rng = matrix(seed, 4, 4)
    nearest = np.linalg.norm(METHODS["polar"](x) - x)
    assert nearest <= np.linalg.norm(orthogonal(rng, 4) - x) + 1e-6


@law
@given(seeds)
def test_directions_without_gradient_stay_without_step(seed):
    x, _ = matrix(seed)
    flat = x.at[:2].set(0)
    values = np.linalg.svd(METHODS["polar"](flat), compute_uv=False)
    np.testing.assert_allclose(values, [1, 1, 0, 0], atol=1e-5)


def test_no_iterations_only_divide_by_the_norm():
    x, _ = matrix(0)
    close(zoo.newton_schulz(0)(x), x / jnp.linalg.norm(x))


@law
@given(seeds)
def test_half_precision_iterations_stay_near_full_ones(seed):
    x, _ = matrix(seed)
    half = HALF(x)
    assert half.dtype == x.dtype
    np.testing.assert_allclose(half, METHODS["newton_schulz"](x), atol=0.1)


@pytest.mark.parametrize("bad", [{"steps": -1}, {"coefficients": ()}])
def test_an_iteration_needs_steps_and_coefficients(bad):
    with pytest.raises(ValueError, match="newton_schulz"):
        zoo.newton_schulz(**bad)


@law
@given(seeds)
def test_stacking_leaves_changes_nothing(seed):
    shapes = {"a": (4, 6), "tall": (6, 4), "conv": (3, 2, 4), "stack": (2, 4, 6), "bias": (4,)}
    leaves = iter(matrix(seed, len(shapes), 48)[0])
    grads = {name: next(leaves)[: np.prod(s)].reshape(s) for name, s in shapes.items()}
    axes = {name: zoo.flax_axes(name, leaf) for name, leaf in grads.items()}
    axes |= {"stack": zoo.Axes((1,), (2,), (0,))}
    out = zoo.orthogonalize(zoo.polar(), axes=axes).update(grads, optax.EmptyState())[0]
    close(out["a"], METHODS["polar"](grads["a"]))
    close(out["tall"], METHODS["polar"](grads["tall"]))
    close(out["conv"].reshape(6, 4), METHODS["polar"](grads["conv"].reshape(6, 4)))
    close(out["stack"], jnp.stack([METHODS["polar"](x) for x in grads["stack"]]))
    same(out["bias"], grads["bias"])


def test_an_orthogonaliser_keeps_shapes():
    tx = zoo.orthogonalize(lambda x: x[..., :-1])
    with pytest.raises(ValueError, match="shape"):
        tx.update({"kernel": jnp.ones((4, 6))}, optax.EmptyState())


@law
@given(st.integers(1, 64), st.integers(1, 64))
def test_fan_factors_follow_their_formulas(fan_in, fan_out):
    ones = {"kernel": jnp.ones((fan_in, fan_out)), "bias": jnp.ones((fan_out,))}
    want = {
        "fan": max(1, fan_out / fan_in) ** 0.5,
        "keller_jordan": max(1, fan_out / fan_in) ** 0.5,
        "rms_to_rms": (fan_out / fan_in) ** 0.5,
        "kernel": (fan_out / fan_in) ** 0.5,
        "match_rms_adamw": 0.2 * max(fan_in, fan_out) ** 0.5,
        None: 1.0,
    }
    for scale, factor in want.items():
        tx = zoo.scale_by_fan(scale)
        out = tx.update(ones, tx.init(ones))[0]
        np.testing.assert_allclose(out["kernel"], factor, rtol=1e-6)
        same(out["bias"], ones["bias"])


@pytest.mark.parametrize(
    ("shape", "axes"), [((3, 2, 2, 60), None), ((60, 2, 3, 2), zoo.torch_axes)]
)
def test_a_convolutions_fan_is_flattened_unless_the_original_is_asked_for(shape, axes):
    ones = {"kernel": jnp.ones(shape)}
    factors = {
        "fan": 5**0.5,
        "rms_to_rms": 5**0.5,
        "kernel": 30**0.5 / 9,
        "keller_jordan": 1.5**0.5,
    }
    for scale, factor in factors.items():
        out = zoo.scale_by_fan(scale, axes=axes).update(ones, optax.EmptyState())[0]
        np.testing.assert_allclose(out["kernel"], factor, rtol=1e-6)


@law
@given(seeds)
def test_only_matrices_are_orthogonalised(seed):
    grads = tree(seed)
    out = zoo.orthogonalize().update(grads, optax.EmptyState())[0]
    for name, grad in grads.items():
        assert np.array_equal(out[name], grad) == (grad.ndim < 2)


@pytest.mark.parametrize("value", [jnp.inf, jnp.nan])
@pytest.mark.parametrize("method", [zoo.newton_schulz(), zoo.polar()])
def test_a_matrix_that_is_not_finite_stays_so_and_spoils_no_other(method, value):
    matrices = jnp.ones((2, 4, 3)).at[0, 0, 0].set(value)
    result = method(matrices)
    assert not jnp.isfinite(result[0]).any() and jnp.isfinite(result[1]).all()
