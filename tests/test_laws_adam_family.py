"""Laws of the newer adaptive rules: what each is equal to, and what its texts promise."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from laws import STEPS, close, mapped, runner, same, tree

import optzoo
from optzoo import primitives as zoo

RATE = 1e-2
EVERYTHING = ".*"
SILENT = 1000


def example(seed):
    return tree(seed), tree(seed + 1, steps=STEPS)


@pytest.mark.parametrize("gamma", [0.025, 0.4])
def test_mars_momentum_without_its_clip_is_quasi_hyperbolic(gamma):
    params, grads = example(0)
    mars = optax.chain(zoo.variance_reduced(gamma, 0.95, clip=None), zoo.ema(0.95, debias=False))
    plain = zoo.ema(0.95, debias=False)
    hyperbolic = zoo.merge_leaves(lambda g, e: gamma * g + (1 - gamma) * e, zoo.gradient, plain)
    close(mapped(mars)(params, grads), mapped(hyperbolic)(params, grads))


def test_mars_at_gamma_one_minus_b1_is_nesterov():
    params, grads = example(0)
    mars = optax.chain(zoo.variance_reduced(0.1, 0.9, clip=None), zoo.ema(0.9, debias=False))
    nesterov = zoo.ema(0.9, debias=False, nesterov=True)
    close(mapped(mars)(params, grads), mapped(nesterov)(params, grads))


def test_a_strength_of_zero_keeps_no_previous_gradient():
    params = tree(0)
    assert not jax.tree.leaves(zoo.variance_reduced(0.0).init(params))
    assert not jax.tree.leaves(zoo.variance_reduced(b1=0.0).init(params))
    assert not jax.tree.leaves(zoo.extrapolate(1.0, approximate=False).init(params))


def mars_m(*, approximate):
    return optzoo.muon(correction=zoo.variance_reduced(approximate=approximate), nesterov=False)


@pytest.mark.parametrize("rule", [partial(optzoo.mars, RATE), mars_m], ids=["mars", "mars_m"])
def test_the_exact_form_of_the_previous_gradients_is_the_approximate_one(rule):
    params, grads = example(0)
    previous = jax.tree.map(lambda g: jnp.concatenate([jnp.zeros_like(g[:1]), g[:-1]]), grads)
    exact = rule(approximate=False)

    def step(carry, inputs):
        params, state = carry
        updates, state = exact.update(inputs[0], state, params, previous_grad=inputs[1])
        params = optax.apply_updates(params, updates)
        return (params, state), params

    start = params, exact.init(params)
    _, path = jax.lax.scan(step, start, (grads, previous))
    close(path, runner(rule(approximate=True))(params, grads)[1])


def test_marss_correction_refuses_what_it_cannot_use():
    for argument in ({"b1": 1.0}, {"gamma": -0.1}, {"clip": 0.0}):
        (name,) = argument
        with pytest.raises(ValueError, match=f"variance_reduced: {name}"):
            zoo.variance_reduced(**argument)


def test_exact_mars_asks_for_the_gradient_that_it_needs():
    params, tx = tree(0), optzoo.mars(approximate=False)
    with pytest.raises(ValueError, match="previous_grad"):
        tx.update(params, tx.init(params), params)


def test_mars_clips_every_stacked_layer_by_its_own_norm():
    layers = {"layers": {"kernel": jnp.stack([jnp.full((4, 4), 3.0), jnp.full((4, 4), 0.01)])}}
    clipped = zoo.clip_norm().update(layers, optax.EmptyState())[0]["layers"]["kernel"]
    np.testing.assert_allclose(jnp.linalg.norm(clipped[0]), 1.0, rtol=1e-6)
    same(clipped[1], layers["layers"]["kernel"][1])


def test_mars_takes_the_matrices_of_linear_maps():
    shapes = {
        "embed": {"embedding": (11, 4)},
        "layers": {"mlp": {"kernel": (3, 4, 8), "bias": (3, 8)}},
        "attention": {"query": {"kernel": (4, 2, 2)}, "out": {"kernel": (2, 2, 4)}},
        "Conv_0": {"kernel": (3, 3, 2, 4)},
    }
    params = jax.tree.map(jnp.zeros, shapes, is_leaf=lambda node: isinstance(node, tuple))
    mask = zoo.linear_mask(params)
    assert mask == {
        "embed": {"embedding": True},
        "layers": {"mlp": {"kernel": True, "bias": False}},
        "attention": {"query": {"kernel": True}, "out": {"kernel": True}},
        "Conv_0": {"kernel": False},
    }
    chosen = partial(zoo.linear_mask, params, include=["Conv", "bias"], exclude="embed")
    assert jax.tree.leaves(chosen()) == [True, True, True, False, True, True]
    assert jax.tree.leaves(chosen(shaped=True)) == [True, True, True, False, False, True]


AMS = mapped(zoo.rms(0.9, 0.0, amsgrad=True))
RAW_AMS = mapped(zoo.rms(0.9, 0.0, amsgrad=True, debias=False))
RAW = mapped(zoo.rms(0.9, 0.0, debias=False))


def test_amsgrad_is_the_largest_raw_moment_so_far():
    params, grads = example(0)
    largest = jax.tree.map(np.maximum.accumulate, RAW(params, grads))
    close(RAW_AMS(params, grads), largest)
    steps = np.arange(1.0, STEPS + 1)

    def corrected(v):
        return v / np.sqrt(1 - 0.9 ** steps.reshape(-1, *(1,) * (v.ndim - 1)))

    close(AMS(params, grads), jax.tree.map(corrected, largest))


def test_adabounds_bounds_follow_the_rate_below_its_peak():
    params = {"w": jnp.ones(3)}
    tiny = {"w": jnp.full(3, 1e-6)}
    closed = {"final_lr": 0.5, "gamma": 1e12, "b1": 0.0}
    for schedule, options, share in [
        (optax.constant_schedule(0.1), {"peak": 0.4}, 0.25),
        (optax.constant_schedule(0.1), {}, 1.0),
        (0.1, {}, 1.0),
        (lambda count: jnp.where(count > 0, 0.1, 0.4), {}, 0.25),
        (0.0, {}, 0.0),
        (0.1, {"final_lr": lambda count: jnp.where(count > 0, 0.2, 0.5)}, 0.4),
    ]:
        tx = optzoo.adabound(schedule, **(closed | options))
        state = tx.init(params)
        for _ in range(2):
            updates, state = tx.update(tiny, state, params)
        np.testing.assert_allclose(updates["w"], -0.5 * share * tiny["w"], rtol=1e-5)


def asleep(tx, grad, steps=SILENT):
    """The state after `steps` steps with the gradient `grad`."""
    params = {"row": jnp.zeros(2)}
    full = optax.with_extra_args_support(tx)

    def step(state, _):
        return full.update({"row": grad}, state, params)[1], None

    return jax.lax.scan(step, full.init(params), length=steps)[0]


def woken(tx, state):
    params, grads = {"row": jnp.zeros(2)}, {"row": jnp.array([1.0, 0.0])}
    return optax.with_extra_args_support(tx).update(grads, state, params)[0]["row"]


def test_adamods_bound_is_void_where_a_rare_row_wakes():
    adam = optax.chain(zoo.adam(eps_on_debiased=False), optax.scale(-1e-3))
    silent = jnp.zeros(2)
    free, bounded = (woken(tx, asleep(tx, silent)) for tx in (adam, optzoo.adamod()))
    np.testing.assert_allclose(bounded, free, rtol=1e-5)
    assert bounded[0] != 0 and bounded[1] == 0
    # At the start of a run the same gradient is held back.
    new = woken(optzoo.adamod(), optzoo.adamod().init({"row": silent}))
    assert abs(new[0]) < 2e-3 * 1e-3


ADAM = optax.chain(zoo.adam(), optax.scale_by_learning_rate(RATE))
RARE = {
    **{name: optzoo.get(name).factory() for name in ("adabound", "adamomentum", "mars", "gravity")},
    "innaprop": optzoo.innaprop(weight_decay=0.0),
    "spam": optzoo.spam(),
    "stable_spam": optzoo.stable_spam(),
    "nag_gs": optzoo.nag_gs(),
    "induced_metric": optzoo.induced_metric(),
    "entropy_sgd": optzoo.entropy_sgd(noise=0.0),
    "gradient_stabilizer": optzoo.gradient_stabilizer(ADAM),
    "grokfast": optzoo.grokfast(ADAM),
    "grokfast_ma": optzoo.grokfast_ma(ADAM, window_size=3),
    "xgrad": optzoo.xgrad(ADAM, RATE),
}


@pytest.mark.parametrize("name", RARE)
def test_a_rare_row_moves_where_it_has_a_gradient_alone(name):
    update = woken(RARE[name], asleep(RARE[name], jnp.zeros(2)))
    assert np.isfinite(update).all() and update[0] < 0 and update[1] == 0


def test_what_a_rare_row_slept_through_does_not_count():
    silent = jnp.zeros(2)
    tx = optzoo.gradient_stabilizer(optax.identity())
    np.testing.assert_allclose(woken(tx, asleep(tx, silent)), woken(tx, asleep(tx, silent, 0)))
    # Past its first steps after a reset, SPAM clips what it has not seen.
    spam = optzoo.spam(period=SILENT - 100, grad_accu_steps=20)
    assert not np.any(woken(spam, asleep(spam, silent)))
    free = optzoo.spam(period=SILENT - 100, grad_accu_steps=20, clip_unseen=False)
    assert woken(free, asleep(free, silent))[0] < 0


def test_whole_numbers_and_those_that_may_be_none_may_be_traced():
    params, grads = example(0)

    def rising(count):
        return 0.02 * jnp.asarray(count, float)

    for name, make, numbers in (
        ("period", lambda x: optzoo.stable_spam(period=x), [3, 4]),
        ("warmup_steps", lambda x: optzoo.spam(period=3, warmup_steps=x), [2, 9]),
        ("momentum_steps", lambda x: optzoo.stable_spam(momentum_steps=x), [3, 9]),
        ("peak", lambda x: optzoo.adabound(rising, peak=x), [0.1, 0.3]),
        ("peak", lambda x: optzoo.gravity(peak=x, key=jax.random.key(0)), [0.1, 0.3]),
    ):

        def run(x, make=make):
            return runner(make(x))(params, grads)[0]

        together = jax.vmap(run)(jnp.asarray(numbers))
        for row, number in enumerate(numbers):
            got = jax.tree.map(lambda x, row=row: x[row], together)
            jax.tree.map(
                partial(np.testing.assert_allclose, rtol=1e-4, err_msg=name, atol=1e-7),
                got,
                run(number),
            )


def test_adamomentums_first_step_is_ten_times_adams():
    params, grads = example(0)
    steps = jax.tree.map(lambda u: u[0], runner(optzoo.adamomentum(RATE))(params, grads)[0])
    close(steps, jax.tree.map(lambda g: -10 * RATE * jnp.sign(g[0]), grads), rtol=1e-3)


def authors_innaprop(params, grads, rates, *, alpha, beta, sigma, weight_decay):
    """The authors' arithmetic, in ψ, which cannot be computed where the rate is beta."""
    psi, v = (1 - alpha * beta) * params, np.zeros_like(params)
    for t, (g, lr) in enumerate(zip(grads, rates, strict=True), start=1):
        q = params * (1 - lr * weight_decay)
        v = sigma * v + (1 - sigma) * g**2
        d = g / (np.sqrt(v / (1 - sigma**t)) + 1e-8)
        psi = (1 - lr / beta) * psi + lr * (1 / beta - alpha) * q
        pull = lr / (beta - lr)
        params = (1 + (1 - alpha * beta) * pull) * q - pull * psi - lr * beta * d
    return params


