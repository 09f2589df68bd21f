"""Routing on parameter trees of real models, by what their leaves prove of one another."""

import json
import warnings
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import optzoo
from optzoo.describe import describe
from optzoo.primitives import evidence
from optzoo.primitives.axes import Axes, flax_axes, map_with_axes, torch_axes
from optzoo.primitives.labels import RoutingWarning, matrix_labels, routes
from optzoo.primitives.obstacles import GUESSED_HEAD
from optzoo.primitives.routing import split_matrices

MODELS = sorted(Path(__file__).parent.joinpath("routing").glob("*.json"))
STACKED = Axes((0,), (2,), (1,))


def fake(leaves):
    """A tree of shapes from paths: {"a/b": (2, 3)}."""
    tree = {}
    for path, shape in leaves.items():
        *modules, name = path.split("/")
        node = tree
        for module in modules:
            node = node.setdefault(module, {})
        node[name] = jax.ShapeDtypeStruct(tuple(shape), jnp.float32)
    return tree


def routed(leaves, **arguments):
    return {route.path: route for route in routes(fake(leaves), **arguments)}


def long_axes(axes, shape):
    """The groups of axes without order and without axes of length 1, which do not matter."""
    return [{axis for axis in group if shape[axis] > 1} for group in axes]


@pytest.mark.parametrize("file", MODELS, ids=lambda file: file.stem)
def test_every_leaf_of_a_real_model_goes_where_it_belongs(file):
    model = json.loads(file.read_text("utf-8"))
    axes = torch_axes if model["layout"] == "torch" else None
    found = routed({leaf["path"]: leaf["shape"] for leaf in model["leaves"]}, axes=axes)
    assert len(found) == len(model["leaves"]) > 0
    for leaf in model["leaves"]:
        route, shape = found[leaf["path"]], leaf["shape"]
        assert not route.doubt or route.reason == GUESSED_HEAD
        if not leaf["either"]:
            assert route.label == leaf["group"], leaf["path"]
        if route.label == "matrix" and leaf["input"]:
            got = route.axes.resolved(len(shape))
            groups = long_axes((got.input, got.output, got.batch), shape)
            assert groups == long_axes((leaf["input"], leaf["output"], leaf["batch"]), shape)


@pytest.mark.parametrize(
    ("path", "leaves", "axes"),
    [
        # A second axis of a norm proves a stack; without it, conventions of names hold.
        ("b/w/kernel", {"b/w/kernel": (3, 4, 5), "b/norm/scale": (3, 4)}, Axes((1,), (2,), (0,))),
        ("b/w/kernel", {"b/w/kernel": (4, 3, 5), "b/o": (5, 3, 4), "b/norm/scale": (4, 3)},
         STACKED),
        ("layers/conv/kernel", {"layers/conv/kernel": (3, 4, 5), "layers/conv/bias": (5,)},
         Axes((0, 1), (2,))),
        ("b/w/kernel", {"b/w/kernel": (2, 3, 4, 5), "b/norm/scale": (2, 3, 4)},
         Axes((2,), (3,), (0, 1))),
        # A bias shows the outputs, and stacks.
        ("w/kernel", {"w/kernel": (4, 6), "w/bias": (4,)}, Axes((1,), (0,))),
        ("e/kernel", {"e/kernel": (3, 4, 5), "e/bias": (3, 5)}, Axes((1,), (2,), (0,))),
        ("up_conv/kernel", {"up_conv/kernel": (2, 2, 8, 4), "up_conv/bias": (8,)},
         Axes((0, 1, 3), (2,))),
        ("a/w/kernel", {"a/w/kernel": (4, 4), "a/v/kernel": (6, 4), "a/v/bias": (6,)},
         Axes((1,), (0,))),
        # The size of the norms is what projections read.
        ("attn/q_einsum/w", {"attn/q_einsum/w": (2, 8, 4), "norm/scale": (8,)},
         Axes((1,), (0, 2))),
        ("attn/kv_einsum/w", {"attn/kv_einsum/w": (2, 1, 8, 4), "norm/scale": (8,)},
         Axes((2,), (1, 3), (0,))),
        ("mlp/gating_einsum", {"mlp/gating_einsum": (2, 16, 8), "norm/scale": (8,)},
         Axes((2,), (1,), (0,))),
        ("attn/o/w", {"attn/o/w": (8, 2, 4), "norm/scale": (8,)}, Axes((1, 2), (0,))),
        ("attn/query/kernel", {"attn/query/kernel": (8, 3, 4, 2), "norm/scale": (8,)},
         Axes((0,), (1, 2, 3))),
        ("mlp/wi_fused/kernel", {"mlp/wi_fused/kernel": (8, 2, 16), "norm/scale": (8,)},
         Axes((0,), (2,), (1,))),
    ],
)  # fmt: skip
def test_what_the_neighbours_of_a_leaf_prove_of_its_axes(path, leaves, axes):
    assert routed(leaves)[path].axes == axes


