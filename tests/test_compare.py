import dataclasses
import json
import re
import sqlite3

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from subjects import ONE_EACH

from optzoo import REGISTRY
from optzoo.compare import Grid, Results, UserError, run
from optzoo.compare.keep.store import STORE_NAME, Store
from optzoo.compare.plan import select
from optzoo.compare.plan.contestants import Contestant
from optzoo.compare.read.metrics import ranks, run_metrics, usable
from optzoo.compare.read.verdict import verdict
from optzoo.compare.show import report
from optzoo.compare.show.figures.charts import CHARTS
from optzoo.compare.show.figures.form import labels
from optzoo.compare.show.figures.problem import loss_curves, rate_curves
from optzoo.compare.work import sweep
from optzoo.compare.work.sweep import Sweep, checkpoints
from optzoo.problems import PROBLEMS, Problem
from optzoo.registry import Trait, unpublished


def descent(learning_rate=0.1):
    return optax.sgd(learning_rate)


def sign_descent(learning_rate=0.01):
    return optax.sign_sgd(learning_rate)


def bowl(steepness=1.0):
    def loss(params, key):
        return steepness * jnp.sum(params["x"] ** 2)

    return Problem(
        lambda key: {"x": jax.random.normal(key, (3,))},
        loss,
        lambda params, split: {"loss": loss(params, None), "size": jnp.sum(abs(params["x"]))},
        steps=8,
        target=0.01,
        name="bowl",
        summary="A bowl",
    )


def compare(out=None, optimizers=(descent, sign_descent), problems=None, **options):
    return run(problems or [bowl()], optimizers, **({"seeds": 2} | options), out=out)


def test_runs_equal_a_plain_training_loop():
    results = compare(lrs=[0.05, 0.2])
    task, seed, rate = bowl(), 1, 0.2
    params = task.init(jax.random.key(seed))
    for _ in range(task.steps):
        gradients = jax.grad(task.loss)(params, None)
        params = jax.tree.map(lambda p, g: p - rate * g, params, gradients)
    frame = results.frame.set_index(["optimizer", "learning_rate", "seed"])
    row = frame.loc["descent", rate, seed]
    np.testing.assert_allclose(row["test_loss"], task.loss(params, None), rtol=1e-5)
    assert row["validation_size"] == row["test_size"]


def test_data_may_depend_on_the_step_and_steps_may_be_observed():
    task = dataclasses.replace(
        bowl(),
        loss=lambda params, slope: slope * params["x"].sum(),
        evaluate=lambda params, split: {"loss": params["x"].sum()},
        stream=lambda key, step: 1 + step.astype("float32"),
        observe=lambda before, after, slope: {"moved": (before["x"] - after["x"])[0]},
    )
    results = compare(problems=[task], optimizers=[descent], lrs=[0.5])
    for trained in results.grids["bowl", "descent"].runs:
        loss, moved = trained.curves["loss"], trained.curves["moved"]
        np.testing.assert_allclose(moved, 0.5 * np.arange(1, task.steps + 2), rtol=1e-5)
        np.testing.assert_allclose(-np.diff(loss), 3 * np.asarray(moved[:-1]), rtol=1e-4)


def test_programs_that_call_lapack_take_turns(monkeypatch):
    turns = []

    class Counted:
        def __enter__(self):
            turns.append(len(turns))

        def __exit__(self, *error):
            pass

    monkeypatch.setattr(sweep, "LAPACK", Counted())
    # Else the machine's speed decides how often a step is timed.
    monkeypatch.setattr(sweep, "TRIAL_SECONDS", 0)
    compare(lrs=[0.1])
    starts = len(turns)

    def stretch(params, split):
        return {"loss": jnp.linalg.norm(jnp.outer(params["x"], params["x"]), 2)}

    compare(lrs=[0.1], problems=[dataclasses.replace(bowl(), evaluate=stretch)])
    # The starts of a rule's compilation and of its calls take a turn each, and now the calls, too.
    calls = starts - len((descent, sign_descent))
    assert len(turns) == 2 * starts + calls


def test_frame_has_a_row_for_every_run_and_the_table_one_for_every_pair():
    results = compare(lrs=[0.05, 0.2])
    assert len(results.frame) == 2 * 2 * 2
    unknown = results.frame.isna().drop(
        columns=["steps_to_target", "gradients_to_target", "seconds"]
    )
    assert not unknown.any(axis=None)
    assert len(results.table) == 2
    assert results.best() == {"bowl": "descent"}
    assert results.ranking["optimizer"][0] == "descent"


def test_relative_grids_centre_on_the_defaults_and_grow_towards_the_best():
    results = compare()
    tried = results.frame.groupby("optimizer")["learning_rate"].agg(["min", "max", "nunique"])
    assert tried.loc["descent"].tolist() == [0.01, 1.0, 5]
    assert tried.loc["sign_descent"].tolist() == [0.001, 31.6, 10]


