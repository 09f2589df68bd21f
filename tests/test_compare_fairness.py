"""What everybody gets alike: grids, schedules, decay, splits; and how uncertainty is told."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest

from optzoo import REGISTRY
from optzoo.compare import Grid, Results, UserError, machine, results, run
from optzoo.compare.keep.store import Run
from optzoo.compare.plan.baselines import BASELINES, REFERENCE
from optzoo.compare.plan.contestants import contestants
from optzoo.compare.plan.grid import MAX_GROWTH
from optzoo.compare.plan.select import optimizers
from optzoo.compare.plan.tuners import Trial
from optzoo.compare.read.metrics import bootstrap, expected_best, letters, profile, progress
from optzoo.compare.read.pairing import changes, merged
from optzoo.compare.read.tables import Tried
from optzoo.compare.read.verdict import aligned, verdict
from optzoo.compare.show import export, report
from optzoo.compare.show.figures import charts
from optzoo.compare.show.figures.paths import path_chart
from optzoo.compare.work.sweep import Sweep, checkpoints
from optzoo.problems import Problem
from optzoo.registry import Registry, unpublished


def descent(learning_rate=0.1):
    return optax.sgd(learning_rate)


def faster(learning_rate=0.1):
    return optax.sgd(learning_rate, momentum=0.5)


def decayed(learning_rate=0.1, *, weight_decay=0.5):
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(learning_rate))


def own_schedule(learning_rate=0.1, *, total_steps):
    return optax.sgd(optax.linear_schedule(learning_rate, 0.0, total_steps))


def slope(params, _):
    return jnp.sum(params["x"])


def plane(loss=slope, **changes):
    """With a constant gradient, so that the path tells every single step."""
    details = {
        "init": lambda key: {"x": jnp.zeros(())},
        "loss": loss,
        "evaluate": lambda params, split: {"loss": loss(params, None)},
        "steps": 10,
        "target": -5.0,
        "name": "plane",
    }
    return Problem(**(details | changes))


def bowl():
    def loss(params, _):
        return jnp.sum(params["point"] ** 2)

    return Problem(
        init=lambda key: {"point": 1 + 0.1 * jax.random.normal(key, (2,))},
        loss=loss,
        evaluate=lambda params, split: {
            "loss": loss(params, None),
            "x": params["point"][0],
            "y": params["point"][1],
        },
        steps=8,
        target=0.01,
        box=(-2.0, 2.0, -2.0, 2.0),
        name="bowl",
        summary="A bowl",
    )


@pytest.fixture
def with_optax():
    """Optax's Adam does not bear strict promotion, and threads do not inherit a context."""
    jax.config.update("jax_numpy_dtype_promotion", "standard")
    yield
    jax.config.update("jax_numpy_dtype_promotion", "strict")


def test_everybody_takes_part_under_every_schedule_but_keeps_its_own():
    found = run(
        [plane()], [descent, own_schedule], schedules=["constant", "cosine"], lrs=[1.0], seeds=1
    )
    ends = found.frame.set_index("optimizer")["validation_loss"]
    shape = optax.warmup_cosine_decay_schedule(0.0, 1.0, 1, 10)
    assert set(ends.index) == {"descent", "descent+cosine", "own_schedule"}
    np.testing.assert_allclose(ends["descent"], -10.0)
    np.testing.assert_allclose(ends["descent+cosine"], -sum(map(shape, range(10))), rtol=1e-5)
    np.testing.assert_allclose(ends["own_schedule"], -5.5, rtol=1e-5)


def test_weight_decay_is_held_for_all_who_have_it():
    def end(**options):
        bowls = [plane(lambda p, _: jnp.sum(p["x"]), init=lambda key: {"x": jnp.ones(())})]
        found = run(bowls, [decayed, descent], lrs=[0.1], seeds=1, steps=1, **options)
        return found.frame.set_index("optimizer")["validation_loss"]

    np.testing.assert_allclose(end()[["decayed", "descent"]], [0.85, 0.9], rtol=1e-6)
    np.testing.assert_allclose(end(weight_decay=0.0)[["decayed", "descent"]], 0.9, rtol=1e-6)


