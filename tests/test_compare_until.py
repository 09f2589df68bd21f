"""Steps to a loss: the statistics, the runs, and what is said of them."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console
from scipy import stats

from optzoo import compose
from optzoo.compare import Results, UserError, run
from optzoo.compare.plan.contestants import Contestant
from optzoo.compare.plan.until import FIRST_SEED, Until, lengths
from optzoo.compare.read import steps as told
from optzoo.compare.read.verdict import verdict
from optzoo.compare.show import pictures, report, terminal
from optzoo.compare.work import sweep
from optzoo.compare.work.until import re_run, read_off
from optzoo.problems import Problem
from optzoo.registry import unpublished


def descent(learning_rate=1.0):
    return optax.sgd(learning_rate)


def to_the_end(learning_rate=1.0, *, total_steps):
    """Its steps add up to learning_rate·(total_steps + 1)/2."""
    return optax.sgd(lambda count: learning_rate * (1 - count / total_steps))


def counted(learning_rate=1.0, *, total_steps):
    """The same, but no length will do that only the run itself knows."""
    rates = [learning_rate * (1 - k / total_steps) for k in range(total_steps)]
    return optax.sgd(lambda count: jnp.stack(rates)[count])


def plane(lead=0.0, **changes):
    """Falls by the rate at every step; the test loss is `lead` above the validation loss."""
    details = {
        "init": lambda key: {"x": 0.1 * jax.random.normal(key)},
        "loss": lambda params, _: params["x"],
        "evaluate": lambda params, split: {"loss": params["x"] + lead * (split == "test")},
        "steps": 20,
        "target": -5.0,
        "name": "plane",
        "summary": "A plane",
    }
    return Problem(**(details | changes))


def ask(optimizers, out=None, *, until=-5.5, problem=None, **options):
    options = {"lrs": [0.5, 1.0], "seeds": 2, "test_seeds": 4} | options
    return run([problem or plane()], optimizers, until=until, out=out, **options)


@pytest.fixture
def standard():
    """Whole numbers times fractions, in threads that do not inherit a context."""
    jax.config.update("jax_numpy_dtype_promotion", "standard")
    yield
    jax.config.update("jax_numpy_dtype_promotion", "strict")


def test_the_test_is_student_s():
    losses = np.array([2.1, 2.3, 2.2, 2.35])
    p = stats.ttest_1samp(losses, 2.4, alternative="less").pvalue
    assert Until(2.4, 1 - p - 1e-6, 4).is_below(losses)
    assert not Until(2.4, 1 - p + 1e-6, 4).is_below(losses)
    opposite = Until(2.0, 0.95, 4)
    assert opposite.is_above(losses) and not opposite.is_below(losses)
    assert not Until(2.4).is_below(np.array([2.1, np.nan]))


def test_claims_are_wrong_no_more_often_than_the_confidence_says():
    rng, question, steps, wrong = np.random.default_rng(0), Until(-10.4, 0.9, 5), 20, []
    marks = np.arange(21)
    for _ in range(400):
        # The mean is -length, so 10 steps are too few, and 11 enough.
        noise = rng.normal(size=(2, 5, 21)).cumsum(axis=2) / 4
        tuning, testing = -marks + noise
        means = tuning.mean(axis=0)[None]
        answer = read_off(question, [0.1], marks, means, steps, {0.1: testing[:, 1:]}.get)
        wrong.append([answer.steps is not None and answer.steps < 11, answer.short > 10])
    shares = np.mean(wrong, axis=0)
    assert (shares < 0.1 + 3 * 0.015).all() and (shares > 0).all()


def test_tuning_follows_the_best_trial_down():
    seen = []

    def tune(trials, length):
        seen.extend((trial, length) for trial in trials)
        # "late" is better from 60 steps on, "early" before that.
        return np.array([-length if trial == "early" else 60 - 2.0 * length for trial in trials])

    def test(trial, length):
        return tune([trial], length) + np.linspace(-0.1, 0.1, 4)

    answer = re_run(
        Until(-30.5, 0.95, 4), ["early", "late"], np.array([-100.0, -140]), 100, tune, test
    )
    assert (answer.trial, answer.steps) == ("early", 31)
    assert answer.short < 31 and len(seen) < 60
    nobody = re_run(Until(-200, 0.95, 4), ["early"], np.array([-100.0]), 100, tune, test)
    assert (nobody.steps, nobody.short, list(nobody.losses)) == (None, 100, [100])


@pytest.mark.usefixtures("standard")
def test_one_run_is_read_where_the_rule_has_no_plan_and_many_are_made_where_it_has():
    results = ask([descent, to_the_end, counted], steps=12)
    table = results.until.set_index("optimizer")
    plans = [Contestant(unpublished(rule)) for rule in (to_the_end, counted)]
    assert [sweep.takes_any_length(plane(), plan) for plan in plans] == [True, False]
    # 6 steps of 1; the steps of the others add up to (n + 1)/2.
    assert table["steps"].to_dict() == {"descent": 6, "to_the_end": 11, "counted": 11}
    assert table["re_run"].to_dict() == {"descent": False, "to_the_end": True, "counted": True}
    assert (table["outcome"] == "reached").all() and (table["short"] < table["steps"]).all()
    assert (table["learning_rate"] == 1.0).all() and (table["trials"] == 2).all()
    assert (table["loss_low"] < table["loss"]).all() and (table["loss_high"] < -5.5).all()


def test_tuning_and_testing_share_neither_seeds_nor_data(monkeypatch):
    used = []
    usual = sweep.Sweep.run

    def watched(self, cells, length=None):
        used.append({seed for _, seed in cells})
        return usual(self, cells, length)

    monkeypatch.setattr(sweep.Sweep, "run", watched)
    table = ask([descent], problem=plane(lead=3.0)).until
    assert table["steps"].tolist() == [9]
    assert used == [{0, 1}, {FIRST_SEED + i for i in range(4)}]


def test_where_steps_cost_more_gradients_are_told(monkeypatch):
    def twice(learning_rate=1.0):
        return optax.sgd(learning_rate)

    entry = dataclasses.replace(unpublished(twice), gradients=2)
    monkeypatch.setitem(compose.BASELINES, "twice", entry)
    results = ask([descent, "twice"])
    table = results.until.set_index("optimizer")
    assert table[["steps", "gradients"]].to_numpy().tolist() == [[6, 6], [6, 12]]
    assert "the fewest gradients: descent 6 (over 5), twice 12 (over 10)" in " ".join(
        verdict(results)
    )
    assert "| twice | 6 | 12 | 5–6 |" in told.markdown(results)
    assert results.plot_until("plane").layout.xaxis.title.text == "gradients"


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.usefixtures("standard")
def test_what_is_known_is_not_computed_again(tmp_path, workers):
    seen = []
    # What a worker knows has come with the work.
    options = {"executor": ThreadPoolExecutor(workers) if workers else None}
    for _ in range(2):
        results = ask([descent, to_the_end], tmp_path, progress=seen.append, **options)
    assert all(p.computed for p in seen[:2]) and not any(p.computed for p in seen[2:])
    assert results.until.equals(Results.load(tmp_path).until)
    run([plane()], [descent], lrs=[1.0], seeds=2, out=tmp_path)
    assert Results.load(tmp_path).until.empty


def test_who_never_gets_there_is_said_to(capsys, monkeypatch, tmp_path):
    def diverging(learning_rate=1.0):
        return optax.sgd(lambda count: learning_rate * jnp.where(count < 10, 1.0, jnp.nan))

    results = ask([descent, diverging], until=-20.5)
    table = results.until.set_index("optimizer")
    assert table["outcome"].to_dict() == {"descent": "not reached", "diverging": "diverged"}
    assert table["steps"].isna().all() and (table["tested"] == 20).all()
    assert "nobody is shown to get in 20 steps" in " ".join(verdict(results))
    assert "not in 20" in told.markdown(results) and "nan" not in told.markdown(results)
    noisy = plane(evaluate=lambda p, s: {"loss": p["x"] if s == "validation" else 100 * p["x"]})
    noisy = dataclasses.replace(noisy, loss=lambda params, _: 1e-3 * params["x"])
    assert ask([descent], until=-0.01, problem=noisy).until["outcome"].tolist() == ["not shown"]


@pytest.mark.usefixtures("standard")
def test_shown_everywhere(capsys, monkeypatch, tmp_path):
    results = ask([descent, to_the_end], tmp_path)
    for width in (40, 80):
        monkeypatch.setattr(terminal, "_console", lambda width=width: Console(width=width))
        terminal.show_results(results)
        lines = capsys.readouterr().out.splitlines()
        assert max(len(line.rstrip()) for line in lines) <= width
        assert any(line.split()[:2] == ["descent", "6"] for line in lines)
    page, _, quoted = report.write(results, tmp_path)
    assert "Steps to a loss of -5.5" in page.read_text() and '"until-0"' in page.read_text()
    assert "| descent | 6 | 5–6 |" in quoted.read_text()
    assert "plane-until.png" in {path.name for path in pictures.write(results, tmp_path)}
    assert "descent 6 (over 5), to_the_end 11" in " ".join(verdict(results))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"until": float("nan")}, "until must be a loss"),
        ({"confidence": 1.0}, "confidence"),
        ({"test_seeds": 1}, "test seeds"),
        ({"optimizers": ["sgd+refined"]}, "no norms are recorded"),
    ],
)
def test_questions_that_make_no_sense_are_refused(options, words):
    with pytest.raises(UserError, match=words):
        ask(**({"optimizers": [descent]} | options))


def test_lengths_are_hundredths_or_single_steps():
    assert lengths(7).tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert len(lengths(1000)) == 100 and lengths(1000)[-1] == 1000