@pytest.mark.parametrize("above", [False, True])
def test_innaprop_has_no_pole_where_the_rate_is_beta(above):
    numbers = {"alpha": 0.3, "beta": 0.5, "weight_decay": 0.2}
    params, grads = np.linspace(-1.0, 1.0, 5), np.random.default_rng(0).standard_normal((STEPS, 5))
    rates = np.linspace(0.1, 1.1, STEPS) if above else np.linspace(0.4, 0.49, STEPS)
    with jax.enable_x64(True):
        tx = optzoo.innaprop(lambda count: jnp.asarray(rates)[count], b2=0.9, **numbers)
        path = runner(tx)({"w": jnp.asarray(params)}, {"w": jnp.asarray(grads)})[1]["w"]
        at_beta = runner(optzoo.innaprop(0.5, b2=0.9, **numbers))
        assert jnp.isfinite(
            at_beta({"w": jnp.asarray(params)}, {"w": jnp.asarray(grads)})[1]["w"]
        ).all()
    want = authors_innaprop(params, grads, rates, sigma=0.9, **numbers)
    np.testing.assert_allclose(path[-1], want, rtol=1e-10)


def test_gravitys_random_start_moves_parameters_by_alpha_in_every_precision():
    shape = (100, 100)
    still, thrown = (optzoo.gravity(key=key, alpha=0.02) for key in (None, jax.random.key(1)))
    for dtype in (jnp.float32, jnp.bfloat16):
        params = {"w": jnp.zeros(shape, dtype)}
        assert not np.any(still.update(params, still.init(params), params)[0]["w"])
        first = thrown.update(params, thrown.init(params), params)[0]["w"].astype(jnp.float32)
        np.testing.assert_allclose(jnp.std(first), 0.5 * 0.02, rtol=0.03)
        same(
            thrown.init(params)[0][1].moment,
            thrown.init(optax.tree.cast(params, "float32"))[0][1].moment,
        )