def test_a_schedule_may_have_arguments():
    rules = contestants({"adamw": BASELINES["adamw"]}, ["cyclical(period=4, floor=0.5)"], 0.0)
    (rule,) = rules.values()
    assert [*rules] == ["adamw+cyclical(period=4, floor=0.5)"]
    tx, params = rule.build(0.1, 10), {"w": jnp.zeros(2)}
    # Optax's rules promote dtypes implicitly.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        updates, _ = tx.update({"w": jnp.ones(2)}, tx.init(params), params)
    np.testing.assert_allclose(updates["w"], [-0.05, -0.05], rtol=1e-5)
    with pytest.raises(UserError, match="periode"):
        contestants({"adamw": BASELINES["adamw"]}, ["cyclical(periode=4)"], None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"schedules": []}, "list of schedules is empty"),
        ({"schedules": ["cosin"]}, "unknown schedule 'cosin'"),
        ({"weight_decay": -1.0}, "weight decay"),
        ({"weight_decay": float("nan")}, "weight decay"),
    ],
)
def test_bad_protocols_are_refused(options, words):
    with pytest.raises(UserError, match=words):
        run([plane()], [descent], **options)


def test_grids_grow_while_the_best_is_outermost_but_not_for_ever():
    found = run([plane()], [descent], lrs=Grid.of([0.1, 1.0], relative=True), seeds=1)
    assert len(found.frame) == 2 * (1 + MAX_GROWTH)
    assert found.table["edge"].all() and "outermost" in report.html(found)
    np.testing.assert_allclose(found.frame["multiple"].max(), 10.0 ** (2 * MAX_GROWTH))


@pytest.mark.usefixtures("with_optax")
def test_every_registered_rule_takes_a_schedule():
    entries = contestants(optimizers(None), ["cosine"], None)
    own = [name for name, one in entries.items() if one.schedule == "constant"]
    assert 0 < len(own) < len(entries) / 2
    found = run(["quadratic"], None, schedules=["cosine"], lrs=[1e-3], seeds=1, steps=3)
    assert set(found.table["optimizer"]) == set(entries)
    assert np.isfinite(found.frame["test_loss"]).all()


def test_declarations_decide_who_takes_part_by_default():
    chosen, everybody = optimizers(None), optimizers(["all"])
    assert {"grams", "muon", "sgd", "adamw", REFERENCE} <= set(chosen) <= set(everybody)
    assert all(entry.default == (name in chosen) for name, entry in everybody.items())
    assert set(everybody) == {*REGISTRY.optimizers, *BASELINES}
    registered = Registry()
    registered.add(unpublished(descent))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("optzoo.REGISTRY", registered)
        assert set(optimizers(None)) == set(BASELINES)
        assert set(optimizers(["all"])) == {"descent", *BASELINES}


@pytest.mark.usefixtures("with_optax")
def test_the_reference_is_what_its_name_says():
    found = run([plane()], ["adamw"], schedules=["cosine"], seeds=1)
    named = run([plane()], [REFERENCE], seeds=1)
    assert set(found.table["optimizer"]) == set(named.table["optimizer"]) == {REFERENCE}
    pd.testing.assert_frame_equal(
        found.frame.drop(columns="seconds"), named.frame.drop(columns="seconds")
    )
    assert contestants(optimizers(None), ["constant", "cosine"], None).keys() >= {
        "adamw",
        REFERENCE,
    }
    plain = run([plane()], ["adamw"], lrs=[0.01], seeds=1).frame["validation_loss"]
    decayed = run([plane()], [REFERENCE], lrs=[0.01], seeds=1).frame["validation_loss"]
    np.testing.assert_allclose([*plain, *decayed], [-0.1, -0.05], rtol=0.01)


def test_validation_decides_and_test_reports():
    def evaluate(params, split):
        best = {"validation": 1.0, "test": 3.0}[split]
        return {"loss": (params["x"] - best) ** 2}

    found = run([plane(evaluate=evaluate)], [descent], lrs=[0.1, 0.3], seeds=1)
    row = found.table.iloc[0]
    assert row["learning_rate"] == 0.1
    np.testing.assert_allclose(row["test_loss"], 16.0, rtol=1e-5)


