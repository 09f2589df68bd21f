"""Half-precision parameters: master weights, stochastic rounding, and errors that name a leaf."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optzoo
from optzoo import master_weights, stochastic_round
from optzoo.registry import Trait

SMALL = 2.0**-14
HALF = [jnp.bfloat16, jnp.float16]


def steps(tx, params, gradient, count):
    """Parameters and state after `count` equal gradients."""

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    start = (params, tx.init(params))
    return jax.jit(lambda start: jax.lax.scan(step, start, length=count)[0])(start)


def equal(got, want):
    jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.mark.parametrize("dtype", HALF)
def test_master_weights_lose_no_small_step(dtype):
    params, gradient = jnp.ones(4, dtype), jnp.ones(4, dtype)
    bare, _ = steps(optax.sgd(SMALL), params, gradient, 2**11)
    kept, state = steps(master_weights(optax.sgd(SMALL)), params, gradient, 2**11)
    equal(bare, params)
    equal(state.master, jnp.full(4, 1 - 2.0**-3))
    equal(kept, state.master.astype(dtype))


@pytest.mark.parametrize("dtype", HALF)
def test_master_weights_follow_a_float32_run(dtype):
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.standard_normal((4, 3)), dtype)}
    gradient = {"w": jnp.asarray(rng.standard_normal((4, 3)), dtype)}
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), (params, gradient))
    exact, _ = steps(optzoo.grams(1e-3), *wide, 300)
    kept, state = steps(master_weights(optzoo.grams(1e-3)), params, gradient, 300)
    np.testing.assert_allclose(state.master["w"], exact["w"], rtol=1e-6)
    assert kept["w"].dtype == dtype


@pytest.mark.parametrize("wrap", [master_weights, lambda tx: stochastic_round(tx, 0)])
def test_float32_parameters_are_left_alone(wrap):
    params, gradient = {"w": jnp.arange(3.0)}, {"w": jnp.ones(3)}
    bare, _ = steps(optax.sgd(1e-5, momentum=0.9), params, gradient, 10)
    wrapped, state = steps(wrap(optax.sgd(1e-5, momentum=0.9)), params, gradient, 10)
    equal(wrapped, bare)
    if wrap is master_weights:
        assert not jax.tree.leaves(state.master)


def test_only_narrow_leaves_keep_a_copy():
    params = {"half": jnp.ones(3, jnp.bfloat16), "full": jnp.ones(3)}
    state = master_weights(optax.sgd(0.1)).init(params)
    assert [leaf.dtype for leaf in jax.tree.leaves(state.master)] == [jnp.float32]


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("start", [1.0, -3.0, 0.0])
def test_stochastic_rounding_is_right_on_average(dtype, start):
    """After n steps of which each is far below resolution, the mean has moved by their sum."""
    size, count = 4000, 16
    params = jnp.full(size, start, dtype)
    spacing = float(jnp.finfo(dtype).eps) * (2.0 if abs(start) > 2 else 1.0)
    step = spacing / 10
    moved, _ = steps(stochastic_round(optax.sgd(step), 3), params, jnp.ones(size, dtype), count)
    travelled = float(jnp.mean(start - moved.astype(jnp.float32)))
    # Each number is a sum of `count` rounded steps with a standard deviation below a spacing.
    error = spacing * (count / size) ** 0.5
    assert abs(travelled - step * count) < 4 * error
    assert len(np.unique(np.asarray(moved, np.float32))) > 1


@pytest.mark.parametrize("dtype", HALF)
def test_stochastic_rounding_lands_on_a_neighbour(dtype):
    params = jnp.asarray([1.0, -1.0, 100.0, 0.3], dtype)
    exact = params.astype(jnp.float32) - 1e-3
    seen = set()
    for seed in range(30):
        moved, _ = steps(stochastic_round(optax.sgd(1e-3), seed), params, jnp.ones(4, dtype), 1)
        below = jnp.nextafter(moved, jnp.asarray(-jnp.inf, dtype)).astype(jnp.float32)
        above = jnp.nextafter(moved, jnp.asarray(jnp.inf, dtype)).astype(jnp.float32)
        assert bool(jnp.all((below < exact) & (exact < above)))
        seen.add(tuple(np.asarray(moved, np.float32)))
    assert len(seen) > 1


def test_stochastic_rounding_is_exact_where_nothing_is_to_be_rounded():
    params = jnp.asarray([1.0, 2.0], jnp.bfloat16)
    moved, _ = steps(stochastic_round(optax.sgd(0.5), 0), params, jnp.ones_like(params), 1)
    equal(moved, jnp.asarray([0.5, 1.5], jnp.bfloat16))


def test_stochastic_rounding_follows_its_key():
    params, gradient = jnp.ones(64, jnp.bfloat16), jnp.ones(64, jnp.bfloat16)

    def run(key):
        return steps(stochastic_round(optax.sgd(1e-3), key), params, gradient, 1)[0]

    equal(run(1), run(jax.random.key(1)))
    assert bool(jnp.any(run(1) != run(2)))


def test_stochastic_rounding_does_not_repeat_across_leaves_or_steps():
    params = {"a": jnp.ones(64, jnp.bfloat16), "b": jnp.ones(64, jnp.bfloat16)}
    tx = stochastic_round(optax.sgd(1e-3), 0)
    gradient = jax.tree.map(jnp.ones_like, params)
    first, state = tx.update(gradient, tx.init(params), params)
    second, _ = tx.update(gradient, state, params)
    assert bool(jnp.any(first["a"] != first["b"])) and bool(jnp.any(first["a"] != second["a"]))


NEEDING = [
    name
    for name, entry in optzoo.REGISTRY.optimizers.items()
    if "It needs the parameters in `update`." in entry.section("Returns")
]


@pytest.mark.parametrize("name", NEEDING)
def test_a_missing_params_argument_is_asked_for(name):
    params = {"w": jnp.ones((3, 2))}
    tx = optzoo.REGISTRY[name].build(total_steps=10)
    with pytest.raises(ValueError, match=r"param"):
        tx.update(params, tx.init(params))


@pytest.mark.parametrize("wrap", [master_weights, lambda tx: stochastic_round(tx, 0)])
def test_the_wrappers_ask_for_params_by_name(wrap):
    params = {"w": jnp.ones((3, 2))}
    tx = wrap(optax.sgd(0.1))
    with pytest.raises(ValueError, match="needs the parameters: call update"):
        tx.update(params, tx.init(params))


MISMATCHES = {
    "a missing leaf": ({"a": {"w": jnp.ones(2)}}, r"b'\]\['w"),
    "another shape": ({"a": {"w": jnp.ones(2)}, "b": {"w": jnp.ones(4)}}, r"b'\]\['w"),
    "another name": ({"a": {"v": jnp.ones(2)}, "b": {"w": jnp.ones(3)}}, r"a'\]\['v"),
    "a leaf too many": (
        {"a": {"w": jnp.ones(2)}, "b": {"w": jnp.ones(3)}, "c": jnp.ones(1)},
        r"\['c'\]",
    ),
}


@pytest.mark.parametrize("mismatch", MISMATCHES)
@pytest.mark.parametrize("name", optzoo.REGISTRY.optimizers)
def test_mismatched_trees_name_the_first_differing_leaf(name, mismatch):
    params = {"a": {"w": jnp.ones(2)}, "b": {"w": jnp.ones(3)}}
    gradients, path = MISMATCHES[mismatch]
    tx = optzoo.REGISTRY[name].build(total_steps=10)
    with pytest.raises(ValueError, match=path):
        tx.update(gradients, tx.init(params), params)


def test_averages_keep_float32_in_half_precision():
    """What grows over a run is never kept in the parameters' narrow dtype."""
    params = {"w": jnp.ones((3, 2), jnp.bfloat16)}
    for entry in optzoo.REGISTRY.optimizers.values():
        state = entry.build(total_steps=10).init(params)
        narrow = [x for x in jax.tree.leaves(state) if x.dtype in (jnp.bfloat16, jnp.float16)]
        assert not narrow, entry.name
        assert Trait.AVERAGES not in entry.traits or any(
            leaf.shape == (3, 2) and leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state)
        )