def test_gravity_moves_the_largest_gradients_least():
    grads = {"w": jnp.array([0.5, 50.0])}
    damped = zoo.damp().update(grads, optax.EmptyState())[0]["w"]
    assert damped[0] > damped[1] > 0
    stacked = {"layers": {"kernel": jnp.stack([jnp.ones((2, 2)), jnp.full((2, 2), 50.0)])}}
    alone = zoo.damp().update(stacked, optax.EmptyState())[0]["layers"]["kernel"]
    np.testing.assert_allclose(alone[0], 0.5)


def test_an_average_may_start_anywhere():
    params, grads = example(0)
    first = tree(5)
    got = mapped(zoo.ema(0.75, debias=False, start=first))(params, grads)
    want = mapped(zoo.ema(0.75, debias=False))(params, grads)
    left = jax.tree.map(lambda x, y: x - y, got, want)
    close(jax.tree.map(lambda x: x[0], left), jax.tree.map(lambda m: 0.75 * m, first))
    with pytest.raises(ValueError, match="a start is given"):
        zoo.ema(0.75, start=first)


def test_a_given_start_survives_donation():
    params = tree(0)
    velocity = jax.tree.map(jnp.ones_like, params)
    tx = optzoo.gravity(velocity=velocity)
    step = jax.jit(lambda g, s: tx.update(g, s)[1], donate_argnums=1)
    step(params, tx.init(params))
    same(velocity, jax.tree.map(jnp.ones_like, params))


def test_a_scheduled_average_stays_in_its_precision_in_64_bit_mode():
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        tx = zoo.ema(lambda t: t / (t + 1), debias=False)
        params = tree(0)
        _, state = tx.update(params, tx.init(params))
        assert {leaf.dtype for leaf in jax.tree.leaves(state.moment)} == {jnp.dtype("float32")}