def compared_at_least():
    """A rule of each family, and of each set of traits: what comparisons treat alike."""
    alike = {entry.traits: name for name, entry in REGISTRY.optimizers.items()}
    return {name: REGISTRY[name] for name in [*ONE_EACH, *alike.values()]}


@pytest.mark.parametrize(
    "optimizers",
    [
        pytest.param(compared_at_least(), id="one of each kind"),
        pytest.param(REGISTRY.optimizers, id="all", marks=pytest.mark.slow),
    ],
)
def test_optimizers_of_the_registry_learn(optimizers):
    rates = Grid.of([1.0], relative=True)
    results = run(["quadratic"], optimizers, lrs=rates, seeds=1, steps=20)
    assert set(results.table["optimizer"]) == set(optimizers)
    assert np.isfinite(results.frame["test_loss"]).all()
    schedule = [name for name, entry in optimizers.items() if Trait.SCHEDULED in entry.traits]
    assert schedule, "nothing here tests that the number of steps arrives"


def test_repeating_a_comparison_repeats_no_run(tmp_path):
    seen = []
    for _ in range(2):
        results = compare(tmp_path, lrs=[0.05, 0.2], progress=seen.append)
    assert [p.computed for p in seen] == [4, 4, 0, 0]
    assert [p.reused for p in seen] == [0, 0, 4, 4]
    assert results.frame.equals(Results.load(tmp_path).frame)


def test_more_seeds_and_rates_cost_only_themselves(tmp_path):
    compare(tmp_path, [descent], lrs=[0.05], seeds=1)
    seen = []
    compare(tmp_path, [descent], lrs=[0.05, 0.2], seeds=1, progress=seen.append)
    results = compare(tmp_path, [descent], lrs=[0.05, 0.2], seeds=2, progress=seen.append)
    assert [p.computed for p in seen] == [1, 2]
    assert len(results.frame) == 4


def test_a_changed_problem_invalidates_its_own_runs(tmp_path):
    compare(tmp_path, [descent], lrs=[0.05])
    seen = []
    compare(tmp_path, [descent], [bowl(2.0)], lrs=[0.05], progress=seen.append)
    assert seen[0].reused == 0


def test_fingerprints_see_data_and_starts_and_nothing_accidental():
    def fingerprint(start=(0.0, 0.0), data=(1.0, 2.0), steps=2):
        start, data = jnp.asarray(start), jnp.asarray(data)

        def loss(params, _):
            return jnp.sum((params - data) ** 2)

        task = Problem(lambda key: start, loss, lambda p, _: {"loss": loss(p, None)}, 2, 0.0)
        return Sweep(task, Contestant(unpublished(descent)), steps).fingerprint

    assert fingerprint() == fingerprint()
    others = [fingerprint(start=(0.0, 1.0)), fingerprint(data=(1.0, 3.0)), fingerprint(steps=3)]
    assert len({fingerprint(), *others}) == 4


def test_checkpoints_span_the_run():
    assert checkpoints(1).tolist() == [0, 1]
    marks = checkpoints(1000)
    assert (marks[0], marks[-1]) == (0, 1000) and (np.diff(marks) > 0).all()


def test_divergence_is_counted_and_ranks_last():
    results = compare(lrs=[100.0], problems=[bowl(1e6)])
    table = results.table.set_index("optimizer")
    assert table.loc["descent", "diverged"] == 1
    assert verdict(results) and report.html(results)


def test_ranks_tie_what_seeds_cannot_tell_apart():
    losses = {
        "clear": np.array([0.10, 0.11, 0.09]),
        "also": np.array([0.105, 0.095, 0.11]),
        "worse": np.array([0.5, 0.52, 0.51]),
        "lost": np.array([0.1, np.nan, 0.1]),
    }
    assert ranks(losses) == {"clear": 1, "also": 1, "worse": 3, "lost": 4}


def test_run_metrics():
    metrics = run_metrics([4.0, 1.0, 2.0], [0, 10, 20], target=1.5)
    assert metrics == {
        "validation_loss": 2.0,
        "best_validation_loss": 1.0,
        "mean_validation_loss": pytest.approx(7 / 3),
        "steps_to_target": 10.0,
        "diverged": False,
    }
    assert run_metrics([1.0, np.nan], [0, 1], target=0)["diverged"]
    assert usable(10.0, [9.0, 1.0, 0.0, np.inf]) == 2


@pytest.mark.parametrize(
    ("text", "grid"),
    [
        ("0.1, 0.01", Grid((0.01, 0.1), False)),
        ("x1,x10", Grid((1.0, 10.0), True)),
        ("1e-3", Grid((1e-3,), False)),
    ],
)
def test_grids_are_read(text, grid):
    assert Grid.parse(text) == grid


