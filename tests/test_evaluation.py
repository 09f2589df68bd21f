"""eval_params and train_params, wherever the averaging state sits."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import optzoo
from optzoo import eval_params, train_params
from optzoo.primitives.averaged import lookahead, polynomial_average

# optax's wrappers count on JAX's default promotion.
pytestmark = pytest.mark.usefixtures("standard_promotion")


@pytest.fixture
def standard_promotion():
    with jax.numpy_dtype_promotion("standard"):
        yield


PARAMS = {
    "layer": {"kernel": jnp.arange(6.0).reshape(2, 3) / 6, "bias": jnp.ones(3)},
    "gain": jnp.asarray(2.0),
}
MASK = {"layer": {"kernel": True, "bias": False}, "gain": False}
AVERAGES = {
    "schedule_free": partial(optzoo.schedule_free_sgd, 0.5),
    "dog": partial(optzoo.dog, 1.0),
    "lookahead": lambda: lookahead(optax.sgd(0.1), period=3),
    "polynomial": lambda: polynomial_average(optax.sgd(0.1)),
    "master": lambda: optzoo.master_weights(optzoo.schedule_free_sgd(0.5)),
}


def gradients(params, step):
    rng = np.random.default_rng(step)
    return jax.tree.map(
        lambda p: jnp.asarray(rng.standard_normal(p.shape), p.dtype) + p - 1, params
    )


def trained(tx, params=PARAMS, steps=5):
    state = tx.init(params)
    for step in range(steps):
        updates, state = tx.update(gradients(params, step), state, params)
        params = optax.apply_updates(params, updates)
    return state, params


def close(got, want, rtol=1e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-6), got, want)


NESTINGS = {
    "chain": lambda make: optax.chain(optax.identity(), optax.chain(make())),
    "masked": lambda make: optax.masked(make(), jax.tree.map(lambda _: True, PARAMS)),
    "partition": lambda make: optax.partition(
        {"all": make()}, jax.tree.map(lambda _: "all", PARAMS)
    ),
    "MultiSteps": lambda make: optax.MultiSteps(make(), 1).gradient_transformation(),
    "apply_if_finite": lambda make: optax.apply_if_finite(make(), 3),
    "inject_hyperparams": lambda make: optax.inject_hyperparams(lambda unused: make())(0.5),
    "extra_args": lambda make: optax.with_extra_args_support(make()),
    "everything": lambda make: optax.apply_if_finite(
        optax.masked(
            optax.chain(optax.inject_hyperparams(lambda unused: make())(0.5), optax.identity()),
            jax.tree.map(lambda _: True, PARAMS),
        ),
        3,
    ),
}


@pytest.mark.parametrize("nesting", NESTINGS)
@pytest.mark.parametrize("average", AVERAGES)
def test_evaluation_parameters_are_found_in_every_nesting(average, nesting):
    make = AVERAGES[average]
    state, params = trained(make())
    expected = eval_params(state, params)
    differences = jax.tree.map(lambda x, y: jnp.any(x != y), expected, params)
    assert all(jax.tree.leaves(differences))
    state, params = trained(NESTINGS[nesting](make))
    close(eval_params(state, params), expected)


@pytest.mark.parametrize("average", AVERAGES)
def test_leaves_that_no_state_covers_come_back_as_they_are(average):
    wrappers = [
        optax.chain(
            optax.masked(AVERAGES[average](), MASK),
            optax.masked(optax.sgd(0.1), jax.tree.map(lambda m: not m, MASK)),
        ),
        optax.partition({True: AVERAGES[average](), False: optax.sgd(0.1)}, MASK),
    ]
    for tx in wrappers:
        state, params = trained(tx)
        found = eval_params(state, params)
        assert jnp.any(found["layer"]["kernel"] != params["layer"]["kernel"])
        close(found["layer"]["bias"], params["layer"]["bias"], rtol=0)
        close(found["gain"], params["gain"], rtol=0)


def test_two_groups_with_their_own_averages():
    tx = optax.partition({True: AVERAGES["dog"](), False: AVERAGES["schedule_free"]()}, MASK)
    state, params = trained(tx)
    found = eval_params(state, params)
    for leaf, other in zip(jax.tree.leaves(found), jax.tree.leaves(params), strict=True):
        assert jnp.any(leaf != other)
    grouped = optax.masked(AVERAGES["dog"](), MASK)
    state_alone, params_alone = trained(grouped)
    close(found["layer"]["kernel"], eval_params(state_alone, params_alone)["layer"]["kernel"])


def test_without_an_average_the_parameters_themselves_come_back():
    state, params = trained(optax.adam(0.1))
    assert eval_params(state, params) is params
    assert train_params(state, params) is params


@pytest.mark.parametrize("nesting", NESTINGS)
def test_train_params_undoes_eval_params(nesting):
    state, params = trained(NESTINGS[nesting](AVERAGES["schedule_free"]))
    close(train_params(state, eval_params(state, params)), params)


@pytest.mark.parametrize("average", ["dog", "lookahead", "polynomial"])
def test_train_params_refuses_what_it_cannot_undo(average):
    state, params = trained(AVERAGES[average]())
    with pytest.raises(ValueError, match="train_params cannot undo (Average|Lookahead)State"):
        train_params(state, params)


@pytest.mark.parametrize("average", AVERAGES)
def test_evaluation_parameters_of_half_precision_keep_their_dtype(average):
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    state, params = trained(AVERAGES[average](), params)
    found = eval_params(state, params)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(jnp.bfloat16)}
    full_state, full = trained(AVERAGES[average]())
    close(
        jax.tree.map(lambda x: x.astype(jnp.float32), found),
        eval_params(full_state, full),
        rtol=0.05,
    )


def test_evaluation_parameters_under_jit_and_vmap():
    tx = AVERAGES["schedule_free"]()
    state, params = trained(tx)
    close(jax.jit(eval_params)(state, params), eval_params(state, params))
    stacked = jax.tree.map(lambda x: jnp.stack([x, x]), (state, params))
    both = jax.vmap(eval_params)(*stacked)
    close(jax.tree.map(lambda x: x[1], both), eval_params(state, params))


def test_a_lone_array_has_evaluation_parameters_too():
    state, params = trained(AVERAGES["dog"](), jnp.ones(3))
    assert eval_params(state, params).shape == (3,)


def raw(state):
    """What a restore without a target makes of a state."""
    if isinstance(state, dict):
        return {name: raw(value) for name, value in state.items()}
    if hasattr(state, "_asdict"):
        return raw(state._asdict())
    return [raw(value) for value in state] if isinstance(state, tuple) else state


@pytest.mark.parametrize("find", [eval_params, train_params])
@pytest.mark.parametrize("nesting", NESTINGS)
def test_a_state_without_its_types_is_refused(find, nesting):
    state, params = trained(NESTINGS[nesting](AVERAGES["schedule_free"]))
    with pytest.raises(
        ValueError, match=r"plain dictionaries.*restore it into .*tx\.init\(params\)"
    ):
        find(raw(state), params)


def test_states_that_are_no_named_tuples_are_no_raw_restores():
    states = [(), None, {}, [jnp.ones(3)], {"a": optax.adam(0.1).init(PARAMS), "b": [jnp.ones(2)]}]
    for state in states:
        assert eval_params(state, PARAMS) is PARAMS


def test_nnx_objects_are_refused_in_favour_of_what_they_hold():
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optzoo.schedule_free_sgd(0.5), wrt=nnx.Param)
    params = nnx.state(model, nnx.Param)
    for pair in [(optimizer, model), (optimizer, params), (optimizer.opt_state, model)]:
        with pytest.raises(ValueError, match=r"pass optimizer\.opt_state and nnx\.state\(model"):
            eval_params(*pair)
    with pytest.raises(ValueError, match="nnx"):
        eval_params(nnx.state(optimizer), params)
    assert jax.tree.structure(eval_params(optimizer.opt_state, params)) == jax.tree.structure(
        params
    )


@pytest.mark.parametrize("average", AVERAGES)
def test_a_state_in_host_memory_gives_parameters_on_the_device(average):
    state, params = trained(AVERAGES[average]())
    for place in (jax.memory.Space.Host, None):
        away = jax.device_put(state, place) if place else jax.device_get(state)
        found = eval_params(away, params)
        close(found, eval_params(state, params), rtol=0)
        for leaf, param in zip(jax.tree.leaves(found), jax.tree.leaves(params), strict=True):
            assert leaf.sharding == param.sharding
