"""Fingerprints tell programs apart by anything that they compute with, and by nothing else."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import assume, given, settings, strategies as st
from jax.experimental import io_callback, pallas as pl
from jax.extend import random as generators
from jax.extend.core import Primitive
from jax.interpreters import mlir
from jax.sharding import AxisType, PartitionSpec

from optzoo.compare import run
from optzoo.compare.errors import NotReused
from optzoo.compare.work import fingerprint as module
from optzoo.compare.work.fingerprint import fingerprint
from optzoo.problems import Problem

X = jax.ShapeDtypeStruct((2,), "float32")


def read(function, *arguments):
    return fingerprint(jax.jit(function).trace(*(arguments or (X,))).jaxpr)


def digest(function, *arguments):
    found = read(function, *arguments)
    assert not found.unseen
    return found.digest


# A program is a list of steps from two numbers to two numbers: one with a constant, or one that
# wraps other programs.


def constants(kinds):
    return st.tuples(st.sampled_from(kinds), st.integers(-3, 3))


WRAPPERS = ("jit", "remat", "custom_jvp", "custom_vjp", "scan", "while", "fori", "vmap", "cond")
PROGRAMS = st.recursive(
    st.lists(constants(["add", "scale", "at", "literal", "power"]), min_size=1, max_size=2),
    lambda inner: st.lists(
        st.one_of(
            constants(["add"]), st.tuples(st.sampled_from(WRAPPERS), inner, st.integers(1, 3))
        ),
        min_size=1,
        max_size=2,
    ),
    max_leaves=4,
)


def build(program):
    """The function that a program describes, with every object of it made anew."""

    def run(x):
        for kind, what, *count in program:
            x = (wrap(kind, build(what), *count) if count else step(kind, what))(x)
        return x

    return run


def step(kind, number):
    captured = jnp.full(2, number, "float32")
    return {
        "add": lambda x: x + captured,
        "scale": lambda x: x * np.asarray([number, 1], "float32"),
        "at": lambda x: x.at[number % 2].set(number / 4),
        "literal": lambda x: x - number / 8,
        "power": lambda x: jax.lax.integer_pow(x, number + 4),
    }[kind]


def wrap(kind, inner, count):
    if kind == "custom_jvp":
        wrapped = jax.custom_jvp(inner)
        wrapped.defjvp(lambda p, t: (wrapped(*p), t[0]))
    elif kind == "custom_vjp":
        wrapped = jax.custom_vjp(inner)
        wrapped.defvjp(lambda x: (wrapped(x), None), lambda _, t: (t,))
    else:
        wrapped = {
            "jit": jax.jit(inner),
            "remat": jax.checkpoint(inner),
            "scan": lambda x: jax.lax.scan(lambda c, _: (inner(c), None), x, None, count)[0],
            "fori": lambda x: jax.lax.fori_loop(0, count, lambda _, c: inner(c), x),
            "while": lambda x: jax.lax.while_loop(lambda c: c[0] < count, inner, x),
            "vmap": lambda x: jax.vmap(inner)(jnp.stack([x] * count))[0],
            "cond": lambda x: jax.lax.cond(x[0] > count, inner, lambda x: x, x),
        }[kind]
    # What is not repeated `count` times is scaled by it, so that no two programs are alike.
    scaled = kind in ("jit", "remat", "custom_jvp", "custom_vjp")
    return (lambda x: wrapped(x) * float(count)) if scaled else wrapped


def numbers(program):
    return sum(1 if len(one) == 2 else 1 + numbers(one[1]) for one in program)


def with_another(program, place):
    """The program with one more in its number at a place, counted through all depths."""
    changed = []
    for kind, what, *count in program:
        if not count:
            changed.append((kind, what + (place == 0)))
            place -= 1
        else:
            inner = with_another(what, place)
            place -= numbers(what)
            changed.append((kind, inner, *[value + (place == 0) for value in count]))
            place -= 1
    return changed


@given(PROGRAMS)
def test_the_same_program_built_twice_is_the_same(program):
    assert digest(build(program)) == digest(build(program))


@given(PROGRAMS, st.data())
def test_any_other_number_at_any_depth_shows(program, data):
    place = data.draw(st.integers(0, numbers(program) - 1))
    other = with_another(program, place)
    assert other != program
    assert digest(build(program)) != digest(build(other))


@settings(max_examples=100)
@given(PROGRAMS, PROGRAMS)
def test_any_other_operation_shows(first, second):
    assume(first != second)
    assert digest(build(first)) != digest(build(second))


def every_kind():
    inner = [("add", 1), ("at", 2), ("scale", 3), ("literal", 1), ("power", 0)]
    return [digest(build([(kind, inner, 2)])) for kind in WRAPPERS]


def test_every_process_reads_the_same():
    code = "import test_compare_fingerprint as test; print(test.every_kind())"
    command = [sys.executable, "-c", code]
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        found = subprocess.check_output(command, cwd=Path(__file__).parent, env=environment)
        assert found.decode().strip() == str(every_kind())


def mesh_sum(value):
    mesh = jax.make_mesh((1,), ("x",), axis_types=(AxisType.Auto,))
    captured = np.full(2, value, "float32")
    spec = PartitionSpec("x")
    return jax.shard_map(lambda x: x + captured, mesh=mesh, in_specs=spec, out_specs=spec)


def kernel(value):
    def body(x, out):
        out[...] = x[...] + value

    return pl.pallas_call(body, out_shape=X, interpret=True)


def solve(value):
    matrix = np.eye(2, dtype="float32") * value

    def matvec(x):
        return matrix @ x

    return lambda b: jax.lax.custom_linear_solve(matvec, b, lambda _, b: b / value)


def drawn(value):
    key = jax.random.key(value)
    return lambda x: jax.random.normal(key, (2,))


VARIANTS = {
    "shard_map": mesh_sum,
    "pallas": kernel,
    "linear solve": solve,
    "bits of an array": lambda value: lambda x: x + np.asarray([0.0, value - 1], "float32") * -1,
    "dtype": lambda value: lambda x: x.astype(["float16", "bfloat16"][value - 1]),
    "weak type": lambda value: lambda x: [jnp.asarray(2.0), jnp.asarray(2.0, "float32")][value - 1],
    "key": drawn,
    "generator": lambda value: (
        lambda x: jax.random.key_data(jax.random.key(0, impl=["rbg", "unsafe_rbg"][value - 1]))
    ),
    "precision": lambda value: lambda x: jnp.dot(x, x, precision=["high", "highest"][value - 1]),
    "donated": lambda value: jax.jit(lambda x: x + 1.0, donate_argnums=[(), 0][value - 1]),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_it_sees_into(name):
    make = VARIANTS[name]
    assert digest(make(1)) == digest(make(1))
    assert digest(make(1)) != digest(make(2))


def test_settings_that_change_numbers_count():
    def program(x):
        return x @ x

    found = {digest(program)}
    with jax.default_matmul_precision("highest"):
        found.add(digest(program))
    with jax.enable_x64(True):
        found.add(digest(program))
    assert len(found) == 3


def test_captured_arrays_are_read_once(monkeypatch):
    data, hashed = jnp.arange(4096.0), []
    sha256 = module.hashlib.sha256

    def counted(content):
        hashed.append(len(content))
        return sha256(content)

    monkeypatch.setattr(module.hashlib, "sha256", counted)
    for rate in (0.1, 0.2):
        digest(lambda x, rate=rate: jax.jit(lambda x: x + rate * data)(x), data)
    assert hashed.count(data.nbytes) == 1


def called(wrapper):
    def program(x):
        return wrapper(lambda x: np.asarray(x) + 1, X, x)

    return program


def own_primitive():
    own = Primitive("own")
    own.def_abstract_eval(lambda x: x)
    mlir.register_lowering(own, mlir.lower_fun(lambda x: x + 1, multiple_results=False))
    return own.bind


def own_generator(x):
    threefry = generators.threefry_prng_impl
    own = generators.define_prng_impl(
        key_shape=threefry.key_shape,
        seed=lambda seed: threefry.seed(seed + 1),
        split=threefry.split,
        random_bits=threefry.random_bits,
        fold_in=threefry.fold_in,
        name="own",
        tag="own",
    )
    return jax.random.bits(jax.random.key(0, impl=own))


def own_batching(x):
    rule = jax.custom_batching.custom_vmap(jnp.sin)
    rule.def_vmap(lambda size, batched, x: (jnp.cos(x), batched[0]))
    return rule(x)


def watched(x):
    jax.debug.callback(lambda x: None, x)
    return x


# Whoever holds it may change it at any time.
REF = jax.new_ref(np.zeros(2, "float32"))
UNSEEN = {
    "pure_callback": called(jax.pure_callback),
    "io_callback": called(io_callback),
    "own": own_primitive(),
    "ffi_call": lambda x: jax.ffi.ffi_call("somewhere", X)(x),
    "random_seed": own_generator,
    "custom_vmap_call": own_batching,
    "debug_callback": watched,
    "a captured value": lambda x, ref=REF: x + ref[...],
}


@pytest.mark.parametrize("name", UNSEEN)
@pytest.mark.parametrize("inside", [lambda f: f, jax.jit, jax.checkpoint])
def test_it_says_what_it_cannot_see(name, inside):
    assert name in read(inside(UNSEEN[name])).unseen


def descent(learning_rate=0.1):
    return optax.sgd(learning_rate)


def jitted(number):
    data = jnp.full(2, number)

    @jax.jit
    def loss(params, _):
        return jnp.sum((params - data) ** 2)

    return Problem(lambda key: jnp.zeros(2), loss, lambda p, _: {"loss": loss(p, None)}, 3, 0.1)


def test_problems_of_equal_form_keep_their_own_data():
    results = run([jitted(1.0), jitted(100.0)], [descent], lrs=[0.1], seeds=1)
    first, second = results.table["validation_loss"]
    np.testing.assert_allclose(second, 1e4 * first, rtol=1e-5)


def test_changed_data_are_not_answered_from_the_store(tmp_path):
    seen = []
    for number in (1.0, 100.0, 1.0):
        run([jitted(number)], [descent], lrs=[0.1], seeds=1, out=tmp_path, progress=seen.append)
    assert [one.reused for one in seen] == [0, 0, 1]


def test_what_cannot_be_seen_is_repeated_and_told_once(tmp_path):
    worth = [1.0]

    def evaluate(params, _):
        loss = jax.pure_callback(lambda: np.float32(worth[0]), jax.ShapeDtypeStruct((), "float32"))
        return {"loss": loss}

    unseen = dataclasses.replace(jitted(1.0), evaluate=evaluate, name="unseen")
    plain = dataclasses.replace(jitted(1.0), name="plain")
    seen = []
    for worth[0] in (1.0, 2.0):
        with pytest.warns(NotReused, match="descent on unseen: what pure_callback does") as told:
            results = run(
                [unseen, plain], [descent], lrs=[0.1], seeds=1, out=tmp_path, progress=seen.append
            )
        assert len(told) == 1
        losses = results.table.set_index("problem")["validation_loss"]
        assert losses["unseen"] == worth[0]
    assert {one.label: one.reused for one in seen[2:]} == {
        "descent on unseen": 0,
        "descent on plain": 1,
    }
