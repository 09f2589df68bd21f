"""States as wholes: from shapes, of one structure, real where they must be, one number a leaf."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from subjects import subject

import optzoo
from optzoo import primitives
from optzoo.optimizers.assembled.ranger21 import _warmup
from optzoo.primitives.norms import packed, unpacked
from optzoo.testing import Subject, Traits, conformance_checks

CHECKS = {check.name: check for check in conformance_checks}
LAYERS = {"a": jnp.ones((3, 2)), "b": {"c": jnp.ones(4), "d": jnp.asarray(2.0)}}


@pytest.mark.parametrize("name", optzoo.REGISTRY.optimizers)
def test_init_on_shapes_makes_the_state_or_names_the_way_out(name):
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), LAYERS)
    tx = optzoo.get(name).build(total_steps=10)
    copies = any(word in name for word in ("dog", "entropy_sgd", "ranger21", "schedule_free"))
    if copies:
        with pytest.raises(ValueError, match=r"jax\.jit\(tx\.init, out_shardings=…\)\(params\)"):
            tx.init(jax.eval_shape(lambda: params))
    else:
        jax.tree.map(
            np.testing.assert_array_equal, tx.init(jax.eval_shape(lambda: params)), tx.init(params)
        )


PACKED = [optzoo.ldog(), optzoo.novograd(), optzoo.adago()]
BY_PATH = [optzoo.psgd(), optzoo.shampoo(), optzoo.soap()]


@pytest.mark.parametrize("tx", PACKED + BY_PATH)
def test_map_params_meets_only_leaves_that_are_shaped_like_their_parameter(tx):
    def absent(leaf):
        return isinstance(leaf, optax.MaskedNode)

    def same_shape(leaf, p):
        assert absent(leaf) or leaf.shape == p.shape

    optax.tree.map_params(tx, same_shape, tx.init(LAYERS), LAYERS, is_leaf=absent)


@pytest.mark.parametrize("dtypes", [(jnp.float32, jnp.float32), (jnp.float32, jnp.float64)])
def test_packed_numbers_come_back_in_their_shapes_and_dtypes(dtypes):
    with jax.enable_x64(True):
        tree = {"a": jnp.arange(2, dtype=dtypes[0]).reshape(2, 1), "b": jnp.asarray(5, dtypes[1])}
        vector = packed(tree)
        assert (vector.shape, vector.dtype) == ((3,), dtypes[1])
        for x, y in zip(
            jax.tree.leaves(unpacked(vector, tree)), jax.tree.leaves(tree), strict=True
        ):
            assert (x.dtype, x.shape) == (y.dtype, y.shape) and jnp.array_equal(x, y)
    assert packed({}).shape == (0,) and unpacked(packed({}), {}) == {}


@pytest.mark.parametrize("b2", [0.9, 0.98, 0.997, 0.999, 0.9999, 0.99999])
@pytest.mark.parametrize("wide", [False, True])
def test_ranger21s_warm_up_is_as_long_for_a_traced_decay_as_for_a_number(b2, wide):
    total = 10**6
    with jax.enable_x64(wide):
        exact = -(-2 // (1 - b2)) if b2 == 0.997 else round(2 / (1 - b2))
        assert _warmup(b2, total) == jax.jit(_warmup)(b2, total) == exact
        assert _warmup(0.999, 2000) == jax.jit(_warmup)(0.999, 2000) == 440


@pytest.mark.parametrize(
    "made",
    [
        partial(optzoo.ranger21, total_steps=100),
        lambda: primitives.adam(),
        optzoo.adamp,
        optzoo.adamod,
        optzoo.qhadam,
    ],
    ids=["ranger21", "adam", "adamp", "adamod", "qhadam"],
)
def test_second_moments_of_complex_parameters_are_real(made):
    target = Subject(made, traits=Traits(takes_complex=True))
    CHECKS["complex64"](target)
    params = {"w": jnp.ones((3, 2), jnp.complex64)}
    kinds = {leaf.dtype for leaf in jax.tree.leaves(target.tx.init(params)) if leaf.ndim}
    assert kinds == {jnp.dtype("complex64"), jnp.dtype("float32")}


@pytest.mark.parametrize(
    "made",
    [optzoo.dion, optzoo.entropy_sgd, partial(optzoo.stochastic_round, optax.sgd(0.1))],
    ids=["dion", "entropy_sgd", "stochastic_round"],
)
def test_a_seed_may_be_traced(made):
    def init(seed):
        def numbers(leaf):
            typed = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            return jax.random.key_data(leaf) if typed else leaf

        return jax.tree.map(numbers, made(key=seed).init({"layer": {"kernel": jnp.ones((3, 3))}}))

    for other in (jax.jit(init)(3), init(jax.random.key(3))):
        jax.tree.map(np.testing.assert_array_equal, other, init(3))


@pytest.mark.parametrize("tx", BY_PATH)
def test_kronecker_factors_refuse_complex_parameters_by_name(tx):
    params = {"a": jnp.ones(2), "b": jnp.ones(2, jnp.complex64)}
    with pytest.raises(ValueError, match=r"must be real; 'b' is complex64"):
        tx.init(params)


@pytest.mark.parametrize("mask", [None, {"dense": {"bias": False, "kernel": True}}])
@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_no_decay_changes_the_state_and_a_mask_spares_its_leaves(decay, mask):
    params = subject("adamp").params
    usual = jax.tree.structure(optzoo.adamp().init(params))
    for factory in (optzoo.adamp, optzoo.sgdp, optzoo.adago, optzoo.schedule_free_sgd):
        first = jax.tree.structure(factory().init(params))
        tx = factory(weight_decay=decay, mask=mask)
        assert jax.tree.structure(tx.init(params)) == first
    assert jax.tree.structure(optzoo.adamp(weight_decay=decay, mask=mask).init(params)) == usual
    tx = primitives.add_decayed_weights(decay, mask)
    zeros = optax.tree.zeros_like(params)
    updates, _ = tx.update(zeros, tx.init(params), params)
    np.testing.assert_array_equal(
        updates["dense"]["kernel"], jnp.float32(decay) * params["dense"]["kernel"]
    )
    spared = 0 if mask else jnp.float32(decay) * params["dense"]["bias"]
    np.testing.assert_array_equal(updates["dense"]["bias"], jnp.broadcast_to(spared, (3,)))


@pytest.mark.parametrize("name", optzoo.REGISTRY.optimizers)
def test_docstrings_say_which_zero_saves_a_moment(name):
    entry, note = optzoo.get(name), CHECKS["stable_tree"](subject(name))
    for argument in entry.defaults:
        text = entry.section("Args").partition(f"{argument}: ")[2].partition("\n\n")[0]
        says = "0 keeps no" in " ".join(text.split(": ")[0].split())
        assert says == (f"{argument} = 0" in note), (argument, note)
