"""The schedule of a run made from the gradient norms of an earlier one: two commands."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optzoo
from optzoo import compose
from optzoo.compare import UserError, run
from optzoo.problems import Problem

STEPS, RATE, SEEDS = 12, 0.05, 2


def loss(params, batch):
    return jnp.sum(jnp.square(params["x"]) * jnp.array([1.0, 4.0]))


BOWL = Problem(
    lambda key: {"x": jax.random.normal(key, (2,))},
    loss,
    lambda params, split: {"loss": loss(params, None)},
    steps=STEPS,
    target=1e-3,
    name="bowl",
)


def trained(rule, seed, total_steps=STEPS):
    """The parameters after a plain loop, and the gradients of its steps."""
    params, gradients = BOWL.init(jax.random.key(seed)), []
    state = rule.init(params)
    for _ in range(total_steps):
        gradients.append(jax.grad(loss)(params, None))
        updates, state = rule.update(gradients[-1], state, params)
        params = optax.apply_updates(params, updates)
    return params, np.stack([gradient["x"] for gradient in gradients])


def compare(optimizers, out, **options):
    return run([BOWL], optimizers, **({"lrs": [RATE], "seeds": SEEDS} | options), out=out)


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_a_second_command_trains_with_the_norms_that_the_first_recorded(tmp_path, power):
    plain = compare(["sgd"], tmp_path, lrs=[RATE, 10.0])
    recorded = compare(["sgd"], tmp_path, lrs=[RATE, 10.0], record=["norms"])
    assert recorded.frame["test_loss"].equals(plain.frame["test_loss"])
    assert np.isfinite(recorded.frame[recorded.frame.learning_rate == RATE].test_loss).all()
    later = compare([f"sgd+refined(power={power})"], tmp_path)

    gradients = [trained(optax.sgd(RATE, 0.9), seed)[1] for seed in range(SEEDS)]
    order = {1.0: 1, 2.0: None}[power]
    norms = np.mean([np.linalg.norm(g, ord=order, axis=1) for g in gradients], axis=0)
    rule = optax.sgd(optzoo.refined(RATE, norms, power=power), 0.9)
    want = [float(loss(trained(rule, seed)[0], None)) for seed in range(SEEDS)]
    np.testing.assert_allclose(later.frame["test_loss"], want, rtol=1e-4)


def test_the_schedule_may_be_named_for_all_rules(tmp_path):
    compare(["sgd"], tmp_path, record=["norms"])
    by_rule = compare(["sgd+refined"], tmp_path)
    by_option = compare(["sgd"], tmp_path, schedules=["refined"])
    assert set(by_option.frame["optimizer"]) == {"sgd+refined"}
    np.testing.assert_allclose(by_option.frame["test_loss"], by_rule.frame["test_loss"], rtol=1e-6)


def test_without_norms_the_first_command_is_asked_for(tmp_path):
    compare(["sgd"], tmp_path)
    for options in ({}, {"steps": STEPS + 1}):
        with pytest.raises(UserError, match="needs the gradient norms of 'sgd'.*--record norms"):
            compare(["sgd+refined"], tmp_path, **options)
        compare(["sgd"], tmp_path, record=["norms"])
    with pytest.raises(UserError, match="cannot record 'steps': there are norms"):
        compare(["sgd"], tmp_path, record=["steps"])


def test_a_rule_by_text_gets_its_norms_where_it_is_built():
    norms = np.linspace(1, 2, 5)
    rule = "schedule_free(sgd)"
    assert compose.unrefined("lookahead(sgd+refined, period=3)+cosine") == (
        "lookahead(sgd, period=3)+cosine"
    )
    assert compose.unrefined(rule) == rule
    assert "norms" in compose.entry("sgd+refined").signature.parameters
    with pytest.raises(ValueError, match=r"refined needs norms=, at \^ in sgd\+\^refined"):
        optzoo.build("sgd+refined", 0.1)
    params = {"w": jnp.ones(2)}
    tx = optzoo.build("sgd+refined", 0.5, norms=norms)
    updates, _ = tx.update(params, tx.init(params), params)
    np.testing.assert_allclose(updates["w"], -0.5, rtol=1e-6)
