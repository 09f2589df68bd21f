"""What compiled steps do, counted: kernels, temporaries, products, collectives. Never a time."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optzoo
from optzoo.registry import Trait

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import common  # noqa: E402
from hlo import Program, size  # noqa: E402

SHAPES = common.model(blocks=6, width=16, vocabulary=64)
LEAVES = len(jax.tree.leaves(SHAPES))
NUMBERS = common.numbers(SHAPES)
SCALARS = 24
"""Kernels for step counts, bias corrections and the like."""

ELEMENTWISE = [
    name
    for name, entry in optzoo.REGISTRY.optimizers.items()
    if not entry.traits & {Trait.SHAPED, Trait.COUPLED, Trait.RANDOM}
]
COPIES = {"optimistic_adam": 1}
"""Copies of a leaf: what is kept of the step before is needed beside what replaces it."""
ORTHOGONAL = [
    name
    for name, entry in optzoo.REGISTRY.optimizers.items()
    if "orthogonalizer" in entry.signature.parameters
]
ROUTED = [name for name in ORTHOGONAL if name in common.COUNTERPARTS]


@functools.cache
def compiled(name, optax=False):
    make = common.COUNTERPARTS[name] if optax else functools.partial(common.ours, name)
    # Optax's rules promote dtypes implicitly.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return common.lowered(make(), SHAPES).compile()


def counts(name, optax=False):
    """Kernels, and temporary floats a parameter."""
    step = compiled(name, optax)
    temporaries = step.memory_analysis().temp_size_in_bytes / 4 / NUMBERS
    return Program(step.as_text()).kernels, temporaries


def arrays(name):
    """How many arrays a step writes."""
    state = jax.tree.leaves(jax.eval_shape(common.ours(name).init, SHAPES))
    return LEAVES + sum(leaf.ndim > 0 for leaf in state)


@pytest.mark.skipif(
    jax.__version_info__ < (0, 10), reason="the CPU's compiler wrote more arrays before jaxlib 0.10"
)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_an_element_wise_step_writes_each_array_once(name):
    kernels, temporaries = counts(name)
    copies = COPIES.get(name, 0)
    # The CPU's compiler writes one array a kernel, and shares one intermediate of each leaf.
    assert kernels <= arrays(name) + (1 + copies) * LEAVES + SCALARS
    assert temporaries <= 1.05 + copies


def state_numbers(tx):
    return common.numbers(jax.eval_shape(tx.init, SHAPES))


def same_memory(name):
    """Whether Optax's rule keeps the same state: ours may average, or save an average."""
    return (
        abs(state_numbers(common.ours(name)) - state_numbers(common.COUNTERPARTS[name]()))
        < 0.01 * NUMBERS
    )


@pytest.mark.parametrize("name", [name for name in common.COUNTERPARTS if same_memory(name)])
def test_no_step_does_more_than_optax(name):
    kernels, temporaries = counts(name)
    theirs, their_temporaries = counts(name, optax=True)
    assert kernels <= theirs + SCALARS
    assert temporaries <= their_temporaries + 0.05


@pytest.mark.parametrize("name", ROUTED)
def test_orthogonalising_takes_a_quarter_of_optax_kernels(name):
    assert 4 * counts(name)[0] <= counts(name, optax=True)[0]


@pytest.mark.parametrize(
    ("name", "more"),
    # jaxlib 0.12 joins fewer of NorMuon's slices than 0.10, where 1.1 holds; AdaMuon keeps and
    # writes a second number a weight, and measures what it divides by it.
    [("normuon", 1.25), ("scion", 1.1), ("adamuon", 1.5)],
)
def test_what_came_after_muon_costs_little_more(name, more):
    kernels, temporaries = counts(name)
    its_kernels, its_temporaries = counts("muon")
    assert kernels <= more * its_kernels
    assert temporaries <= 1.1 * its_temporaries


@pytest.mark.parametrize("name", ORTHOGONAL)
def test_matrices_of_equal_shape_share_their_products(name):
    def products(blocks):
        step = common.lowered(common.ours(name), common.model(blocks, 8, 16)).compile()
        return Program(step.as_text()).products

    assert 0 < products(1) == products(3)


def test_square_matrices_take_three_products_a_step():
    leaves = {f"block_{i}": jax.ShapeDtypeStruct((8, 8), jnp.float32) for i in range(3)}
    tx = optzoo.orthogonalize(optzoo.newton_schulz(4))
    update = jax.jit(lambda grads: tx.update(grads, tx.init(grads))[0])
    assert Program(update.lower(leaves).compile().as_text()).products == 3 * 4


@pytest.mark.parametrize("shape", [(3, 16, 64), (3, 64, 16)], ids=["wide", "tall"])
def test_the_gram_matrix_saves_a_third_of_the_operations_of_an_oblong_one(shape):
    from orthogonalize import published

    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    steps = optzoo.primitives.KELLER_JORDAN * 5
    candidates = (optzoo.newton_schulz(), lambda x: published(x, steps))
    ours, direct = (jax.jit(fn).lower(x).compile().cost_analysis()["flops"] for fn in candidates)
    assert ours <= 0.7 * direct