@pytest.mark.parametrize(
    ("path", "leaves", "reason"),
    [
        # Nobody makes or reads what a head puts out; the highest number of its kind is last.
        ("l2/kernel", {"l1/kernel": (8, 6), "l2/kernel": (6, 3)}, "hidden matrix"),
        ("fc2/kernel", {"fc1/kernel": (8, 6), "fc2/kernel": (6, 3)}, "output head (last layer)"),
        ("fc1/kernel", {"fc1/kernel": (8, 6), "fc2/kernel": (6, 3)}, "hidden matrix"),
        ("fc2/kernel", {"fc1/kernel": (8, 6), "fc2/kernel": (6, 6)}, "hidden matrix"),
        ("fc/kernel", {"fc/kernel": (8, 6)}, "hidden matrix"),
        ("w2", {"w1": (8, 6), "b1": (6,), "w2": (6, 3), "b2": (3,)}, "output head (last layer)"),
        ("2/0", {"0/0": (8, 6), "0/1": (6,), "2/0": (6, 3), "2/1": (3,)},
         "output head (last layer)"),
        ("lstm/linear/w", {"lstm/linear/w": (9, 32), "out_net/linear/w": (8, 5)}, "hidden matrix"),
        # A head may have hidden layers of its own.
        ("lm_head/dense/kernel",
         {"lm_head/dense/kernel": (8, 8), "lm_head/decoder/kernel": (8, 30)}, "hidden matrix"),
        ("pre_logits/kernel", {"pre_logits/kernel": (8, 8), "head/kernel": (8, 3)},
         "hidden matrix"),
        # Names that mislead.
        ("time_embedding/linear_1/kernel",
         {"time_embedding/linear_1/kernel": (8, 16), "time_embedding/linear_1/bias": (16,)},
         "hidden matrix"),
        ("ssm/A_log", {"ssm/A_log": (8, 4)}, "state-space parameter"),
        ("rnn/weight/0", {"rnn/weight/0": (8, 4), "rnn/bias/0": (8,)}, "hidden matrix"),
        ("rnn/bias/0", {"rnn/bias/0": (8, 4)}, "vector or scalar"),
        ("attn/query_w", {"attn/query_w": (8, 2, 4), "attn/query_b": (2, 4)}, "hidden matrix"),
        ("attn/query_b", {"attn/query_w": (8, 2, 4), "attn/query_b": (2, 4)}, "vector or scalar"),
    ],
)  # fmt: skip
def test_what_the_neighbours_of_a_leaf_prove_of_its_group(path, leaves, reason):
    assert routed(leaves)[path].reason == reason


class Annotated(nn.Module):
    """A scanned layer whose axes have names, in an order that its shapes do not tell."""

    @nn.compact
    def __call__(self, x):
        def named(*names):
            return nn.with_logical_partitioning(nn.initializers.ones, names)

        self.param("mix", named("heads", "layers", "embed", "kv"), (2, 3, 4, 4))
        self.param("lookup", named("vocab", "embed"), (9, 4))
        return x


def test_linen_boxes_name_the_axes():
    params = jax.eval_shape(Annotated().init, jax.random.key(0), jnp.ones(1))["params"]
    mix, lookup = sorted(routes(params), key=lambda route: route.path, reverse=True)
    assert mix.axes == Axes((2,), (0, 3), (1,))
    assert (lookup.path, lookup.reason) == ("lookup", "embedding")


def test_nnx_variables_name_the_axes():
    kernel = nnx.Param(
        jnp.ones((4, 3, 5)), out_sharding=("embed", "layers", "mlp"), eager_sharding=False
    )
    (route,) = routes(nnx.State({"up": {"kernel": kernel}}))
    assert (route.path, route.axes) == ("up/kernel", STACKED)


UNKNOWN = {"mystery/kernel": (2, 3, 4), "other/kernel": (4, 4)}


@pytest.fixture
def nothing_said(monkeypatch):
    monkeypatch.setattr("optzoo.primitives.labels._SAID", set())


