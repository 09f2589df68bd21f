"""What asks more of a step than its gradient: models of the loss, surrogates, inputs of a layer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from golden.replay import CASES, build, deviation, hidden, load

import optzoo
from optzoo import primitives

SURROGATES = [name for name in CASES if name.startswith("sso")]
WHITENED = [name for name in CASES if name.startswith("tract")]
STEEP = jnp.array([1.0, 30.0])
START = {"w": jnp.array([1.0, 1.0]), "still": jnp.zeros(2)}


def bowl(params):
    return jnp.sum(STEEP * params["w"] ** 2) / 2


def lowered(tx, steps=40):
    """The losses along a run on a bowl thirty times steeper one way."""

    def step(carry, _):
        params, state = carry
        value, gradients = jax.value_and_grad(bowl)(params)
        updates, state = tx.update(gradients, state, params, value=value, value_fn=bowl)
        return (optax.apply_updates(params, updates), state), value

    return jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), length=steps)[1])(START)


@pytest.mark.parametrize("options", [{}, {"independent_batch": True}])
def test_the_model_makes_rates_safe_that_are_too_large(options):
    assert not lowered(optax.with_extra_args_support(optax.sgd(0.5)))[-1] < 1e6
    losses = lowered(optzoo.smb(0.5, **options))
    assert np.isfinite(losses).all() and losses[-1] < 1e-2 * losses[0]


def test_where_trials_pass_it_is_descent():
    plain = lowered(optax.with_extra_args_support(optax.sgd(0.01)))
    np.testing.assert_allclose(lowered(optzoo.smb(0.01)), plain, rtol=1e-6)


def test_the_rate_falls_where_the_model_is_often_needed_and_rises_elsewhere():
    for rate, scale in ((0.5, 0.9), (0.01, 1 / 0.9)):
        tx = optzoo.smb(rate, n_batches_per_epoch=2)
        state = tx.init(START)
        for _ in range(2):
            _, state = tx.update(
                jax.grad(bowl)(START), state, START, value=bowl(START), value_fn=bowl
            )
        assert float(optax.tree.get(state, "scale")) == pytest.approx(scale)


@pytest.mark.parametrize("name", SURROGATES)
def test_surrogate_steps_lead_where_they_were_recorded(name):
    case, arrays = CASES[name], load(name)
    take = build(case["optzoo"], {})

    def step(params, inputs):
        batch, rate = inputs
        params = take(
            params,
            lambda p: hidden(batch["x"], p),
            lambda z: jnp.mean((z - batch["y"]) ** 2),
            rate=rate,
        )
        return params, params

    with jax.enable_x64(True):
        start, data = jax.tree.map(jnp.asarray, (arrays["params0"], arrays["data"]))
        count = jnp.arange(1, len(data["x"]) + 1, dtype=float)
        eta = case["eta"] * (jnp.sqrt(count) if case["rising"] else jnp.ones_like(count))
        run = jax.jit(lambda p, xs: jax.lax.scan(step, p, xs)[1])
        found = jax.tree.map(np.asarray, run(start, (data, 1 / (2 * eta))))
    parted = deviation(found, arrays["params"], arrays["params0"], 2e-14)
    assert max(np.max(part) for part in parted.values()) <= 1e-10


def test_a_surrogate_is_lowest_where_the_outputs_have_taken_their_step():
    loss = primitives.target_surrogate(lambda p: 3 * p, lambda z: jnp.sum(z**2), jnp.ones(2), 0.1)
    # Outputs 3 with gradient 6: 3 − 0.1·6 = 2.4.
    np.testing.assert_allclose(jax.grad(loss)(jnp.full(2, 0.8)), 0, atol=1e-6)


def test_a_leaf_whose_squares_underflow_is_modelled_beside_others():
    def loss(params):
        return sum(jnp.sum(x**2) for x in params.values())

    tx, params = optzoo.smb(), {"large": jnp.ones(2), "tiny": jnp.full(2, 1e-20)}
    given = {"value": loss(params), "value_fn": loss}
    step = jax.jit(lambda g: tx.update(g, tx.init(params), params, **given)[0])
    updates = step(jax.grad(loss)(params))
    np.testing.assert_allclose(updates["tiny"] * 1e20, updates["large"], rtol=1e-5)


@pytest.mark.parametrize("name", WHITENED)
def test_whitened_first_layers_lead_where_they_were_recorded(name):
    case, arrays = CASES[name], load(name)
    tx, whiten = build(case["optzoo"], {}), build(case["whiten"], {})
    order = {2: (1, 0), 4: (2, 3, 1, 0)}[arrays["params0"]["weight"].ndim]

    def rows(x, dz):
        """The inputs under the kernel and the slopes above it, a row for each place."""
        if x.ndim == 2:
            return x, dz
        height, width = arrays["params0"]["weight"].shape[2:]
        down, across = x.shape[2] - height + 1, x.shape[3] - width + 1
        patches = [
            x[:, :, i : i + down, j : j + across] for i in range(height) for j in range(width)
        ]
        stacked = jnp.stack(patches, axis=1).transpose(0, 3, 4, 1, 2)
        slopes = dz.transpose(0, 2, 3, 1)
        return stacked.reshape(-1, height, width, x.shape[1]), slopes.reshape(-1, dz.shape[1])

    def step(carry, batch):
        params, state = carry
        inputs, slopes = rows(batch["x"], batch["dz"])
        plain = jnp.tensordot(inputs, slopes, [[0], [0]])
        gradients = {"weight": whiten(plain, inputs), "bias": slopes.sum(0)}
        updates, state = tx.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    with jax.enable_x64(True):
        data = jax.tree.map(jnp.asarray, arrays["data"])
        start = {
            "weight": jnp.asarray(arrays["params0"]["weight"].transpose(order)),
            "bias": jnp.asarray(arrays["params0"]["bias"]),
        }
        run = jax.jit(lambda p, xs: jax.lax.scan(step, (p, tx.init(p)), xs)[1])
        found = jax.tree.map(np.asarray, run(start, data))
    back = np.argsort(order)
    found["weight"] = found["weight"].transpose(0, *(1 + back))
    parted = deviation(found, arrays["params"], arrays["params0"], 2e-14)
    assert max(np.max(part) for part in parted.values()) <= 1e-10


def test_whitening_takes_the_smaller_system_to_the_same_end():
    rng = np.random.default_rng(0)
    gradient = jnp.asarray(rng.standard_normal((5, 3)), jnp.float32)
    few = jnp.asarray(rng.standard_normal((4, 5)), jnp.float32)
    twice = jnp.concatenate([few, few])
    np.testing.assert_allclose(
        primitives.whiten_inputs(gradient, few),
        primitives.whiten_inputs(gradient, twice),
        rtol=1e-4,
    )


def test_inputs_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="rows of the gradient's first axes"):
        primitives.whiten_inputs(jnp.ones((3, 2)), jnp.ones((8, 2)))
