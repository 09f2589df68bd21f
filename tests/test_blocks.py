"""Fused projections: each block is a matrix of its own to every matrix rule."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from laws import close

import optzoo
from optzoo import primitives as zoo
from optzoo.primitives.labels import RoutingWarning, routes

# Rules that know of the whole tree share its step out among the leaves that there are.
RULES = [
    name
    for name in optzoo.REGISTRY.of(kind="optimizer", family="matrix")
    if name not in ("modula", "modular_descent")
]


def fused(seed, sizes=(6, 2, 2)):
    rng = np.random.default_rng(seed)
    qkv = jnp.asarray(rng.standard_normal((4, sum(sizes))), jnp.float32)
    return {"qkv": {"kernel": qkv}, "up": {"kernel": qkv[:, :6] + 1}, "bias": jnp.ones(3)}


def apart(tree):
    q, k, v = jnp.split(tree["qkv"]["kernel"], (6, 8), axis=1)
    rest = {name: leaf for name, leaf in tree.items() if name != "qkv"}
    return rest | {"q": {"kernel": q}, "k": {"kernel": k}, "v": {"kernel": v}}


def axes(path, leaf):
    split = zoo.Axes((0,), (1,), split=(6, 2, 2))
    return split if path == "qkv/kernel" else zoo.flax_axes(path, leaf)


def two_steps(tx, params, grads):
    state = tx.init(params)
    first, state = tx.update(grads, state, params)
    return optax.tree.add(first, tx.update(grads, state, params)[0])


@pytest.mark.parametrize("name", RULES)
def test_a_fused_kernel_moves_as_its_parts_do(name):
    factory = optzoo.get(name).factory
    together = jax.jit(lambda p, g: two_steps(factory(axes=axes), p, g))(fused(0), fused(1))
    alone = jax.jit(lambda p, g: two_steps(factory(), p, g))(apart(fused(0)), apart(fused(1)))
    close(apart(together), alone, atol=1e-6)


def test_equal_blocks_are_counted_and_share_their_products():
    shapes = {"qkv": {"kernel": (8, 24)}, "up": {"kernel": (8, 8)}}
    leaves = {name: {"kernel": jnp.ones(part["kernel"])} for name, part in shapes.items()}
    seen = []

    def method(stack):
        seen.append(stack.shape)
        return stack

    tx = optzoo.muon(
        orthogonalizer=method,
        axes={"qkv": zoo.Axes((0,), (1,), split=3), "up": zoo.Axes((0,), (1,))},
    )
    tx.update(leaves, tx.init(leaves), leaves)
    assert seen == [(4, 8, 8)]


def test_a_split_that_does_not_fit_is_an_error():
    leaves = {"kernel": jnp.ones((4, 10))}
    for split in (3, (6, 2), (12, -2), 0):
        tx = optzoo.muon(axes=zoo.Axes((0,), (1,), split=split))
        with pytest.raises(ValueError, match=r"split must fill the last output axis, 10, .*; got"):
            tx.init(leaves)
    bare = zoo.orthogonalize(axes=zoo.Axes((0,), (1,), split=2))
    with pytest.raises(ValueError, match="'kernel' is split, which only"):
        bare.update(leaves, bare.init(leaves))


def test_describe_shows_the_blocks():
    params = fused(0)
    table = optzoo.describe(optzoo.muon(axes=axes), params, axes=axes)
    (row,) = (line for line in table.splitlines() if line.startswith("qkv/kernel"))
    # The momentum of its 40 numbers, in float32.
    assert all(part in row for part in ("  matrix ", "4 × (6 + 2 + 2)", " 160 "))
    heads = optzoo.describe(None, params, axes=zoo.Axes((0,), (1,), split=2))
    assert "2 of 4 × 5" in heads


@pytest.mark.parametrize(
    ("path", "shape", "split", "doubtful"),
    [
        ("attn/c_attn/kernel", (4, 12), 3, False),
        ("layers_0/self_attn/in_proj/kernel", (4, 12), 3, False),
        # The order of these is not known by their names.
        ("attn/qkv/kernel", (4, 12), 1, True),
        ("attn/Wqkv/kernel", (4, 12), 1, True),
        ("attn/query_key_value/kernel", (4, 12), 1, True),
        ("to_kv_0/kernel", (4, 8), 1, True),
        ("experts/gate_up_proj", (3, 4, 10), 1, True),
        # Grouped queries, no attention, axes that tell.
        ("attn/c_attn/kernel", (4, 6), 1, False),
        ("attn/qkv/kernel", (4, 6), 1, False),
        ("mixer/in_proj/kernel", (4, 12), 1, False),
        ("attn/qkv/kernel", (4, 3, 2, 2), 1, False),
    ],
)
def test_fused_kernels_are_known_by_name_and_shape(path, shape, split, doubtful):
    *modules, name = path.split("/")
    tree = {name: jax.ShapeDtypeStruct(shape, jnp.float32)}
    for module in reversed(modules):
        tree = {module: tree}
    tree["norm"] = {"scale": jax.ShapeDtypeStruct((4,), jnp.float32)}
    (route,) = (route for route in routes(tree) if route.path == path)
    assert (route.axes.split, bool(route.doubt)) == (split, doubtful)
    assert not any(route.doubt for route in routes(tree, axes=zoo.Axes((-2,), (-1,))))


def test_the_layout_of_torch_is_cut_along_its_outputs():
    torch = {
        "attn": {"in_proj_weight": jnp.ones((12, 4)), "out_proj": {"weight": jnp.ones((4, 4))}}
    }
    seen = []

    def method(stack):
        seen.append(stack.shape)
        return stack

    tx = optzoo.muon(orthogonalizer=method, axes=optzoo.torch_axes)
    tx.update(torch, tx.init(torch), torch)
    assert seen == [(4, 4, 4)]


@pytest.mark.parametrize("name", ["muon", "scion"])
def test_names_do_what_a_split_does(name):
    factory = optzoo.get(name).factory
    params, grads = ({"attn": {"c_attn": fused(i, (4, 4, 4))["qkv"]}} for i in (0, 1))
    spec = zoo.Axes((0,), (1,), split=3)
    given = two_steps(factory(axes=spec), params, grads)
    close(two_steps(factory(), params, grads), given, atol=0)
    whole = two_steps(factory(axes=spec.whole), params, grads)
    assert np.max(np.abs(whole["attn"]["c_attn"]["kernel"] - given["attn"]["c_attn"]["kernel"])) > 0
    assert "3 of 4 × 4" in optzoo.describe(factory(), params)


def test_what_is_perhaps_fused_is_said_and_left_whole():
    leaves = {"attn": {"qkv": {"kernel": jnp.ones((4, 12))}, "out": {"kernel": jnp.ones((4, 4))}}}
    with pytest.warns(RoutingWarning, match="taken for one matrix, though its name speaks of 3"):
        optzoo.muon().init(leaves)