@pytest.mark.parametrize("text", ["", ",", "0", "-1", "nan", "inf", "x1,2", "a"])
def test_bad_grids_are_refused(text):
    with pytest.raises(UserError):
        Grid.parse(text)


def test_report_is_one_page_without_links_to_elsewhere(tmp_path):
    results = compare(tmp_path, lrs=[0.05, 0.2])
    page, table = report.write(results, tmp_path)
    text = page.read_text("utf-8")
    assert "descent" in text and len(text) < 8e6
    assert not re.search(r'(src|href)\s*=\s*["\']?http', text.split("<script>")[0])
    assert table.read_text("utf-8").count("\n") == 1 + len(results.frame)
    assert {path.name for path in tmp_path.iterdir()} == {STORE_NAME, page.name, table.name}


def test_names_in_the_report_are_escaped():
    def rule(learning_rate=0.1):
        return optax.sgd(learning_rate)

    rule.__name__ = "<b>&</script>"
    results = compare(optimizers=[rule, descent], lrs=[0.1])
    text = report.html(results)
    assert "<b>&</script>" not in text and "&lt;b&gt;&amp;" in text


@pytest.mark.parametrize("draw", [loss_curves, rate_curves])
def test_figures_are_json(draw):
    results = compare(lrs=[0.05, 0.2, 1e30])
    json.dumps(draw(results, "bowl"), allow_nan=False)


def test_long_names_leave_charts_their_room():
    def rule(learning_rate=0.1):
        return optax.sgd(learning_rate)

    rule.__name__ = "lookahead(schedule_free(adamp, weight_decay=0.1), period=10)"
    results = compare(optimizers=[rule, descent], lrs=[0.1])
    chart = CHARTS["ranking"].draw(results)["layout"]
    shown = "lookahead(sch…, period=10)"
    assert shown in chart["yaxis"]["ticktext"] and "descent" in chart["yaxis"]["ticktext"]
    beside = CHARTS["losses"].draw(results, "bowl")["layout"]
    assert shown in [note["text"] for note in beside["annotations"]]
    # Half of a chart on a page that is 1100 wide.
    assert chart["margin"]["l"] + chart["margin"]["r"] < 270 and beside["margin"]["r"] < 270


def test_short_names_differ_where_long_ones_do():
    names = [
        "adamw",
        "schedule_free(adamp, weight_decay=0.1)",
        "schedule_free(adamw, weight_decay=0.1)",
        "grokfast(adamw, alpha=0.98)",
        "grokfast(adamw, alpha=0.9, n=2)",
        "lookahead(schedule_free(adamp), period=10)",
        "lookahead(schedule_free(adamp), period=20)",
    ]
    short = labels(names)
    assert short["adamw"] == "adamw" and short[names[1]] == "schedule_free(adamp, …)"
    assert len(set(short.values())) == len(names) and max(map(len, short.values())) <= 26


def test_negative_losses_and_single_seeds():
    def loss(params, _):
        return jnp.sum(params**2) - 5.0

    task = Problem(
        lambda key: jnp.ones(2), loss, lambda p, _: {"loss": loss(p, None)}, steps=3, target=-4
    )
    results = compare(optimizers=[descent], problems=[task], seeds=1)
    assert report.html(results)
    json.dumps(loss_curves(results, "problem"), allow_nan=False)


def test_stores_that_cannot_be_used(tmp_path):
    with pytest.raises(UserError, match="no results"):
        Results.load(tmp_path)
    path = tmp_path / STORE_NAME
    path.write_text("not a database, but long enough to be looked at as if it were one" * 20)
    with pytest.raises(UserError, match="cannot use"):
        Results.load(tmp_path)
    path.unlink()
    with Store(path):
        pass
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(UserError, match="newer"):
        compare(tmp_path)


def test_problems_that_cannot_be_traced():
    task = bowl()
    broken = {
        "branches": {"loss": lambda p, _: p["x"][0] if p["x"][0] > 0 else 0.0},
        "vector": {"loss": lambda p, _: p["x"]},
        "no report": {"evaluate": lambda p, _: jnp.sum(p["x"])},
        "vector report": {"evaluate": lambda p, _: {"loss": p["x"]}},
        "vector observed": {"observe": lambda before, after, _: after},
        "name taken": {"observe": lambda before, after, _: {"loss": after["x"][0]}},
    }
    for change in broken.values():
        with pytest.raises(UserError, match="cannot be traced"):
            compare(problems=[Problem(**(vars(task) | change))])


def test_groups_name_problems_and_the_default_is_a_few():
    landscapes = [name for name, one in PROBLEMS.items() if one.group == "landscapes"]
    results = run(["landscapes"], [descent], lrs=[1e-3], seeds=1, steps=2)
    assert results.problems == landscapes
    assert list(select.problems(None)) == ["rosenbrock", "quadratic", "digits", "language"]
    with pytest.raises(UserError, match="did you mean 'landscapes'"):
        select.problems(["landscape"])
