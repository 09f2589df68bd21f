"""Axes, labels and the table of who got what, on real Flax modules in linen and nnx."""

import math
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.core import FrozenDict
from hypothesis import given, strategies as st
from optax.contrib import MuonDimensionNumbers

from optzoo.describe import describe
from optzoo.primitives.axes import Axes, flax_axes, map_with_axes, torch_axes
from optzoo.primitives.labels import matrix_labels, routes

VOCABULARY, WIDTH, HEADS = 11, 8, 2
TOKENS = jnp.zeros((2, 5), int)
DENSE = Axes((0,), (1,))


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = x + nn.MultiHeadDotProductAttention(HEADS)(nn.LayerNorm()(x))
        return x + nn.Dense(WIDTH)(nn.gelu(nn.Dense(4 * WIDTH)(nn.LayerNorm()(x))))


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return Block(name="block")(x), None


def scanned(name=None):
    lifted = nn.scan(Layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
    return lifted(name=name)


class Transformer(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(VOCABULARY, WIDTH)(tokens)
        x = Block()(x)
        x, _ = scanned()(x, None)
        x, _ = scanned("layers")(x, None)
        return nn.Dense(VOCABULARY)(x)


class Convolutional(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(6, (3, 3))(x)
        x = nn.Conv(6, (3, 3), feature_group_count=6)(x)
        x = nn.Dense(7)(x.mean((1, 2)))
        return nn.Dense(4, name="head")(nn.LayerNorm()(x))


class Mixture(nn.Module):
    @nn.compact
    def __call__(self, x):
        weights = nn.softmax(nn.Dense(4, name="gate")(x))
        experts = nn.vmap(
            nn.Dense,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=None,
            out_axes=-1,
            axis_size=4,
        )
        gated = nn.Dense(16, name="gate_proj")(x)
        raw = self.param("wi_0", nn.initializers.lecun_normal(), (4, WIDTH, 16))
        x = jnp.einsum("...d,edf->...ef", x, raw).sum(-2) * gated
        return (experts(WIDTH, name="experts")(x) * weights[..., None, :]).sum(-1)


class NnxModel(nnx.Module):
    def __init__(self, rngs):
        self.embed = nnx.Embed(VOCABULARY, WIDTH, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(HEADS, WIDTH, rngs=rngs)
        self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.layers = nnx.List([nnx.Linear(WIDTH, WIDTH, rngs=rngs) for _ in range(2)])
        self.depthwise = nnx.Conv(4, 4, (3, 3), feature_group_count=4, rngs=rngs)
        self.lm_head = nnx.Linear(WIDTH, VOCABULARY, rngs=rngs)


def shapes(module, x):
    return jax.eval_shape(module.init, jax.random.key(0), x)["params"]


def fake(**leaves):
    """A tree of shapes from paths: fake(**{"a/b": (2, 3)})."""
    tree = {}
    for path, shape in leaves.items():
        *modules, name = path.split("/")
        node = tree
        for module in modules:
            node = node.setdefault(module, {})
        node[name] = jax.ShapeDtypeStruct(shape, jnp.float32)
    return tree


def by_path(tree, **arguments):
    return {route.path: route for route in routes(tree, **arguments)}


def test_linen_transformer():
    got = by_path(shapes(Transformer(), TOKENS))
    attention = "MultiHeadDotProductAttention_0"
    for prefix, stack in (("Block_0", 0), ("ScanLayer_0/block", 1), ("layers/block", 1)):
        batch = tuple(range(stack))
        expected = {
            f"{attention}/query/kernel": Axes((stack,), (stack + 1, stack + 2), batch),
            f"{attention}/key/kernel": Axes((stack,), (stack + 1, stack + 2), batch),
            f"{attention}/value/kernel": Axes((stack,), (stack + 1, stack + 2), batch),
            f"{attention}/out/kernel": Axes((stack, stack + 1), (stack + 2,), batch),
            "Dense_0/kernel": Axes((stack,), (stack + 1,), batch),
            "Dense_1/kernel": Axes((stack,), (stack + 1,), batch),
        }
        mine = {path: route for path, route in got.items() if path.startswith(prefix)}
        assert len(mine) == 16
        for path, route in mine.items():
            spec = expected.get(path.removeprefix(f"{prefix}/"))
            assert route.axes == spec
            assert route.label == ("other" if spec is None else "matrix")
    assert got["Embed_0/embedding"].reason == "embedding"
    assert got["Dense_0/kernel"].reason == "output head"


def test_linen_convolutions():
    got = by_path(shapes(Convolutional(), jnp.zeros((1, 4, 4, 3))))
    assert got["Conv_0/kernel"].axes == Axes((0, 1, 2), (3,))
    assert got["Conv_1/kernel"].axes == Axes((0, 1, 2), (3,))
    assert {path: route.reason for path, route in got.items() if route.axes} == {
        "Conv_0/kernel": "hidden matrix",
        "Conv_1/kernel": "depthwise kernel",
        "Dense_0/kernel": "hidden matrix",
        "head/kernel": "output head",
    }


@pytest.mark.parametrize("rank", [3, 4, 5])
def test_convolution_of_every_rank(rank):
    kernel = jax.ShapeDtypeStruct((3,) * (rank - 2) + (4, 6), jnp.float32)
    assert flax_axes("Conv_0/kernel", kernel) == Axes(tuple(range(rank - 1)), (rank - 1,))


def test_linen_experts():
    got = by_path({"MoEMLP_0": shapes(Mixture(), jnp.zeros((1, WIDTH)))})
    stacked = Axes((1,), (2,), (0,))
    assert got["MoEMLP_0/wi_0"].axes == stacked
    assert got["MoEMLP_0/experts/kernel"].axes == stacked
    assert got["MoEMLP_0/experts/bias"].axes is None
    assert got["MoEMLP_0/gate/kernel"].reason == "router"
    assert got["MoEMLP_0/gate_proj/kernel"].label == "matrix"


def test_nnx_model():
    state = nnx.state(nnx.eval_shape(lambda: NnxModel(nnx.Rngs(0))), nnx.Param)
    got = by_path(state)
    assert got["attention/value/kernel"].axes == Axes((0,), (1, 2))
    assert got["attention/out/kernel"].axes == Axes((0, 1), (2,))
    assert got["attention/value/bias"].axes is None
    assert {path: route.reason for path, route in got.items() if route.axes} == {
        "embed/embedding": "embedding",
        "attention/query/kernel": "hidden matrix",
        "attention/key/kernel": "hidden matrix",
        "attention/value/kernel": "hidden matrix",
        "attention/out/kernel": "hidden matrix",
        "layers/0/kernel": "hidden matrix",
        "layers/1/kernel": "hidden matrix",
        "depthwise/kernel": "depthwise kernel",
        "lm_head/kernel": "output head",
    }
    assert jax.tree.structure(matrix_labels(state)) == jax.tree.structure(state)


def test_boxed_and_frozen_leaves_have_the_same_paths():
    boxed = nn.Dense(3, kernel_init=nn.with_partitioning(nn.initializers.ones, (None, "x")))
    params = FrozenDict(shapes(boxed, jnp.zeros((1, 4))))
    assert list(by_path(params)) == ["bias", "kernel"]


@pytest.mark.parametrize(
    ("path", "shape", "axes", "reason"),
    [
        ("blocks/attn/q_proj/kernel", (3, 8, 16), Axes((1,), (2,), (0,)), "hidden matrix"),
        ("layers/0/attn/q_proj/kernel", (8, 2, 4), Axes((0,), (1, 2)), "hidden matrix"),
        ("layers/layer_0/conv/kernel", (3, 8, 8), Axes((0, 1), (2,)), "hidden matrix"),
        ("attn/qkv/kernel", (8, 3, 2, 4), Axes((0,), (2, 3), (1,)), "hidden matrix"),
        ("attn/qkv/kernel", (8, 24), DENSE, "hidden matrix"),
        ("value_conv/value/kernel", (3, 8, 8), Axes((0, 1), (2,)), "hidden matrix"),
        ("Head_0/key/kernel", (8, 4), DENSE, "hidden matrix"),
        ("attention/out/kernel", (8, 8), DENSE, "hidden matrix"),
        ("layers/moe/experts/wi", (2, 4, 8, 16), Axes((2,), (3,), (0, 1)), "hidden matrix"),
        ("blocks/shared_experts/up/kernel", (3, 8, 4), Axes((1,), (2,), (0,)), "hidden matrix"),
        ("blocks/up/kernel", (8, 4), DENSE, "hidden matrix"),
        ("layers/moe/gate/kernel", (2, 8, 4), Axes((1,), (2,), (0,)), "router"),
        ("mlp/gate/kernel", (8, 32), DENSE, "hidden matrix"),
        ("mlp/gate/kernel", (8, 4), DENSE, "router"),
        ("MoERouter_0/kernel", (8, 4), DENSE, "router"),
        ("out/kernel", (8, 4), DENSE, "output head"),
        ("mlp/block/out/kernel", (8, 4), DENSE, "hidden matrix"),
        ("LMHead_0/Dense_0/kernel", (8, 4), DENSE, "output head"),
        ("logits_dense/kernel", (8, 4), DENSE, "output head"),
        ("classifier/kernel", (8, 4), DENSE, "output head"),
        ("pos_embedding", (1, 5, 8), Axes((0, 1), (2,)), "embedding"),
        ("wte/weight", (9, 8), DENSE, "embedding"),
        ("critic/Dense_2/kernel", (8, 1), DENSE, "single row or column"),
        ("blocks/norm/weight", (3, 8), None, "vector or scalar"),
        ("scale", (), None, "vector or scalar"),
        ("unknown", (2, 3, 4, 5, 6), Axes((0, 1, 2, 3), (4,)), "hidden matrix"),
    ],
)
def test_names_and_shapes(path, shape, axes, reason):
    (route,) = routes(fake(**{path: shape}))
    assert (route.axes, route.reason) == (axes, reason)


@pytest.mark.parametrize(
    ("paths", "reason"),
    [
        ({"Embed_0/embedding": (9, 4), "Dense_0/kernel": (4, 9)}, "output head"),
        ({"model/Embed_0/embedding": (9, 4), "Dense_0/kernel": (4, 9)}, "hidden matrix"),
        ({"Embed_0/embedding": (9, 4), "Dense_0/kernel": (5, 9)}, "hidden matrix"),
        ({"pos_embedding": (9, 4), "Dense_0/kernel": (4, 9)}, "hidden matrix"),
        (
            {"Embed_0/embedding": (9, 4), "head/kernel": (4, 9), "Dense_0/kernel": (4, 9)},
            "hidden matrix",
        ),
    ],
)
def test_a_layer_that_mirrors_the_embedding_beside_it_is_the_head(paths, reason):
    assert by_path(fake(**paths))["Dense_0/kernel"].reason == reason


def test_torch_layout():
    shapes = {
        "a/weight": (4, 3),
        "c/weight": (6, 3, 5, 5),
        "c/bias": (6, 1, 1),
        "d/weight": (6, 1, 5, 5),
        "layers/e/weight": (2, 4, 3),
    }
    got = by_path(fake(**shapes), axes=torch_axes)
    assert got["a/weight"].axes == Axes((1,), (0,))
    assert got["c/weight"].axes == Axes((2, 3, 1), (0,))
    assert got["c/bias"].axes is None
    assert got["d/weight"].reason == "depthwise kernel"
    assert got["layers/e/weight"].axes == Axes((2,), (1,), (0,))


def test_one_spec_stands_for_every_matrix_of_its_rank():
    tree = fake(kernel=(3, 4), conv=(2, 3, 4), bias=(3, 4), vector=(3,))
    seen = {path: route.axes for path, route in by_path(tree, axes=Axes((-1,), (-2,))).items()}
    assert seen == {"kernel": Axes((1,), (0,)), "conv": None, "bias": None, "vector": None}


def test_tree_of_specs_may_be_a_prefix_and_hold_every_kind():
    tree = fake(**{"a/x": (3, 4), "a/y": (4,), "b/x": (3, 4), "c/x": (2, 3, 4), "d/query": (2, 3)})
    axes = {
        "a": Axes((1,), (0,)),
        "b": None,
        "c": {"x": MuonDimensionNumbers(reduction_axis=-2, output_axis=(2,))},
        "d": lambda path, leaf: Axes((0,), (1,)) if path.endswith("query") else None,
    }
    seen = {path: route.axes for path, route in by_path(tree, axes=axes).items()}
    assert seen == {
        "a/x": Axes((1,), (0,)),
        "a/y": None,
        "b/x": None,
        "c/x": Axes((1,), (2,), (0,)),
        "d/query": DENSE,
    }


@jax.tree_util.register_dataclass
@dataclass
class Callable:
    """A model as Equinox has it: a tree that can be called."""

    weight: object
    bias: object

    def __call__(self, x):
        raise AssertionError("a tree of specs was taken for a function")


def test_a_callable_tree_of_specs_or_booleans_is_a_tree():
    model = Callable(jnp.ones((4, 3)), jnp.ones(4))
    assert matrix_labels(model, axes=Callable(Axes((1,), (0,)), None)).weight == "matrix"
    assert matrix_labels(model, exclude=Callable(True, False)).weight == "other"


def test_heads_can_be_batch_axes():
    def per_head(path, leaf):
        return Axes((0,), (2,), (1,)) if "query" in path else flax_axes(path, leaf)

    tree = fake(**{"attn/query/kernel": (8, 2, 4), "mlp/kernel": (8, 4)})
    got = by_path(tree, axes=per_head)
    assert got["attn/query/kernel"].axes.matrix_shape((8, 2, 4)) == (2, 8, 4)
    assert got["mlp/kernel"].axes == DENSE


@pytest.mark.parametrize(
    "spec",
    [
        Axes((0,), (1,)),
        Axes((0, 1), (1, 2)),
        Axes((0, 1), (5,)),
        Axes((0, 1), (-4,)),
        MuonDimensionNumbers(0, 3),
    ],
)
@pytest.mark.parametrize("as_tree", [False, True])
def test_a_spec_that_does_not_fit_is_named_with_its_leaf(spec, as_tree):
    axes = {"a": {"b": spec}} if as_tree else lambda path, leaf: spec
    with pytest.raises(ValueError) as error:
        matrix_labels(fake(**{"a/b": (2, 3, 4)}), axes=axes)
    assert all(text in str(error.value) for text in ("'a/b'", "(2, 3, 4)", str(spec)))


def test_a_tree_of_specs_must_cover_every_leaf():
    with pytest.raises(ValueError, match=r"no entry for 'b' of shape \(3, 4\)"):
        matrix_labels(fake(a=(3, 4), b=(3, 4)), axes={"a": None})


@st.composite
def layouts(draw):
    shape = draw(st.lists(st.integers(0, 4), max_size=5))
    order = draw(st.permutations(range(len(shape))))
    cuts = sorted(draw(st.tuples(*[st.integers(0, len(shape))] * 2)))
    signed = [axis - len(shape) * draw(st.booleans()) for axis in order]
    batch, inputs, outputs = np.split(np.array(signed, int), cuts)
    spec = Axes(*(tuple(map(int, group)) for group in (inputs, outputs, batch)))
    return tuple(shape), spec


@given(layouts())
def test_to_matrix_round_trip(layout):
    shape, spec = layout
    leaf = np.arange(math.prod(shape)).reshape(shape)
    matrix = spec.to_matrix(leaf)
    assert matrix.shape == spec.matrix_shape(shape)
    assert len(matrix.shape) == len(spec.batch) + 2
    np.testing.assert_array_equal(spec.from_matrix(matrix, shape), leaf)


def test_to_matrix_contracts_inputs_into_outputs():
    kernel = np.arange(24.0).reshape(2, 3, 4)
    x = np.arange(6.0).reshape(2, 3)
    flat = x.reshape(-1) @ Axes((0, 1), (2,)).to_matrix(kernel)
    np.testing.assert_array_equal(flat, np.einsum("hk,hkd->d", x, kernel))


def test_map_with_axes_passes_other_trees_and_skips_what_is_masked():
    tree = {"a": jnp.ones((2, 3)), "b": optax.MaskedNode(), "c": None, "d": jnp.ones(2)}
    other = {"a": 1, "b": optax.MaskedNode(), "c": None, "d": 2}
    got = map_with_axes(lambda axes, leaf, n: (axes and axes.output, n), None, tree, other)
    assert got == {"a": ((1,), 1), "b": optax.MaskedNode(), "c": None, "d": (None, 2)}


def test_labels_in_a_jitted_partition():
    params = {"mlp": {"kernel": jnp.ones((3, 3)), "bias": jnp.ones(3)}, "nothing": None}
    tx = optax.partition({"matrix": optax.scale(2.0), "other": optax.scale(3.0)}, matrix_labels)
    updates, _ = jax.jit(tx.update)(params, tx.init(params))
    assert updates["mlp"]["kernel"][0, 0] == 2.0
    assert updates["mlp"]["bias"][0] == 3.0


TREE = fake(**{"embed/embedding": (9, 8), "Dense_0/kernel": (8, 8), "Dense_1/kernel": (8, 5)})


@pytest.mark.parametrize(
    "selection",
    [
        "Dense_1",
        ["Dense_1", "embed"],
        {"embed": True, "Dense_0": False, "Dense_1": {"kernel": True}},
        lambda params: jax.tree.map(lambda leaf: leaf.shape != (8, 8), params),
    ],
)
def test_exclude_in_every_form(selection):
    labels = matrix_labels(TREE, exclude=selection)
    assert labels["Dense_0"]["kernel"] == "matrix"
    assert labels["Dense_1"]["kernel"] == "other"


def test_include_overrules_names_and_exclude_overrules_include():
    assert by_path(TREE, include="embed")["embed/embedding"].reason == "included"
    got = by_path(TREE, include="embed", exclude="embedding$")
    assert got["embed/embedding"].label == "other"
    biases = fake(**{"Dense_0/bias": (8,)})
    assert by_path(biases, include="bias")["Dense_0/bias"].label == "other"


@pytest.mark.parametrize("argument", ["include", "exclude"])
def test_a_pattern_that_matches_nothing_is_an_error(argument):
    with pytest.raises(ValueError, match=f"{argument}: 'dense_1'.*nearest.*Dense_1/kernel"):
        matrix_labels(TREE, **{argument: "dense_1"})
    masked = {**TREE, "Dense_1": optax.MaskedNode()}
    assert matrix_labels(masked, **{argument: "dense_1"})["Dense_1"] == optax.MaskedNode()


def lines(text):
    return {line.split()[0]: line for line in text.splitlines() if line}


def test_describe_reads_groups_and_bytes_off_the_state():
    tx = optax.partition({"matrix": optax.sgd(1.0), "other": optax.adam(1.0)}, matrix_labels)
    table = lines(describe(optax.chain(optax.clip(1.0), tx), TREE))
    assert table["Dense_0/kernel"].split() == (
        "Dense_0/kernel (8, 8) float32 matrix 8 × 8 0 hidden matrix".split()
    )
    assert table["embed/embedding"].split() == (
        "embed/embedding (9, 8) float32 other 9 × 8 576 embedding".split()
    )
    assert table["other:"] == "other: leaves 2, numbers 112, state bytes 896"


def test_describe_says_when_its_reason_was_overruled():
    tx = optax.partition(
        {"matrix": optax.trace(0.9), "other": optax.adam(1.0)},
        lambda params: matrix_labels(params, exclude="Dense_0"),
    )
    assert lines(describe(tx, TREE))["Dense_0/kernel"].endswith("overruled")
    assert lines(describe(tx, TREE, exclude="Dense_0"))["Dense_0/kernel"].endswith("excluded")


def test_describe_without_partition_and_without_transformation():
    assert lines(describe(optax.adam(1.0), TREE))["all:"].endswith("state bytes 1,408")
    stacked = fake(**{"layers/kernel": (3, 4, 5)})
    assert "3 of 4 × 5" in describe(None, stacked)
    assert describe(optax.adam(1.0), {}).startswith("leaf")


def test_describe_tells_leaves_with_equal_names_apart():
    params = {"a": jnp.ones(2), "b": {"a": jnp.ones(3)}}
    table = lines(describe(optax.trace(0.9), params))
    assert table["a"].split()[-1] == "8"
    assert table["b/a"].split()[-1] == "12"
