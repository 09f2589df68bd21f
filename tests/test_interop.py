"""Other libraries' models and training states give what a plain Optax loop gives."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState
from subjects import ONE_EACH, answered, factory

import optzoo
from optzoo.registry import Trait

STEPS = 3
SHAPED = [
    name
    for name, entry in optzoo.REGISTRY.optimizers.items()
    if "axes" in entry.signature.parameters
]


def random_like(tree, seed):
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return jax.tree.unflatten(
        structure,
        [jax.random.normal(key, x.shape, x.dtype) for key, x in zip(keys, leaves, strict=True)],
    )


PARAMS = random_like(
    {
        "dense": {"kernel": jnp.zeros((4, 6)), "bias": jnp.zeros(6)},
        "head": {"kernel": jnp.zeros((6, 3)), "bias": jnp.zeros(3)},
    },
    seed=0,
)
GRADS = [random_like(PARAMS, seed) for seed in range(1, STEPS + 1)]


def build(name, **options):
    entry = optzoo.get(name)
    return answered(factory(entry, STEPS)(**options), entry)


@functools.cache
def plain(name):
    """The parameters after a plain Optax loop, and those to evaluate."""
    return by_hand(build(name), PARAMS, GRADS)


def by_hand(tx, params, grads):
    @jax.jit
    def step(params, state, g):
        updates, state = tx.update(g, state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for g in grads:
        params, state = step(params, state, g)
    return params, optzoo.eval_params(state, params)


class Model(nnx.Module):
    def __init__(self):
        self.dense = nnx.Linear(4, 6, rngs=nnx.Rngs(0))
        self.head = nnx.Linear(6, 3, rngs=nnx.Rngs(0))


def by_nnx(tx):
    model = Model()
    nnx.update(model, PARAMS)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, grads):
        optimizer.update(model, grads)

    for grads in GRADS:
        boxed = nnx.state(model, nnx.Param)
        nnx.replace_by_pure_dict(boxed, grads)
        step(model, optimizer, boxed)
    params = nnx.state(model, nnx.Param)
    evaluated = optzoo.eval_params(optimizer.opt_state, params)
    return nnx.to_pure_dict(params), nnx.to_pure_dict(evaluated)


def by_train_state(tx):
    state = TrainState.create(apply_fn=None, params=PARAMS, tx=tx)
    step = jax.jit(lambda state, grads: state.apply_gradients(grads=grads))
    for grads in GRADS:
        state = step(state, grads)
    return state.params, optzoo.eval_params(state.opt_state, state.params)


def by_multi_steps(tx):
    """Every gradient arrives as two halves that differ."""
    tx = optax.MultiSteps(tx, every_k_schedule=2).gradient_transformation()
    halves = [jax.tree.map(lambda g, s=share: s * g, g) for g in GRADS for share in (0.5, 1.5)]
    # Optax multiplies floats by integers here.
    with jax.numpy_dtype_promotion("standard"):
        return by_hand(tx, PARAMS, halves)


# The kit has every rule under `nnx` and in `MultiSteps`; here they meet on one model.
@pytest.mark.parametrize("way", [by_nnx, by_train_state, by_multi_steps])
@pytest.mark.parametrize("name", ONE_EACH)
def test_training_states_give_what_a_plain_loop_gives(name, way):
    for ours, theirs in zip(way(build(name)), plain(name), strict=True):
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), ours, theirs
        )


class Convolutional(eqx.Module):
    conv: eqx.nn.Conv2d
    dense: eqx.nn.Linear
    head: eqx.nn.Linear

    def __init__(self, key):
        first, second, third = jax.random.split(key, 3)
        self.conv = eqx.nn.Conv2d(2, 4, 3, key=first)
        self.dense = eqx.nn.Linear(4, 6, key=second)
        self.head = eqx.nn.Linear(6, 3, key=third)

    def __call__(self, image):
        x = jax.nn.relu(self.conv(image)).mean(axis=(1, 2))
        return self.head(jax.nn.relu(self.dense(x)))


def as_flax(model):
    """An Equinox model's arrays, or gradients, in Flax's names and layout."""

    def layer(module):
        weight = jnp.moveaxis(module.weight, (0, 1), (-1, -2))
        return {"kernel": weight, "bias": module.bias.reshape(-1)}

    return {name: layer(getattr(model, name)) for name in ("conv", "dense", "head")}


def tangent(grads, params):
    """Gradients orthogonal to the weights of each output, as under a norm, for AdamP to act on."""

    def project(g, p):
        g, rows = g.reshape(len(p), -1), p.reshape(len(p), -1)
        along = jnp.sum(g * rows, 1, keepdims=True) / jnp.sum(rows * rows, 1, keepdims=True)
        return (g - along * rows).reshape(p.shape)

    return jax.tree.map(project, grads, params)


@pytest.mark.parametrize("name", SHAPED)
def test_equinox_layout_gives_what_flax_layout_gives(name):
    model = eqx.filter(Convolutional(jax.random.key(0)), eqx.is_array)
    grads = [tangent(random_like(model, seed), model) for seed in range(1, STEPS + 1)]
    ours, _ = by_hand(build(name, axes=optzoo.torch_axes), model, grads)
    theirs, _ = by_hand(build(name), as_flax(model), [as_flax(g) for g in grads])
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), as_flax(ours), theirs
    )


def test_equinox_trains_and_evaluates():
    model = Convolutional(jax.random.key(0))
    params, static = eqx.partition(model, eqx.is_inexact_array)
    rate = 0.2
    base = optzoo.muon(rate, momentum=0.0, nesterov=False, axes=optzoo.torch_axes)
    tx = optzoo.schedule_free(base, rate)
    images = jax.random.normal(jax.random.key(1), (16, 2, 5, 5))
    labels = jnp.arange(16) % 3

    def loss(params):
        scores = jax.vmap(eqx.combine(params, static))(images)
        return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()

    @eqx.filter_jit
    def step(params, state):
        updates, state = tx.update(eqx.filter_grad(loss)(params), state, params)
        return eqx.apply_updates(params, updates), state

    start, state = loss(params), tx.init(params)
    for _ in range(60):
        params, state = step(params, state)
    assert loss(optzoo.eval_params(state, params)) < 0.5 * start


@pytest.mark.parametrize("name", SHAPED)
def test_haiku_names_mean_what_flax_names_mean(name):
    """Haiku keeps {"mlp/~/linear_0": {"w": (in, out), "b": (out,)}}."""

    def haiku(tree):
        return {
            f"net/~/{module}": {"w": leaves["kernel"], "b": leaves["bias"]}
            for module, leaves in tree.items()
        }

    ours, evaluated = by_hand(build(name), haiku(PARAMS), [haiku(g) for g in GRADS])
    theirs, expected = plain(name)
    jax.tree.map(np.testing.assert_array_equal, ours, haiku(theirs))
    jax.tree.map(np.testing.assert_array_equal, evaluated, haiku(expected))


def test_haiku_routing_reads_its_names():
    params = {
        "net/~/linear_0": {"w": jnp.zeros((4, 6)), "b": jnp.zeros(6)},
        "net/~/embed": {"embeddings": jnp.zeros((9, 4))},
        "net/~/logits": {"w": jnp.zeros((6, 3)), "b": jnp.zeros(3)},
    }
    assert optzoo.matrix_labels(params) == {
        "net/~/linear_0": {"w": "matrix", "b": "other"},
        "net/~/embed": {"embeddings": "other"},
        "net/~/logits": {"w": "other", "b": "other"},
    }


def test_the_rules_that_read_layout_say_so():
    claimed = {
        name for name, entry in optzoo.REGISTRY.optimizers.items() if Trait.SHAPED in entry.traits
    }
    assert claimed >= set(SHAPED)


@pytest.mark.parametrize("bias", [True, False])
def test_torch_layers_have_the_layout_of_torch_axes(bias):
    """What the migration table says: (out, in), convolutions (out, in, spatial…)."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    layers = {
        "linear": (torch.nn.Linear(3, 5, bias=bias), (3, 5)),
        "conv1d": (torch.nn.Conv1d(3, 5, 2, bias=bias), (6, 5)),
        "conv2d": (torch.nn.Conv2d(3, 5, 2, bias=bias), (12, 5)),
    }
    for name, (layer, (inputs, outputs)) in layers.items():
        leaves = {
            f"{name}/{key}": value.detach().numpy() for key, value in layer.named_parameters()
        }
        for path, leaf in leaves.items():
            axes = optzoo.torch_axes(path, leaf)
            if path.endswith("weight"):
                assert axes is not None
                assert axes.matrix_shape(leaf.shape) == (inputs, outputs)
            else:
                assert axes is None