@pytest.mark.usefixtures("nothing_said")
def test_a_guess_is_said_once_and_shown_by_describe():
    tree = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), fake(UNKNOWN))
    tx = optzoo.muon()
    with pytest.warns(
        RoutingWarning, match=r"'mystery/kernel' of shape \(2, 3, 4\).*`axes`"
    ) as seen:
        state = tx.init(tree)
        updates, state = jax.jit(tx.update)(tree, state, tree)
        tx.update(updates, state, tree)
        matrix_labels(tree)
    assert len(seen) == 1
    assert "hidden matrix? the last axis is taken for the output" in describe(None, tree)


@pytest.mark.usefixtures("nothing_said")
@pytest.mark.parametrize(
    ("leaves", "group", "said", "settled"),
    [
        # A head that no other layer of its kind leads to, and a stack of a single leaf.
        ({"conv/kernel": (3, 3, 3, 8), "Dense_0/kernel": (8, 5)}, "other",
         r"'Dense_0/kernel' of shape \(8, 5\): no other leaf .*`exclude` confirms .*`include`",
         [{"exclude": "Dense_0"}, {"include": "Dense_0"}]),
        ({"layers/kernel": (3, 4, 5)}, "matrix",
         r"'layers/kernel' of shape \(3, 4, 5\): its first axis .* a name alone; `axes`",
         [{"axes": STACKED}]),
    ],
)  # fmt: skip
def test_a_weak_hint_is_said_with_what_settles_it(leaves, group, said, settled):
    path = list(leaves)[-1]
    with pytest.warns(RoutingWarning, match=said) as seen:
        for _ in range(2):
            matrix_labels(fake(leaves))
    assert len(seen) == 1
    assert routed(leaves)[path].label == group
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for arguments in settled:
            matrix_labels(fake(leaves), **arguments)
        # A second leaf or layer bears the hint out.
        other = {"layers/other": (3, 5, 4)} if group == "matrix" else {"Dense_1/kernel": (5, 2)}
        matrix_labels(fake({**leaves, **other}))


@pytest.mark.usefixtures("nothing_said")
@pytest.mark.parametrize(
    "settled",
    [
        {"axes": lambda path, leaf: flax_axes(path, leaf)},
        {"axes": {"mystery": Axes((1,), (2,), (0,)), "other": Axes((0,), (1,))}},
        {"exclude": "mystery"},
    ],
)
def test_no_warning_where_the_user_has_settled_it(settled):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        matrix_labels(fake(UNKNOWN), **settled)


@pytest.mark.parametrize("rule", [optzoo.muon, optzoo.adago])
def test_a_rule_sees_the_axes_that_norms_prove_although_norms_go_elsewhere(rule):
    shapes = {
        "b/norm/scale": (4, 3),
        "b/up/kernel": (4, 3, 8),
        "b/down/kernel": (8, 3, 4),
        "b/attn/q_einsum/kernel": (2, 3, 4, 2),
    }
    leaves = jax.tree.leaves(fake(shapes))
    numbers = np.random.default_rng(0)
    drawn = [jnp.asarray(numbers.normal(size=leaf.shape), jnp.float32) for leaf in leaves]
    params = jax.tree.unflatten(jax.tree.structure(fake(shapes)), drawn)
    explicit = {
        "b": {
            "norm": None,
            "up": STACKED,
            "down": STACKED,
            "attn": Axes((2,), (0, 3), (1,)),
        }
    }
    results = []
    for axes in (None, explicit):
        tx = rule(axes=axes, momentum=0.5)
        updates, state = tx.update(params, tx.init(params), params)
        results.append((updates, state))
    jax.tree.map(np.testing.assert_array_equal, *results)
    masked = optax.masked(rule(), {"b": {**dict.fromkeys(explicit["b"], True), "down": False}})
    masked.update(params, masked.init(params), params)


def test_split_takes_an_optimizer_that_knows_its_axes():
    seen = {}

    def matrices(axes):
        return optax.stateless(
            lambda updates, _: map_with_axes(
                lambda spec, leaf: seen.setdefault(leaf.shape, spec) and leaf, axes, updates
            )
        )

    params = {
        "norm": {"scale": jnp.ones((4, 3))},
        "w": jnp.ones((4, 3, 5)),
        "o": jnp.ones((5, 3, 4)),
    }
    tx = split_matrices(matrices, optax.identity())
    tx.update(params, tx.init(params))
    assert seen == {(4, 3, 5): STACKED, (5, 3, 4): STACKED}


def test_a_tree_is_judged_once():
    leaves = {f"blocks_{n}/Dense_{m}/kernel": (4, 4) for n in range(20) for m in range(5)}
    evidence.judge.cache_clear()
    for _ in range(3):
        matrix_labels(fake(leaves))
    assert evidence.judge.cache_info().misses == 1
