"""The conformance kit itself: every check catches what it is for, and sound things pass."""

import unittest
from functools import partial

import optax
import pytest
from broken import BROKEN, SHARDED_BROKEN, UNTRUE

from optzoo.testing import (
    DoesNotApply,
    Subject,
    Violation,
    check_transformation,
    conformance_checks,
    report,
)
from optzoo.testing.checks import processes
from optzoo.testing.distributed import Outcome
from optzoo.testing.mesh import host_trees

CHECKS = {check.name: check for check in conformance_checks}
momentum = partial(optax.sgd, 0.1, momentum=0.9)


def test_no_check_is_without_a_transformation_that_breaks_it():
    assert {*BROKEN, *SHARDED_BROKEN, "two_processes"} == set(CHECKS)


@pytest.mark.parametrize("name", BROKEN)
def test_a_check_catches_what_is_broken(name):
    target, options = BROKEN[name]
    with pytest.raises(Violation) as caught:
        CHECKS[name](Subject(target, **options))
    assert caught.value.sentence and caught.value.reproduction


@pytest.mark.parametrize("name", UNTRUE)
def test_a_trait_is_verified_rather_than_believed(name):
    target, options = UNTRUE[name]
    with pytest.raises(Violation):
        CHECKS[name](Subject(target, **options))


def test_two_processes_that_disagree_with_one_are_caught():
    subject = Subject(momentum)
    expected = subject.run(*host_trees()).params
    processes.agree_with_one(subject, Outcome(expected, ""))
    with pytest.raises(Violation, match="two processes' parameters differ"):
        processes.agree_with_one(subject, Outcome(optax.tree.scale(2.0, expected), ""))
    with pytest.raises(RuntimeError, match="lost"):
        processes.agree_with_one(subject, Outcome(None, "lost"))


SOUND = Subject(momentum)


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_sound_passes(name):
    CHECKS[name](SOUND)


def test_a_report_counts_and_prints_what_it_found():
    checks = [CHECKS[name] for name in ("float32", "empty_tree", "two_processes")]
    sound = check_transformation(lambda: optax.sgd(0.1), checks=checks, name="sound")
    assert sound.ok and [row.check for row in sound.passed] == ["float32", "empty_tree"]
    assert [row.check for row in sound.does_not_apply] == ["two_processes"]
    target, _ = BROKEN["empty_tree"]
    broken = check_transformation(target, checks=checks, name="broken")
    assert not broken.ok and [row.check for row in broken.failed] == ["empty_tree"]
    assert broken.summary() == "1 passed, 1 failed, 1 do not apply"
    assert broken.markdown() == "| broken | ✓ | ✗ | – |"
    table = broken.table(width=60)
    assert all(len(line) <= 60 for line in table.splitlines())
    assert "✗ empty_tree" in table and "IndexError" in table and "tx.update({}" in table
    # Where there is little room, what was found stands below the check's name.
    *narrow, _ = broken.table(width=30).splitlines()
    assert "✗ empty_tree" in narrow and all(len(line) <= 30 for line in narrow)


def test_what_is_no_transformation_is_refused():
    with pytest.raises(TypeError, match="expected a gradient transformation or a factory; got 3"):
        check_transformation(3)


def test_a_check_that_does_not_apply_skips():
    with pytest.raises(DoesNotApply, match="needs a factory"):
        CHECKS["inject_hyperparams"](optax.sgd(0.1))
    assert issubclass(DoesNotApply, unittest.SkipTest)


def test_the_command_checks_a_name(capsys, monkeypatch):
    monkeypatch.setattr(report, "conformance_checks", [CHECKS["float32"]])
    # The devices of this process are set up already.
    monkeypatch.setattr(report.jax.config, "update", lambda *_: None)
    assert report.main("optax:adam") == 0
    assert report.main("optax:sgd", "momentum=0.9", "nesterov=True") == 0
    assert "optax:sgd\n✓ float32" in capsys.readouterr().out
    assert report.main("broken:broken_factory") == 1
    for target, message in {
        "optax": "expected package.module:name",
        "optax:nothing": "'optax:nothing' cannot be loaded",
        "optax:__version__": "neither a factory nor a transformation",
        "optax:chain_of": "cannot be loaded",
        "optax:masked": "optax:masked cannot be called: ",
    }.items():
        with pytest.raises(ValueError, match=message):
            report.main(target)
    with pytest.raises(ValueError, match="expected name=value; got 'fast'"):
        report.main("optax:sgd", "fast")
