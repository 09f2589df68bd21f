"""Rates that carry over between widths: the factors, and what they do to a network."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optzoo
from optzoo import primitives as zoo
from optzoo.testing import coordinate_check

INPUTS, CLASSES, BASE, STEPS, RATE = 5, 3, 16, 3, 0.02


def shapes(width, outer=None):
    kernels = [(INPUTS, width), (width, outer or width), (outer or width, CLASSES)]
    return {
        f"layer_{i}": {
            "kernel": jax.ShapeDtypeStruct(kernel, jnp.float32),
            "bias": jax.ShapeDtypeStruct(kernel[1:], jnp.float32),
        }
        for i, kernel in enumerate(kernels)
    }


def factors(tree, *arguments, **options):
    ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), tree)
    tx = optzoo.scale_by_width(*arguments, **options)
    updates, _ = tx.update(ones, tx.init(ones))
    return jax.tree.map(lambda leaf: float(leaf.ravel()[0]), updates)


def rows(tree):
    return [[layer["kernel"], layer["bias"]] for layer in tree.values()]


def test_each_rule_has_its_factors():
    wide, narrow = shapes(32), shapes(8)
    assert rows(factors(wide, narrow)) == [[1, 1], [0.25, 1], [1, 1]]
    assert rows(factors(wide, narrow, inverse=True)) == [[1, 1], [4, 1], [1, 1]]
    assert rows(factors(wide, narrow, "sgd")) == [[4, 4], [1, 4], [4, 1]]
    assert rows(factors(shapes(8, 32), narrow, "sgd", other_shapes=wide)) == [
        [1, 1],
        [4, 4],
        [4, 1],
    ]
    orthogonal = factors(shapes(8, 32), narrow, "orthogonal", other_shapes=wide)
    assert rows(orthogonal) == [[1, 1], [2, 1], [1, 1]]
    assert rows(factors(narrow, narrow, "sgd")) == [[1, 1]] * 3


def test_another_width_tells_what_equal_sizes_hide():
    # Twice the inputs and as many outputs: a head, unless another width changes both.
    kernel = {"a": jax.ShapeDtypeStruct((16, 8), jnp.float32)}
    base = {"a": jax.ShapeDtypeStruct((8, 8), jnp.float32)}
    other = {"a": jax.ShapeDtypeStruct((4, 4), jnp.float32)}
    assert factors(kernel, base) == {"a": 1}
    assert factors(kernel, base, other_shapes=other) == {"a": 0.5}


def test_layers_heads_and_layout_are_read_from_the_axes():
    stacked = {"layers": {"kernel": jax.ShapeDtypeStruct((3, 16, 16), jnp.float32)}}
    base = {"layers": {"kernel": jax.ShapeDtypeStruct((3, 8, 4), jnp.float32)}}
    assert factors(stacked, base) == {"layers": {"kernel": 0.5}}
    assert factors(stacked, base, axes=optzoo.torch_axes) == {"layers": {"kernel": 0.25}}
    query = {"query": {"kernel": jax.ShapeDtypeStruct((16, 4, 4), jnp.float32)}}
    narrow = {"query": {"kernel": jax.ShapeDtypeStruct((8, 2, 4), jnp.float32)}}
    assert factors(query, narrow, "sgd") == {"query": {"kernel": 1}}


def test_a_base_that_does_not_fit_is_refused():
    wide = shapes(8)
    with pytest.raises(ValueError, match="base_shapes: no entry for 'layer_1/bias'"):
        factors(
            wide, {"layer_0": wide["layer_0"], "layer_1": {"kernel": wide["layer_1"]["kernel"]}}
        )
    with pytest.raises(ValueError, match=r"base_shapes: a leaf of shape \(8,\) has another rank"):
        factors({"b": wide["layer_0"]["bias"]}, {"b": wide["layer_0"]["kernel"]})


def test_heads_alone_are_divided_and_start_larger():
    ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), shapes(32))
    for function, factor in ((optzoo.width_readout, 1 / 4), (optzoo.width_init, 2)):
        made = jax.tree.map(lambda leaf: float(leaf.ravel()[0]), function(ones, shapes(8)))
        assert rows(made) == [[1, 1], [1, 1], [factor, 1]]


def network(params, x):
    seen = {}
    for i in range(2):
        layer = params[f"layer_{i}"]
        x = seen[f"layer_{i}"] = jnp.tanh(x @ layer["kernel"] + layer["bias"][None])
    head = params["layer_2"]
    seen["head"] = x @ head["kernel"] + head["bias"][None]
    return seen


def trained(scaled):
    """A function of the width that trains a network, in µP or in the usual way."""
    x = jax.random.normal(jax.random.key(1), (32, INPUTS))
    labels = jnp.arange(32) % CLASSES

    def train(width):
        key = jax.random.key(0)
        params = jax.tree.map(
            lambda leaf: (
                jax.random.normal(key, leaf.shape) / np.sqrt(leaf.shape[0])
                if len(leaf.shape) == 2
                else jnp.zeros(leaf.shape)
            ),
            shapes(width),
        )
        readout, direction = lambda params: params, zoo.adam()
        if scaled:
            params = optzoo.width_init(params, shapes(BASE))
            readout = partial(optzoo.width_readout, base_shapes=shapes(BASE))
            direction = optax.chain(direction, optzoo.scale_by_width(shapes(BASE)))
        tx = optax.chain(direction, optax.scale(-RATE))

        def loss(params):
            outputs = network(readout(params), x)["head"]
            return optax.softmax_cross_entropy_with_integer_labels(outputs, labels).mean()

        @jax.jit
        def step(params, state):
            updates, state = tx.update(jax.grad(loss)(params), state, params)
            return optax.apply_updates(params, updates), state

        state = tx.init(params)
        yield network(readout(params), x)
        for _ in range(STEPS):
            params, state = step(params, state)
            yield network(readout(params), x)

    return train


def test_the_coordinate_check_passes_with_widths_and_fails_without():
    widths = [64, 256, 1024]
    check = coordinate_check(trained(scaled=True), widths)
    assert not check.off, check
    assert check.sizes["head"].shape == (STEPS + 1, 3)
    usual = coordinate_check(trained(scaled=False), widths)
    assert usual.off["head"] > 0.4
    assert "head: " in str(usual) and str(usual).endswith("is off")
    with pytest.raises(ValueError, match="widths must be two or more"):
        coordinate_check(trained(scaled=True), [8])
    with pytest.raises(ValueError, match="the same activations in every width"):
        coordinate_check(lambda width: [{str(width): jnp.ones(2)}], [8, 16])
