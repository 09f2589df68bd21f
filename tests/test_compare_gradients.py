"""A comparison counts gradients: whoever takes two a step gets half the steps."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from asking import agreeing

import optzoo
from optzoo import compose
from optzoo.compare import run
from optzoo.compare.plan.contestants import Contestant
from optzoo.compare.show import report, terminal
from optzoo.compare.show.export import csv_text
from optzoo.compare.work.sweep import Sweep
from optzoo.problems import Problem
from optzoo.registry import Trait, unpublished

STEPS, RATE = 9, 0.05


def valley():
    def loss(params, _):
        return jnp.sum(jnp.array([1.0, 4.0]) * params["x"] ** 2)

    return Problem(
        init=lambda key: {"x": 1 + jax.random.uniform(key, (2,))},
        loss=loss,
        evaluate=lambda params, split: {"loss": loss(params, None)},
        objectives=lambda params, _: jnp.stack([loss(params, None) + i for i in range(3)]),
        steps=STEPS,
        target=3.0,
        name="valley",
    )


@pytest.fixture(scope="module")
def found():
    return run([valley], ["sgd", "sam(sgd)"], lrs=[RATE], seeds=2)


def test_all_runs_spend_as_many_gradients(found):
    frame = found.frame.set_index(["optimizer", "seed"])
    assert frame.loc["sgd"]["steps"].tolist() == [STEPS] * 2
    assert frame.loc["sam(sgd)"]["steps"].tolist() == [STEPS // 2] * 2
    assert frame.loc["sgd"]["gradients"].tolist() == [STEPS] * 2
    assert frame.loc["sam(sgd)"]["gradients"].tolist() == [STEPS // 2 * 2] * 2
    task = valley()
    tx, params = optzoo.build("sam(sgd)", RATE), task.init(jax.random.key(1))
    state = tx.init(params)
    for _ in range(STEPS // 2):
        gradients, extra = task.differentiate(params, None)
        updates, state = tx.update(gradients, state, params, **extra)
        params = optax.apply_updates(params, updates)
    got = frame.loc["sam(sgd)", 1]["test_loss"]
    np.testing.assert_allclose(got, task.loss(params, None), rtol=1e-5)


def test_the_way_to_the_target_is_told_in_both(found):
    frame = found.frame.set_index(["optimizer", "seed"])
    assert frame["gradients_to_target"].notna().all()
    steps, gradients = frame["steps_to_target"], frame["gradients_to_target"]
    assert (gradients.loc["sgd"] == steps.loc["sgd"]).all()
    assert (gradients.loc["sam(sgd)"] == 2 * steps.loc["sam(sgd)"]).all()
    table = found.table.set_index("optimizer")
    paid = table["gradients_to_target"] / table["steps_to_target"]
    assert paid.to_dict() == {"sgd": 1.0, "sam(sgd)": 2.0}
    ranking = found.ranking.set_index("optimizer")
    assert ranking["step_gradients"].to_dict() == {"sgd": 1.0, "sam(sgd)": 2.0}


def test_every_table_has_the_column(found, capsys):
    for title in ("gradients a step", "gradients to target", "steps to target"):
        assert f">{title}</th>" in report.html(found)
    assert {"gradients", "gradients_to_target"} < {*csv_text(found.frame).split("\n")[0].split(",")}
    terminal.show_results(found)
    head, *_ = capsys.readouterr().out.splitlines()
    assert head.split()[-1] == "gradients"


def test_costs_add_up_inside_one_another():
    assert compose.entry("sam(cautious(gradient_regularization(adamw)))").gradients == 3
    assert compose.entry("adamw+cosine").gradients == 1


def test_each_objective_costs_a_gradient():
    asks = dataclasses.replace(unpublished(agreeing), traits=frozenset({Trait.GRADIENTS}))
    sweep = Sweep(valley(), Contestant(asks), STEPS)
    assert (sweep.gradients, sweep.steps) == (3, 3)
    assert Contestant(compose.entry("upgrad(sgd)")).gradients(valley()) == 3
    single = dataclasses.replace(valley(), objectives=None)
    assert Sweep(single, Contestant(asks), STEPS).gradients == 1


def test_too_few_gradients_for_a_step_still_make_one():
    assert Sweep(valley(), Contestant(compose.entry("sam(sgd)")), 1).steps == 1
