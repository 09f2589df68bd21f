"""Laws of whole rules: what each one is known for, and what it falls back to."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from laws import SHAPES, STEPS, close, law, runner, same, scales, seeds, tree

import optzoo
from optzoo import primitives as zoo

RATE = 1e-2
ADAM = runner(optax.chain(zoo.adam(), optax.scale_by_learning_rate(RATE)))
TINY = 1e-30
SMALL_EPS_ADAM = runner(optax.chain(zoo.adam(eps=TINY), optax.scale_by_learning_rate(RATE)))


def example(seed, **options):
    return tree(seed), tree(seed + 1, steps=STEPS, **options)


def first(updates):
    return jax.tree.map(lambda u: u[0], updates)


REDUCED = {
    "ademamix without its slow average": (optzoo.ademamix(RATE, alpha=0.0), ADAM),
    "adamp that never projects": (optzoo.adamp(RATE, delta=0.0), ADAM),
    "sgdp that never projects": (
        optzoo.sgdp(RATE, momentum=0.9, delta=0.0),
        runner(optax.sgd(RATE, momentum=0.9)),
    ),
    "ranger21 without its components": (
        optzoo.ranger21(
            RATE,
            total_steps=STEPS,
            weight_decay=0.0,
            norm_loss=0.0,
            agc_clip=None,
            centralization=None,
            normalization=False,
            positive_negative=False,
            softplus_beta=None,
            warmup_steps=0,
            warmdown_start=None,
            lookahead_period=None,
        ),
        ADAM,
    ),
    "muon with Adam for everything": (
        optzoo.muon(exclude=".*", rest=optzoo.adamp(RATE, delta=0.0)),
        ADAM,
    ),
    "dog with its average off": (
        optzoo.dog(average_gamma=None),
        runner(optzoo.dog()),
    ),
    "mars without its correction and clip": (
        optzoo.mars(RATE, gamma=0.0, clip=None, include=".*"),
        runner(optax.chain(zoo.adam(0.95, 0.99), optax.scale(-RATE))),
    ),
    "mars in Lion's form without its correction and clip": (
        optzoo.mars(RATE, form="lion", gamma=0.0, clip=None, include=".*"),
        runner(optax.chain(zoo.ema(0.95), optax.scale_by_sign(), optax.scale(-RATE))),
    ),
    "adamod without its bound": (optzoo.adamod(RATE, b3=0.0, form="paper"), ADAM),
    "adabound with bounds that never bind": (
        optzoo.adabound(RATE, final_lr=RATE, gamma=1e-12),
        runner(optax.chain(zoo.adam(eps_on_debiased=False), optax.scale(-RATE))),
    ),
    "adabound with bounds that are closed": (
        optzoo.adabound(RATE, final_lr=RATE, gamma=1e12),
        runner(optax.chain(zoo.ema(0.9, debias=False), optax.scale(-RATE))),
    ),
    "adamomentum without momentum": (
        optzoo.adamomentum(RATE, b1=0.0),
        runner(optax.chain(zoo.adam(0.0, eps=0.0), optax.scale(-RATE))),
    ),
    "innaprop without inertia": (
        optzoo.innaprop(RATE, alpha=2.0, beta=0.5, weight_decay=0.0),
        runner(optax.chain(zoo.adam(0.0), optax.scale(-0.5 * RATE))),
    ),
}


@pytest.mark.parametrize("name", REDUCED)
def test_a_rule_without_its_idea_is_the_rule_it_came_from(name):
    tx, plain = REDUCED[name]
    run = runner(tx)
    for seed in range(3):
        close(run(*example(seed))[1], plain(*example(seed))[1], atol=1e-7)


ADAMP = runner(optzoo.adamp(RATE))


@law
@given(seeds)
def test_adamp_is_adam_where_weights_are_no_matrices(seed):
    params, grads = example(seed)
    ours, theirs = ADAMP(params, grads)[1], ADAM(params, grads)[1]
    for name in ("bias", "gain"):
        close(ours[name], theirs[name])


GRAMS = runner(optzoo.grams(RATE, eps=TINY))


@law
@given(seeds, scales)
def test_grams_takes_adams_size_and_never_moves_against_the_gradients_sign(seed, scale):
    params, grads = example(seed, scale=scale, zeros=0.2)
    updates, adam = GRAMS(params, grads)[0], SMALL_EPS_ADAM(params, grads)[0]
    for name in SHAPES:
        np.testing.assert_array_equal(np.sign(updates[name]), -np.sign(grads[name]))
        size = np.where(grads[name] == 0, 0, np.abs(adam[name]))
        np.testing.assert_allclose(np.abs(updates[name]), size, rtol=1e-5)


DIFFGRAD = runner(optzoo.diffgrad(RATE, eps=TINY))


@law
@given(seeds, scales)
def test_diffgrad_goes_half_to_all_of_adams_way(seed, scale):
    params, grads = example(seed, scale=scale)
    updates, adam = DIFFGRAD(params, grads)[0], SMALL_EPS_ADAM(params, grads)[0]
    for name in SHAPES:
        share = np.array(updates[name]) / np.array(adam[name])
        # Where the momentum nearly cancels, its last digits are rounding.
        assert np.all((share > 0.5 - 1e-3) & (share < 1 + 1e-3))


NOVOGRAD = runner(optzoo.novograd(RATE, b1=0.0, eps=TINY))


@law
@given(seeds, scales)
def test_novograds_first_step_is_normalised_layer_by_layer(seed, scale):
    params, grads = example(seed, scale=scale)
    for update in jax.tree.leaves(first(NOVOGRAD(params, grads)[0])):
        np.testing.assert_allclose(jnp.linalg.norm(update.ravel()), RATE, rtol=1e-5)


MUON = runner(optzoo.muon(RATE, scale=None, orthogonalizer=zoo.polar()))
ADAGO = runner(optzoo.adago(RATE, orthogonalizer=zoo.polar(), gamma=1e9, eps=TINY))


def spectra(update):
    return np.linalg.svd(np.reshape(update, (-1, update.shape[-1])), compute_uv=False)


@law
@given(seeds, scales)
def test_muon_moves_a_matrix_the_same_way_in_every_direction(seed, scale):
    params, grads = example(seed, scale=scale)
    updates = first(MUON(params, grads)[0])
    for name in ("kernel", "conv"):
        np.testing.assert_allclose(spectra(updates[name]), RATE, rtol=1e-4)


@law
@given(seeds, scales)
def test_adago_steps_by_the_norm_against_all_norms_so_far(seed, scale):
    params, grads = example(seed, scale=scale)
    updates = ADAGO(params, grads)[0]
    for name in ("kernel", "conv"):
        norms = np.linalg.norm(np.reshape(grads[name], (STEPS, -1)), axis=1)
        steps = RATE * norms / np.sqrt(np.cumsum(norms**2))
        for update, step in zip(updates[name], steps, strict=True):
            np.testing.assert_allclose(spectra(update), step, rtol=1e-3)


@pytest.mark.parametrize("rule", [optzoo.dog, optzoo.ldog])
def test_dog_is_blind_to_the_losss_scale(rule):
    run = runner(rule(reps_rel=1e-2, eps=0.0))
    for seed in range(3):
        params, grads = example(seed)
        scaled = jax.tree.map(lambda g: 1e3 * g, grads)
        close(run(params, scaled)[1], run(params, grads)[1])


EQUAL_WEIGHTS = runner(optzoo.schedule_free_sgd(0.1, weight_lr_power=0.0))
SGD = runner(optax.sgd(0.1))


@law
@given(seeds)
def test_schedule_free_evaluates_the_mean_of_sgds_iterates(seed):
    params, grads = example(seed)
    _, trained, state = EQUAL_WEIGHTS(params, grads)
    iterates = SGD(params, grads)[1]
    last = jax.tree.map(lambda x: x[-1], (state, trained))
    close(optzoo.eval_params(*last), jax.tree.map(lambda z: jnp.mean(z, axis=0), iterates))


DECAYED = {
    name: (factory(RATE, weight_decay=0.5, **options), factory(RATE, **options))
    for name, factory, options in [
        ("adamp", optzoo.adamp, {"delta": 0.0}),
        ("sgdp", optzoo.sgdp, {"delta": 0.0}),
        ("ademamix", optzoo.ademamix, {}),
        ("grams", optzoo.grams, {}),
        ("diffgrad", optzoo.diffgrad, {"decoupled": True}),
    ]
}


@pytest.mark.parametrize("name", DECAYED)
def test_decoupled_decay_only_shrinks(name):
    decayed, plain = map(runner, DECAYED[name])
    params, grads = example(0)
    shrunk = jax.tree.map(lambda u, p: u - 0.5 * RATE * p, first(plain(params, grads)[0]), params)
    close(first(decayed(params, grads)[0]), shrunk)


def test_coupled_decay_is_a_gradient():
    params, grads = example(0)
    steady = jax.tree.map(lambda g: jnp.zeros_like(g), grads)
    decayed = runner(optzoo.diffgrad(RATE, weight_decay=0.5))
    pulled = first(decayed(params, steady)[0])
    same(*(jax.tree.map(jnp.sign, t) for t in (pulled, jax.tree.map(jnp.negative, params))))