CHILD = f"""
import json
import re
import sys
sys.path.insert(0, {str(BENCHMARKS)!r})
import jax
jax.config.update("jax_num_cpu_devices", 8)
import jax.numpy as jnp
import common
import sharded
from hlo import Program
from jax.sharding import AxisType
import optax
import optzoo
from optzoo import primitives

def own(matrices):
    return jnp.tanh(matrices @ matrices.mT) @ matrices

def measured(tx, matrices, kind):
    shapes = sharded.shapes_of(matrices, 32, 64)
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(kind, kind))
    step = sharded.compiled(tx, shapes, mesh)
    alone = common.lowered(tx, shapes).compile()
    work = step.cost_analysis()["flops"] / alone.cost_analysis()["flops"]
    state = jax.tree.leaves(jax.eval_shape(tx.init, shapes))
    keeps = any(leaf.ndim and leaf.shape != (32, 64) for leaf in state)
    return [matrices, Program(step.as_text()).collectives, work, keeps]

rows, kept = {{}}, {{}}
for name in {ORTHOGONAL}:
    for method, matrices, kind in (
        (None, 16, AxisType.Auto),
        (None, 16, AxisType.Explicit),
        (None, 3, AxisType.Auto),
        (own, 16, AxisType.Auto),
    ):
        tx = optzoo.get(name).factory(orthogonalizer=method)
        key = f"{{name}} {{matrices}} {{kind.name}} {{method and method.__name__}}"
        rows[key] = measured(tx, matrices, kind)
for part in (primitives.precondition(primitives.ema(0.9)), primitives.power_iteration()):
    tx = optax.chain(part, optax.scale(-0.1))
    for kind in (AxisType.Auto, AxisType.Explicit):
        kept[f"{{len(kept)}} {{kind.name}}"] = measured(tx, 16, kind)
chosen = measured(optax.chain(primitives.top_entries(0.1), optax.scale(-0.1)), 16, AxisType.Auto)

def renewals(name):
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    step = sharded.compiled(common.ours(name), sharded.shapes_of(16, 8, 16), mesh)
    stacks = r'= \\(?f32\\[(\\d+),\\d+,\\d+\\].*custom_call_target="lapack'
    return re.findall(stacks, step.as_text()), Program(step.as_text()).collectives

print(json.dumps([rows, kept, chosen, [renewals(name) for name in ("shampoo", "soap")]]))
"""


def test_whole_matrices_go_to_the_devices_and_back_once():
    child = subprocess.run(
        [sys.executable, "-c", CHILD],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "0"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert child.returncode == 0, child.stderr[-2000:]
    assert "rematerialization" not in child.stderr.lower()
    rows, kept, chosen, renewals = json.loads(child.stdout)
    assert rows and kept
    for key, (matrices, collectives, work, keeps) in rows.items():
        # One all-to-all a mesh axis each way; norms of gradients may add reductions, and what is
        # kept of each matrix is whole on every device.
        assert set(collectives) <= {"all-to-all", "all-reduce", "all-gather"}, key
        assert collectives["all-to-all"] <= 4, key
        assert collectives.get("all-gather", 0) <= 2 * keeps, key
        assert work <= 1.1 * -(-matrices // 8) / matrices, key
    for key, (_, collectives, work, _) in kept.items():
        # Two matrices there and one back, or the reverse.
        assert set(collectives) <= {"all-to-all", "all-gather"}, key
        assert collectives["all-to-all"] <= 6 and collectives["all-gather"] <= 2, key
        assert work <= 1.1 / 8, key
    # The largest entries are found by counting alone.
    assert set(chosen[1]) == {"all-reduce"}
    # Every decomposition is of a device's two of 16 matrices; collectives are of whole stacks.
    for (stacks, collectives), decompositions in zip(renewals, (2, 8), strict=True):
        assert stacks == ["2"] * decompositions
        assert collectives["all-to-all"] <= 8 and sum(collectives.values()) <= 40


def test_the_reader_counts_what_is_known():
    x = jax.ShapeDtypeStruct((256, 256), jnp.float32)

    def read(fn, *args):
        return Program(jax.jit(fn).lower(*args).compile().as_text())

    fused = read(lambda x, y: 2 * x + y, x, x)
    assert fused.kernels == 1
    assert fused.traffic == 3 * 4 * 256**2
    assert read(lambda x, y: x @ y @ x, x, x).products == 2
    sliced = read(lambda x: 2 * x[:8], x)
    assert sliced.traffic == 2 * 4 * 8 * 256
    # What is computed of a whole array and cut after it is computed of the part alone.
    late = read(lambda x: jnp.exp(x @ x).reshape(4, 64, 256)[1].T * 2, x)
    assert late.kernels == 2 and late.traffic == 4 * (2 * 256**2 + 2 * 64 * 256)
    once, often = (
        read(lambda x, n=n: jax.lax.fori_loop(0, n, lambda _, x: jnp.sin(x) @ x, x), x).kernels
        for n in (10, 20)
    )
    assert 10 <= once < often <= 2 * once


def test_sizes_of_types():
    assert size("(f32[2,3]{1,0}, pred[5]{0}, bf16[4])") == 24 + 5 + 8
    on_chip = "f32[8]{0:T(128)S(1)}"
    assert (size(on_chip), size(on_chip, everywhere=True)) == (0, 32)
    assert size("f8e4m3fn[16]{0}") == np.dtype("int8").itemsize * 16
