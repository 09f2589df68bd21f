"""Tuning in all dimensions that people tune: ranges, trials, curves."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optzoo
from optzoo import compose
from optzoo.baselines import BASELINES
from optzoo.compare import Grid, Results, UserError, run
from optzoo.compare.plan.contestants import Contestant, contestants
from optzoo.compare.plan.grid import DEFAULT
from optzoo.compare.plan.select import optimizers
from optzoo.compare.plan.tuners import GENERATION, RandomSearch, Trial, tuner
from optzoo.compare.read.metrics import best_so_far, expected_best
from optzoo.compare.read.verdict import verdict
from optzoo.compare.show import report
from optzoo.compare.work import sweep
from optzoo.problems import Problem
from optzoo.registry import RANGES, Range, optimizer, unpublished


def bent(learning_rate=0.1, *, b1=0.5, weight_decay=0.0, pull=1.0, name="kept"):
    """Ends where its four numbers say."""
    place = jnp.log10(learning_rate) + b1 + weight_decay + pull
    return optax.stateless(lambda updates, params: {"x": place - params["x"]})


BENT = unpublished(bent, ranges={"pull": Range(1.0, 2.0, "linear"), "weight_decay": None})


def parabola():
    return Problem(
        init=lambda key: {"x": 9 + 0.01 * jax.random.normal(key)},
        loss=lambda params, _: params["x"] ** 2,
        evaluate=lambda params, split: {"loss": (params["x"] - 1) ** 2},
        steps=4,
        target=0.01,
        name="parabola",
        summary="A parabola",
    )


@pytest.fixture
def known(monkeypatch):
    monkeypatch.setitem(compose.BASELINES, "bent", BENT)


def tuned(text, out=None, **options):
    return run([parabola()], ["bent"], tuner=text, out=out, **({"seeds": 2} | options))


@pytest.mark.parametrize(
    ("space", "middle"),
    [(Range(1.0, 3.0, "linear"), 2.0), (Range(0.01, 1.0), 0.1), (Range(0.9, 0.999, "decay"), 0.99)],
)
def test_ranges_are_spread_evenly_on_their_scale(space, middle):
    np.testing.assert_allclose(
        [space.at(share) for share in (0, 0.5, 1)], [space.low, middle, space.high]
    )
    for share in (0.0, 0.3, 1.0):
        np.testing.assert_allclose(space.share(space.at(share)), share, atol=1e-12)
    assert (space.share(0.5 * space.low), space.share(space.high + 0.0005)) == (0, 1)


@pytest.mark.parametrize("wrong", [(2, 1, "linear"), (0, 1, "log"), (0.5, 1, "decay")])
def test_ranges_that_are_none_are_refused(wrong):
    with pytest.raises(ValueError, match="is no range"):
        Range(*wrong)


def test_rules_declare_their_ranges_beside_what_all_share():
    assert BENT.tunable == {"b1": RANGES["b1"], "pull": Range(1.0, 2.0, "linear")}
    assert {"b1", "b2", "b3", "alpha", "weight_decay"} == set(optzoo.get("ademamix").tunable)
    held = Contestant(BASELINES["adamw"], weight_decay=0.1)
    assert list(held.space) == ["learning_rate", "b1", "b2"]
    # What a text says is settled, and a wrapper's inside is what is tuned.
    assert set(compose.entry("lookahead(adamw(b1=0.8), period=3)").tunable) == {
        "b2",
        "weight_decay",
    }
    with pytest.raises(ValueError, match="no argument 'b9'"):
        optimizer(title="", authors=(), year=1, code=None, url="-", ranges={"b9": RANGES["b1"]})(
            bent
        )


def test_every_rule_takes_both_ends_of_its_ranges_and_traced_numbers():
    params = {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)}
    for rule in contestants(optimizers(["all"]), ["constant"], None).values():

        def init(settings, rule=rule):
            return [
                rule.build(one.pop("learning_rate"), 10, **one).init(params) for one in settings
            ]

        space = rule.space.items()
        ends = [{name: one.at(share) for name, one in space} for share in (0, 1)]
        # Plain numbers are checked for range, traced ones are not.
        jax.eval_shape(lambda init=init, ends=ends: init([dict(end) for end in ends]))
        jax.eval_shape(init, ends[:1])


def test_a_grid_grows_downwards_where_everything_diverges():
    search, tried = tuner("grid", None, DEFAULT), []
    while trials := search.propose(Contestant(BENT), tried, [np.inf] * len(tried)):
        tried += trials
    assert len(tried) == 20 and max(trial.rate for trial in tried) == 1.0


def test_random_trials_are_the_same_shares_for_all_and_grow_with_the_budget():
    plans = contestants(optimizers(["adam", "adamw", "sgd"]), ["constant"], None)
    few, many = (
        {n: RandomSearch(k).propose(plan, [], []) for n, plan in plans.items()} for k in (3, 20)
    )
    assert all(many[name][:3] == few[name] for name in plans)
    multiples = {
        name: [trial.rate / plans[name].default_rate for trial in many[name]] for name in plans
    }
    np.testing.assert_allclose(multiples["sgd"], multiples["adamw"], rtol=1e-4)
    assert [dict(t.options)["b2"] for t in many["adam"]] == [
        dict(t.options)["b2"] for t in many["adamw"]
    ]
    assert len({trial.rate for trial in many["adam"]}) == 20
    assert RandomSearch(3).propose(plans["sgd"], few["sgd"], [1.0] * 3) == []


@pytest.mark.usefixtures("known")
def test_all_trials_of_a_generation_are_one_program(tmp_path, monkeypatch):
    calls = []
    usual = sweep.Sweep.run
    monkeypatch.setattr(
        sweep.Sweep, "run", lambda self, cells, n=None: calls.append(cells) or usual(self, cells, n)
    )
    results = tuned("random:12", tmp_path)
    assert [len(cells) for cells in calls] == [24]
    frame = results.frame
    assert {"b1", "pull"} <= set(frame) and "weight_decay" not in frame
    place = np.log10(frame["learning_rate"]) + frame["b1"] + frame["pull"]
    np.testing.assert_allclose(frame["test_loss"], (place - 1) ** 2, rtol=1e-3, atol=1e-4)
    best = results.table.iloc[0]
    assert best["pull"] == frame.loc[frame["validation_loss"].idxmin(), "pull"]
    assert frame.equals(Results.load(tmp_path).frame)
    tuned("random:14", tmp_path)
    assert [len(cells) for cells in calls] == [24, 4]


@pytest.mark.usefixtures("known")
def test_tpe_learns_from_generation_to_generation_and_resumes(tmp_path):
    pytest.importorskip("optuna")
    seen = []
    results = tuned("tpe:24", tmp_path, seeds=1, progress=seen.append)
    losses = results.frame.set_index("learning_rate")["validation_loss"]
    order = [trial.rate for trial in results.grids["parabola", "bent"].trials]
    assert len(order) == 24 and len(set(order)) == 24
    first, last = losses[order[:GENERATION]], losses[order[-GENERATION:]]
    assert np.median(last) < np.median(first) / 2
    budget = results.budgets["bent"].to_numpy()
    assert (np.diff(budget) >= 0).all() and budget[-1] > budget[0]
    again = tuned("tpe:24", tmp_path, seeds=1, progress=seen.append)
    assert [p.computed for p in seen] == [24, 0] and again.frame.equals(results.frame)


def test_curves_of_the_best_after_so_many_trials():
    choice, worth = np.array([3.0, 1.0, 2.0]), np.array([0.1, 0.9, 0.5])
    np.testing.assert_allclose(best_so_far(choice, worth), [0.1, 0.9, 0.9])
    np.testing.assert_allclose(expected_best(choice, worth)[[0, 2]], [0.5, 0.9])


@pytest.mark.usefixtures("known")
def test_tuned_settings_are_shown_and_tested(capsys):
    results = tuned("random:6", until=0.2, test_seeds=3)
    page = report.html(results)
    assert "random:6" in page and "pull 1." in page and "With settings tuned" not in page
    assert results.until["steps"].tolist() == [1]
    rates = results.plot_rates("parabola").data
    assert (
        [len(dots.x) for dots in rates if dots.mode == "markers"] == [6, 1] == [6, len(rates) - 1]
    )
    assert "parabola" in " ".join(verdict(results))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("bayes:3", "unknown tuner 'bayes:3'"),
        ("random", "lacks a number of trials"),
        ("random:x", "lacks a number of trials"),
        ("tpe:0", "at least 1"),
    ],
)
def test_unknown_tuners_are_refused(text, words):
    with pytest.raises(UserError, match=words):
        tuner(text, None, DEFAULT)


def test_tuners_that_choose_rates_take_none_and_need_their_packages(monkeypatch):
    with pytest.raises(UserError, match="leave out the list"):
        run([parabola()], [bent], lrs=[0.1], tuner="random:3")
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(UserError, match="pip install"):
        tuner("tpe:3", None, DEFAULT)
    assert tuner("grid", Grid.of([0.1]), DEFAULT).propose(Contestant(BENT), [], []) == [Trial(0.1)]