def test_a_problem_that_starts_at_nan_is_refused():
    with pytest.raises(UserError, match="'plane' starts at a loss of nan"):
        run([plane(lambda p, _: jnp.sum(p["x"]) * jnp.nan)], [descent])


def test_runs_that_do_not_fit_into_memory_together_go_one_after_the_other(monkeypatch):
    cells = [(Trial(0.1), seed) for seed in range(5)]

    def sweep():
        [contestant] = contestants(optimizers([descent]), ["constant"], None).values()
        return Sweep(bowl(), contestant, 8)

    whole, split = sweep(), sweep()
    expected = whole.run(cells)
    one = machine.available()
    sizes = whole._program.memory_analysis()
    need = sizes.argument_size_in_bytes + sizes.output_size_in_bytes + sizes.temp_size_in_bytes
    monkeypatch.setattr("optzoo.compare.work.sweep.available", lambda: 0.6 * need)
    outcome = split.run(cells)
    assert one > need and split._width < len(cells) == whole._width
    np.testing.assert_allclose(outcome.curves["loss"], expected.curves["loss"], rtol=1e-6)
    monkeypatch.setattr("optzoo.compare.work.sweep.available", lambda: 10.0)
    with pytest.raises(UserError, match="'descent' on 'bowl': MemoryError: one run needs"):
        run([bowl()], [descent], lrs=[0.1])


def test_checkpoints_of_paths_are_dense_at_the_beginning():
    marks = checkpoints(1000, path=True)
    assert (marks[0], marks[-1]) == (0, 1000) and len(marks) > len(checkpoints(1000))
    assert marks[5] < checkpoints(1000)[5]


def test_paths_over_landscapes():
    figure = path_chart(run([bowl()], [descent, faster], lrs=[0.1], seeds=1), "bowl")
    relief, *paths = figure["data"]
    assert np.asarray(relief["z"]).argmin() == pytest.approx(np.size(relief["z"]) / 2, rel=0.02)
    assert {path["name"] for path in paths} == {"descent", "faster"}
    assert all(len(path["x"]) == len(figure["frames"]) for path in paths)
    assert path_chart(run([plane()], [descent], lrs=[0.1], seeds=1), "plane") is None


def test_bootstrap_tells_ties_from_differences():
    rng = np.random.default_rng(1)
    losses = {name: np.exp(rng.normal(size=(1, 5))) for name in ("first", "second")}
    losses["worse"] = 100 * np.exp(rng.normal(size=(1, 5)))
    losses["lost"] = np.full((1, 5), np.nan)
    drawn = bootstrap([{name: (values, values) for name, values in losses.items()}])
    assert (drawn["worse"] == 3).all() and (drawn["lost"] == 4).all()
    assert 0.05 < (drawn["first"] < drawn["second"]).mean() < 0.95


def test_bootstrap_chooses_by_validation_and_ranks_by_test():
    chosen = np.array([[1.0, 1.0], [2.0, 2.0]])
    drawn = bootstrap([{"a": (chosen, 10 * chosen[::-1]), "b": (chosen, 15 + 0 * chosen)}])
    assert (drawn["a"] == 2).all() and (drawn["b"] == 1).all()


def test_ranking_shows_ties_as_equal_places():
    found = run([bowl()], [descent, faster, optax.sgd], lrs=[0.1])
    places = found.ranking.set_index("optimizer")["place"]
    assert places["descent"] == places["sgd"] and places["faster"] != places["descent"]
    assert found.ranking["rank_low"].le(found.ranking["rank_high"]).all()


