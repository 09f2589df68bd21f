"""Laws of rules that watch for spikes, start anew, filter, or train ahead of what is evaluated."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from laws import close, mapped, runner, tree

import optzoo
from optzoo import primitives
from optzoo.primitives import Axes

PARAMS, GRADIENTS = tree(0), tree(1, steps=12)


def test_nag_gs_at_a_constant_rate_is_heavy_ball_momentum():
    rate, mu, gamma = 0.3, 0.5, 2.0
    share = rate * mu + gamma
    momentum = (1 - rate * mu / share) / (1 + rate)
    _, got, _ = runner(optzoo.nag_gs(rate, mu=mu, gamma=gamma, update_gamma=False))(
        PARAMS, GRADIENTS
    )
    _, want, _ = runner(optax.sgd(rate**2 / ((1 + rate) * share), momentum=momentum))(
        PARAMS, GRADIENTS
    )
    close(got, want)


def test_spam_keeps_an_entry_without_early_gradients_where_it_is_unless_told_otherwise():
    silent = {"w": jnp.where(jnp.arange(12)[:, None] < 6, jnp.array([0.0, 1.0]), 1.0)}
    start = {"w": jnp.zeros(2)}
    for clip_unseen in (True, False):
        tx = optzoo.spam(0.1, grad_accu_steps=4, period=20, clip_unseen=clip_unseen)
        _, params, _ = runner(tx)(start, silent)
        assert (params["w"][-1, 0] == 0) == clip_unseen
        assert params["w"][-1, 1] < 0


def test_a_restart_forgets_what_is_not_finite():
    poisoned = jax.tree.map(lambda g: g.at[2].set(jnp.nan), GRADIENTS)
    tx = primitives.restart(primitives.adam(), lambda count: count == 6)
    out = mapped(tx)(PARAMS, poisoned)
    for leaf in jax.tree.leaves(out):
        assert np.all(np.isnan(leaf[2:6])) and np.all(np.isfinite(leaf[6:]))


def test_the_size_of_a_spike_does_not_reach_the_rule_behind_a_stabilizer():
    norms = []
    for size in (1e4, 1e6, 1e30):
        spiky = jax.tree.map(lambda g, s=size: g.at[-1].multiply(s), GRADIENTS)
        out = mapped(optzoo.gradient_stabilizer(optax.identity()))(PARAMS, spiky)
        norms.append(jax.tree.map(lambda x: float(jnp.linalg.norm(jnp.ravel(x[-1]))), out))
    close(norms[1], norms[0], rtol=5e-2)
    close(norms[2], norms[0], rtol=5e-2)
    assert max(jax.tree.leaves(norms)) <= (1 - 0.6) / np.sqrt(1 - 0.999)


def test_stacked_layers_have_sizes_of_their_own():
    rng = np.random.default_rng(2)
    # One layer's gradients are a thousand times the other's.
    scale = np.array([1.0, 1e3])[:, None, None]
    stack = {"w": jnp.asarray(rng.standard_normal((8, 2, 4, 3)) * scale, jnp.float32)}
    start = {"w": jnp.zeros((2, 4, 3))}
    for make in (
        lambda axes: primitives.clip_to_average_peak(0.9, axes=axes),
        lambda axes: primitives.stabilize_norm(0.7, 0.9, axes=axes),
    ):
        together = mapped(make(Axes((1,), (2,), (0,))))(start, stack)["w"]
        for layer in range(2):
            alone = mapped(make(Axes((0,), (1,))))(
                {"w": start["w"][layer]}, {"w": stack["w"][:, layer]}
            )
            close(together[:, layer], alone["w"])


def test_usual_gradients_pass_a_clip_to_their_peak():
    constant = jax.tree.map(lambda p: jnp.stack([p] * 5), PARAMS)
    close(mapped(primitives.clip_to_average_peak())(PARAMS, constant), constant)


def test_grokfast_begins_with_the_first_gradient():
    out = mapped(optzoo.grokfast(optax.identity(), lamb=2.0))(PARAMS, GRADIENTS)
    close(jax.tree.map(lambda x: x[0], out), jax.tree.map(lambda g: 3 * g[0], GRADIENTS))


def test_xgrad_evaluates_at_its_base_and_trains_ahead_by_the_next_rate():
    def rate(count):
        return 0.1 / (1.0 + jnp.asarray(count, float))

    base = optax.chain(primitives.momentum(0.9), optax.scale_by_learning_rate(rate))
    updates, weights, _ = runner(base)(PARAMS, GRADIENTS)
    _, trained, states = runner(optzoo.xgrad(base, rate, steps=2.0))(PARAMS, GRADIENTS)
    evaluated = jax.vmap(optzoo.eval_params)(states, trained)
    close(evaluated, weights)
    close(jax.vmap(optzoo.train_params)(states, evaluated), trained)
    last = jax.tree.map(lambda y, w: y[-1] - w[-1], trained, weights)
    ahead = float(2.0 * rate(12) / rate(11))
    close(last, jax.tree.map(lambda u: ahead * u[-1], updates))


def test_entropy_sgd_without_pull_noise_and_average_is_sgd():
    tx = optzoo.entropy_sgd(
        1.0, period=4, gamma=0.0, noise=0.0, averaging=0.0, momentum=0.0, nesterov=False
    )
    _, got, states = runner(tx)(PARAMS, GRADIENTS)
    _, want, _ = runner(optax.sgd(0.1))(PARAMS, GRADIENTS)
    close(got, want)
    close(
        jax.tree.map(lambda x: x[3::4], jax.vmap(optzoo.eval_params)(states, got)),
        jax.tree.map(lambda x: x[3::4], want),
    )
