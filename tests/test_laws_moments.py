"""Laws of the averages over time."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from laws import STEPS, close, law, mapped, runner, same, scales, seeds, tree

from optzoo import primitives as zoo


def repeated(grad):
    return jax.tree.map(lambda g: jnp.stack([g] * STEPS), grad)


def steps_of(x):
    """1, 2, … shaped to broadcast against the steps of `x`."""
    return jnp.arange(1.0, STEPS + 1).reshape(-1, *(1,) * (x.ndim - 1))


EMA = mapped(zoo.ema(0.9))
RAW_EMA = mapped(zoo.ema(0.9, debias=False))
CORRECTED_EMA = mapped(optax.chain(zoo.ema(0.9, debias=False), zoo.debias(0.9)))
SCHEDULED_EMA = mapped(zoo.ema(lambda t: jnp.where(t > 0, 0.9, jnp.nan), debias=False))
MOMENTUM = mapped(zoo.momentum(0.8))
DAMPED_MOMENTUM = mapped(zoo.momentum(0.8, dampening=0.25))
RMS = mapped(zoo.rms(0.99, 0.0))
CODES_RMS = mapped(zoo.rms(0.99, 1e-2, eps_on_debiased=False))
LAYER_RMS = mapped(zoo.layer_rms(0.9, 0.0))
AMS_RMS = mapped(zoo.layer_rms(0.9, 0.0, amsgrad=True))


MERGED_ADAM = runner(optax.chain(zoo.adam(0.8, 0.95, 1e-6), optax.scale_by_learning_rate(1e-2)))
OPTAX_ADAM = runner(optax.adam(1e-2, 0.8, 0.95, 1e-6))


@law
@given(seeds)
def test_merged_adam_is_optax_adam_bit_for_bit(seed):
    params, grads = tree(seed), tree(seed + 1, steps=STEPS, zeros=0.2)
    ours, _, _ = MERGED_ADAM(params, grads)
    with jax.numpy_dtype_promotion("standard"):
        theirs, _, _ = OPTAX_ADAM(params, grads)
    same(ours, theirs)


@law
@given(seeds, scales)
def test_the_average_of_a_constant_is_that_constant(seed, scale):
    grads = repeated(tree(seed, scale=scale))
    close(EMA(tree(0), grads), grads)
    close(RMS(tree(0), grads), jax.tree.map(jnp.abs, grads))


@law
@given(seeds)
def test_debias_is_what_the_raw_average_lacks(seed):
    params, grads = tree(0), tree(seed, steps=STEPS)
    close(CORRECTED_EMA(params, grads), EMA(params, grads))
    factor = jax.tree.map(lambda g: g * (1 - 0.9 ** steps_of(g)), EMA(params, grads))
    close(RAW_EMA(params, grads), factor)


def test_a_decay_of_zero_keeps_no_state():
    grads = tree(0)
    state = zoo.ema(0.0).init(grads)
    assert not jax.tree.leaves(state)
    same(zoo.ema(0.0).update(grads, state)[0], grads)


@law
@given(seeds)
def test_a_constant_schedule_is_its_number(seed):
    params, grads = tree(0), tree(seed, steps=STEPS)
    close(SCHEDULED_EMA(params, grads), RAW_EMA(params, grads))


def test_a_scheduled_decay_has_no_debiased_form():
    with pytest.raises(ValueError, match="debias"):
        zoo.ema(lambda t: 0.9)


@law
@given(seeds, scales)
def test_rms_is_homogeneous_and_blind_to_signs(seed, scale):
    params, grads = tree(0), tree(seed, steps=STEPS)
    flipped = jax.tree.map(lambda g: -scale * g, grads)
    want = jax.tree.map(lambda d: scale * d, RMS(params, grads))
    close(RMS(params, flipped), want, atol=0)


@law
@given(seeds)
def test_eps_on_the_raw_root_grows_by_the_correction(seed):
    params, grads = tree(0), tree(seed, steps=STEPS)
    extra = jax.tree.map(jnp.subtract, CODES_RMS(params, grads), RMS(params, grads))
    close(extra, jax.tree.map(lambda d: 1e-2 / (1 - 0.99 ** steps_of(d)) ** 0.5 + 0 * d, extra))


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_is_optax_trace(nesterov):
    params, grads = tree(0), tree(1, steps=STEPS)
    ours = mapped(zoo.momentum(0.9, nesterov=nesterov))
    close(ours(params, grads), mapped(optax.trace(0.9, nesterov))(params, grads))


@law
@given(seeds)
def test_dampening_scales_what_enters(seed):
    params, grads = tree(0), tree(seed, steps=STEPS)
    want = jax.tree.map(lambda m: 0.75 * m, MOMENTUM(params, grads))
    close(DAMPED_MOMENTUM(params, grads), want)


@law
@given(seeds)
def test_a_layer_counts_only_by_its_norm(seed):
    params, grads = tree(0), tree(seed, steps=STEPS)
    turned = jax.tree.map(lambda g: jnp.flip(-g, axis=tuple(range(1, g.ndim))), grads)
    close(LAYER_RMS(params, turned), LAYER_RMS(params, grads))


@law
@given(seeds, scales)
def test_a_layer_starts_with_its_own_norm(seed, scale):
    grads = tree(seed, steps=STEPS, scale=scale)
    first = jax.tree.map(lambda out: out[0], LAYER_RMS(tree(0), grads))
    close(first, jax.tree.map(lambda g: jnp.linalg.norm(g[0].ravel()), grads), atol=0)


@law
@given(seeds)
def test_a_layer_without_gradients_starts_with_its_first_one(seed):
    grads = tree(seed, steps=STEPS)
    late = jax.tree.map(lambda g: g.at[:2].set(0), grads)
    later = jax.tree.map(lambda out: out[2:], LAYER_RMS(tree(0), late))
    short = jax.tree.map(lambda g: g[2:], grads)
    close(later, LAYER_RMS(tree(0), short))


@law
@given(seeds)
def test_amsgrad_is_the_running_maximum(seed):
    params, grads = tree(0), tree(seed, steps=STEPS)
    want = jax.tree.map(np.maximum.accumulate, LAYER_RMS(params, grads))
    close(AMS_RMS(params, grads), want)


PNM = mapped(zoo.positive_negative_momentum(0.5, 0.5))


@law
@given(seeds)
def test_positive_negative_momentum_keeps_a_constant_gradients_direction(seed):
    grads = jax.tree.map(lambda g: jnp.stack([g] * 60), tree(seed))
    out = PNM(tree(0), grads)
    norm = (1.5**2 + 0.5**2) ** 0.5
    close(jax.tree.map(lambda x: x[-1], out), jax.tree.map(lambda g: g[-1] / norm, grads))