@pytest.mark.parametrize("odd", [0.0, 0.1])
def test_letters_are_shared_by_those_who_are_not_told_apart(odd):
    """Competitors on a line, told apart by their distance, but for a share of odd pairs."""
    rng = np.random.default_rng(0)
    for count in (1, 2, 5, 20):
        centres = np.sort(rng.uniform(0, 10, count))
        far = abs(centres[:, None] - centres) > 2
        apart = np.triu(far ^ (rng.uniform(size=far.shape) < odd), 1)
        apart |= apart.T
        found = letters(apart)
        shared = [[bool(set(one) & set(other)) for other in found] for one in found]
        np.testing.assert_array_equal(shared, ~apart)
        assert found[0][0] == "a"
        # On a line, nobody needs a letter for itself that another one's would not do.
        assert odd or all(ties in "abcdefghijklmnopqrst" for ties in found)


def test_a_few_letters_stand_in_columns():
    assert aligned(["a", "ac", "bc", "AZ"]) == ["a    ", "a c  ", " bc  ", "   AZ"]
    many = [*"abcdefghijklm", "am"]
    assert aligned(many) == many


def test_the_ranking_is_in_the_order_of_mean_ranks():
    rng = np.random.default_rng(3)
    names = [f"rule {i}" for i in range(8)]
    grids = {
        (problem, name): Tried(
            "",
            [Run(0.1, seed, {"loss": [9.0, end]}, {"loss": end}) for seed, end in enumerate(ends)],
            0.1,
            1.0,
            1,
            {"cpu": 1e-3},
        )
        for problem in ("one", "two")
        for i, name in enumerate(names)
        for ends in [np.exp(0.3 * i + rng.normal(size=3))]
    }
    details = {"steps": 1, "checkpoints": [0, 1], "target": 1.0}
    found = Results({"seeds": 3, "problems": {"one": details, "two": details}}, grids)
    ranking = found.ranking
    assert ranking["rank"].is_monotonic_increasing
    # Whoever shares no letter with the first is behind it; places alone would not tell.
    behind = [not set(ties) & set(ranking["ties"][0]) for ties in ranking["ties"]]
    assert behind[0] is False and behind[-1] is True
    assert (ranking["place"][behind] > 1).all()


def test_times_are_compared_only_where_they_were_taken_on_equal_devices():
    runs = [Run(0.1, 0, {"loss": [9.0, 1.0]}, {"loss": 1.0}, device="GPU")]
    costs = {"a": {"CPU": 1.0, "GPU": 0.1}, "b": {"GPU": 0.2}, "c": {"CPU": 9.0}, "d": {"GPU": 0.3}}
    grids = {("one", name): Tried("", runs, 0.1, 1.0, 1, cost) for name, cost in costs.items()}
    details = {"steps": 10, "checkpoints": [0, 10], "target": 1.0}
    found = Results({"seeds": 1, "problems": {"one": details}}, grids)
    assert found.timed_on == "GPU" and found.devices == ["GPU"]
    seconds = found.frame.set_index("optimizer")["seconds"]
    assert seconds.dropna().to_dict() == {"a": 1.0, "b": 2.0, "d": 3.0}
    assert found.table.set_index("optimizer")["step_seconds"].isna().to_dict()["c"]


def test_one_seed_tells_nobody_apart():
    found = run([bowl()], [descent, faster], lrs=[0.1], seeds=1)
    assert found.ranking["place"].tolist() == [1, 1]
    assert found.ranking["ties"].tolist() == ["a", "a"]
    assert "do not tell it from" in verdict(found)[0]


def test_the_verdict_over_many_problems_counts_them():
    problems = [dataclasses.replace(bowl(), name=f"bowl {i}") for i in range(7)]
    sentences = verdict(run(problems, [descent, faster], lrs=[0.1], seeds=2))
    assert any("faster on 7 of 7" in sentence for sentence in sentences)
    assert not any("bowl 3" in sentence for sentence in sentences)


def test_expected_best_of_k_trials_is_the_mean_over_all_draws():
    from itertools import combinations

    choice, worth = [3.0, 1.0, 2.0, np.inf], [0.2, 0.9, 0.5, 0.0]
    for k, value in enumerate(expected_best(choice, worth), 1):
        draws = [worth[min(draw, key=lambda i: choice[i])] for draw in combinations(range(4), k)]
        np.testing.assert_allclose(value, np.mean(draws))


