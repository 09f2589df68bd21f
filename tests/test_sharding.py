"""Every optimizer on eight devices, and in two processes, agrees with itself on one device."""

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from subjects import ONE_EACH, in_turn, subject

import optzoo
from optzoo.testing import Row, distributed
from optzoo.testing.checks import processes
from optzoo.testing.subject import importable

ALIKE = (("linen_metadata", "nnx_metadata"), ("sharded_auto", "sharded_explicit"))
CHILD = """
import json, sys
import jax
jax.config.update("jax_num_cpu_devices", 8)
from subjects import subject
from optzoo.testing import check_transformation, conformance_checks
for rule in sys.argv[1:]:
    name, *wanted = rule.split(",")
    checks = [check for check in conformance_checks if check.name in wanted]
    rows = check_transformation(subject(name), checks=checks).rows
    print(json.dumps([vars(row) for row in rows]))
"""


def chosen(request, test):
    """The parameters of one of the tests below, as far as this run has selected it."""
    return [item.callspec.params for item in request.session.items if item.originalname == test]


@pytest.fixture(scope="module")
def rows(request):
    """What a process with eight devices found: rows by optimizer and check."""
    checks = defaultdict(list)
    for params in chosen(request, "test_eight_devices"):
        checks[params["name"]].append(params["check"])
    rules = [",".join([name, *wanted]) for name, wanted in checks.items()]
    path = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.getenv("PYTHONPATH")]))
    child = subprocess.run(
        [sys.executable, "-c", CHILD, *rules],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert child.returncode == 0, child.stderr[-2000:]
    # What the compiler prints stands between the rows.
    lines = [json.loads(line) for line in child.stdout.splitlines() if line.startswith("[")]
    return {
        (name, row["check"]): Row(**row)
        for name, line in zip(checks, lines, strict=True)
        for row in line
    }


def on_a_mesh():
    """Every check of every rule; of two that are alike, by default one in its turn."""
    for name in optzoo.REGISTRY.optimizers:
        for alike in ALIKE:
            for check in alike:
                marks = in_turn(name, alike, check)
                yield pytest.param(name, check, id=f"{name}-{check}", marks=marks)


@pytest.mark.parametrize(("name", "check"), [*on_a_mesh()])
def test_eight_devices(rows, name, check):
    row = rows[name, check]
    assert row.outcome == "passed", f"{row.message}\n  {row.reproduction}"


@pytest.fixture(scope="module")
def outcomes(request):
    """What two joined processes computed, by optimizer."""
    names = [params["name"] for params in chosen(request, "test_two_processes")]
    targets = [importable(subject(name).factory) for name in names]
    return dict(zip(names, distributed.run_together(targets), strict=True))


def in_processes():
    """Every rule; by default, since devices are not the processes', one of each family."""
    for name in optzoo.REGISTRY.optimizers:
        yield pytest.param(name, id=name, marks=() if name in ONE_EACH else pytest.mark.slow)


@pytest.mark.parametrize("name", [*in_processes()])
def test_two_processes(outcomes, name):
    processes.agree_with_one(subject(name), outcomes[name])
