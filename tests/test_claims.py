"""The claims' scripts run, judge by the interval alone, and are all shown."""

import ast
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import optzoo

ROOT = Path(__file__).parents[1]
CLAIMS = ROOT / "examples" / "claims"
sys.path.insert(0, str(CLAIMS))

import page  # noqa: E402
from shared import drawing  # noqa: E402
from shared.protocol import (  # noqa: E402
    FAILS,
    HOLDS,
    UNDECIDED,
    Record,
    Trend,
    claimed,
    measured,
    overall,
    told,
)

# A few steps are not worth XLA's slower passes.
QUICKLY = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


# A minute each, nearly all of it compilation.
@pytest.mark.slow
@pytest.mark.parametrize("script", page.SCRIPTS, ids=lambda script: script.stem)
def test_claim_runs(script, tmp_path):
    command = [sys.executable, "-W", "error", script, "--share", "0.002", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=QUICKLY)
    assert done.returncode == 0, done.stderr
    record = Record.load(tmp_path / f"{script.stem}.json")
    assert f"Verdict: {record.verdict}" in done.stdout and "no evidence" in done.stdout
    assert (tmp_path / f"{script.stem}.png").stat().st_size > 10_000


def test_records_are_of_full_runs_of_the_scripts_as_they_stand():
    records = page.load()
    for script in page.SCRIPTS:
        record = records[script.stem]
        assert record.rule in optzoo.REGISTRY
        assert record.share == 1
        docstring = ast.get_docstring(ast.parse(script.read_text("utf-8")))
        assert (record.title, record.protocol) == told(docstring)
        assert record.verdict == overall(record.findings)
        assert any(one.least is not None for one in record.findings)


def test_the_pages_show_what_was_recorded():
    records = page.load()
    shown = page.PAGE.read_text("utf-8")
    assert all(page.section(stem, record) in shown for stem, record in records.items())
    assert page.summary(records) in shown
    assert page.shown() == page.digest(records)


@pytest.mark.parametrize(
    ("samples", "bounds", "verdict"),
    [
        ([1.0, 1.1, 0.9], {"above": 0.5}, HOLDS),
        ([1.0, 1.1, 0.9], {"below": 0.5}, FAILS),
        ([1.0, 1.1, 0.9], {"above": 1.0}, UNDECIDED),
        ([1.0, 1.1, 0.9], {"above": 0.5, "below": 1.5}, HOLDS),
        ([1.0, 1.1, 0.9], {"above": 1.5, "below": 2.0}, FAILS),
        ([0.0, 0.0, 0.0], {"above": 0.0}, FAILS),
        ([2.0], {"above": 1.0}, HOLDS),
        ([1.0, math.nan, 1.0], {"above": 0.0}, UNDECIDED),
        ([1.0, math.inf, 1.0], {"above": 0.0}, UNDECIDED),
    ],
)
def test_the_interval_decides(samples, bounds, verdict):
    assert measured("", samples, **bounds).verdict == verdict


@pytest.mark.parametrize(
    ("effects", "least", "verdict"),
    [
        ([1.9, 2.0, 2.1], 1.0, HOLDS),
        ([1.9, 2.0, 2.1], 2.5, FAILS),
        ([0.95, 0.96, 0.97], 0.9, HOLDS),
        ([0.9, 1.0, 1.1], 1.0, UNDECIDED),
        ([2.0, 0.0, 2.0], 1.0, UNDECIDED),
        ([2.0, -1.0, 2.0], 1.0, UNDECIDED),
    ],
)
def test_a_claim_is_judged_by_its_effect(effects, least, verdict):
    claim = claimed("compute, rival over ours", effects, least=least, means="2 and 1", paper=(2, 3))
    assert claim.verdict == verdict
    assert claim.statement == (
        f"compute, rival over ours (2 and 1), expected above {least:g}; paper: 2 to 3"
    )


def test_the_picture_has_a_row_for_each_claim_by_verdict_and_effect():
    claims = [claimed(str(effect), [effect]) for effect in (0.5, math.nan, 2.0, 4.0)]
    figure = drawing.effects([("rule", claim) for claim in claims])
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["rule: 4.0", "rule: 2.0", "rule: nan", "rule: 0.5"]


def test_a_trend_is_a_power_of_the_size_for_each_seed():
    sizes, factors = np.asarray([10.0, 20.0, 80.0]), np.asarray([1.0, 2.0])
    trend = Trend(sizes, factors[:, None] * sizes ** np.asarray([0.5, 0.25])[:, None])
    np.testing.assert_allclose(trend.growth, 10.0 ** np.asarray([0.5, 0.25]))
    middle, low, high = trend.at([1000.0])
    np.testing.assert_allclose(middle, 2**0.5 * 1000**0.375)
    assert low < middle < high


def test_intervals_cover_the_mean_as_often_as_they_say():
    rng = np.random.default_rng(0)
    ratios = [measured("", np.exp(rng.normal(size=5)), ratio=True) for _ in range(2000)]
    assert 0.94 < np.mean([one.low < 1 < one.high for one in ratios]) < 0.96


def test_the_verdict_rests_on_the_claims_alone():
    holds, fails, undecided = (claimed("", [effect]) for effect in (2.0, 0.5, math.nan))
    aside = measured("", [1.0], below=0)
    assert overall([holds, aside]) == HOLDS
    assert overall([holds, undecided, aside]) == UNDECIDED
    assert overall([holds, undecided, fails]) == FAILS


@pytest.mark.parametrize("heights", [[], [0.5], [0.1, 0.9], [0.5, 0.5, 0.5], [0.1, 0.12, 0.5, 0.5]])
def test_labels_keep_their_distance_and_their_middle(heights):
    moved = drawing.apart(heights, gap=0.1)
    assert all(np.diff(moved) >= 0.1 - 1e-12)
    assert np.isclose(sum(moved), sum(heights))


def test_labels_stay_beside_their_axes():
    np.testing.assert_allclose(drawing.apart([0.0, 0.0, 1.0, 1.0], gap=0.1), [0, 0.1, 0.9, 1])