def test_performance_profiles():
    steps = {"a": np.array([10.0, 40.0, np.nan]), "b": np.array([20.0, np.nan, np.nan])}
    shares = profile(steps, np.array([1.0, 2.0]))
    np.testing.assert_allclose(shares["a"], [2 / 3, 2 / 3])
    np.testing.assert_allclose(shares["b"], [0, 1 / 3])


def test_progress_spans_start_and_the_best_that_matters():
    made = progress(np.array([100.0, 10.0, 1.0, 1e-9, 1e3, np.nan]), 100.0, 1e-9, 10.0)
    np.testing.assert_allclose(made, [0, 0.5, 1, 1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(progress(np.array([0.0]), 5.0, -5.0, -4.0), 0.5)


def test_results_are_read_back_and_exported(tmp_path):
    found = run([bowl()], [descent], lrs=[0.1], seeds=2, out=tmp_path)
    assert results(tmp_path).equals(found.frame)
    files = {kind: tmp_path / f"runs.{kind}" for kind in ("csv", "json")}
    written = export.write(found, **files, png=tmp_path / "png")
    assert all(path.stat().st_size for path in written)
    assert len(json.loads(files["json"].read_text())) == len(found.frame)
    overall = len(charts.OVERALL)
    by_problem = sum(chart.applies(found, "bowl") for chart in charts.BY_PROBLEM.values())
    assert len(list((tmp_path / "png").iterdir())) == overall + by_problem
    with pytest.raises(UserError, match="cannot write"):
        export.write(found, csv=tmp_path / "none" / "runs.csv")


def test_parquet_needs_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    found = run([bowl()], [descent], lrs=[0.1], seeds=1)
    with pytest.raises(UserError, match="pip install pyarrow"):
        export.write(found, parquet=tmp_path / "runs.parquet")


@pytest.mark.usefixtures("with_optax")
def test_every_chart_can_be_drawn_in_a_notebook():
    easy = dataclasses.replace(bowl(), target=1.8)
    found = run([easy], [descent, REFERENCE], lrs=[0.1], seeds=2, until=1.8, test_seeds=2)
    drawn = [found.plot_ranking(), found.plot_speed(), found.plot_profile(), found.plot_budget()]
    drawn += [found.plot_losses("bowl"), found.plot_rates("bowl"), found.plot_until("bowl")]
    assert len(drawn) == len(charts.CHARTS)
    assert all(figure.data and "$" not in figure.to_json() for figure in drawn)


def test_two_comparisons_together(tmp_path):
    first = run([bowl()], [descent, faster], lrs=[0.1], out=tmp_path / "a")
    second = run([bowl()], [descent, faster], lrs=[0.1], steps=8, out=tmp_path / "b")
    rows = changes(first, second, ("a", "b"))
    assert [row[-1] for row in rows[1:]] == ["same", "same"]
    assert set(merged(first, second, ("a", "b")).table["optimizer"]) == {"descent", "faster"}

    def slower(learning_rate=0.1):
        return optax.sgd(learning_rate / 10)

    slower.__name__ = "faster"
    changed = run([bowl()], [descent, slower], lrs=[0.1], out=tmp_path / "c")
    assert [row[-1] for row in changes(first, changed, ("a", "c"))[1:]] == ["same", "worse"]
    both = merged(first, changed, ("a", "c"))
    assert set(both.table["optimizer"]) == {"descent", "faster (a)", "faster (c)"}
    page, together = report.write_both(first, changed, tmp_path / "a", tmp_path / "c")
    assert together.table.equals(both.table)
    assert "What changed" in page.read_text("utf-8")
    longer = run([bowl()], [descent], lrs=[0.1], steps=9)
    with pytest.raises(UserError, match="other steps"):
        merged(first, longer, ("a", "d"))


def test_costs_are_told():
    found = run([bowl()], [descent, faster], lrs=[0.1], steps=400)
    table = found.table.set_index("optimizer")
    assert table["state_ratio"].to_dict() == {"descent": 0.0, "faster": 1.0}
    assert isinstance(found, Results) and (table["step_seconds"].dropna() > 0).all()
