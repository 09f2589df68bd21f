"""Every optimizer on eight devices, and in two processes, agrees with itself on one device."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from subjects import subject

import optzoo
from optzoo.testing import Row, distributed
from optzoo.testing.checks import processes
from optzoo.testing.subject import importable

CHECKS = ("linen_metadata", "nnx_metadata", "sharded_auto", "sharded_explicit")
CHILD = f"""
import json, sys
import jax
jax.config.update("jax_num_cpu_devices", 8)
from subjects import subject
from optzoo.testing import check_transformation, conformance_checks
checks = [check for check in conformance_checks if check.name in {CHECKS}]
for name in sys.argv[1:]:
    rows = check_transformation(subject(name), checks=checks).rows
    print(json.dumps([vars(row) for row in rows]))
"""


@pytest.fixture(scope="module")
def rows():
    """What a process with eight devices found: rows by optimizer and check."""
    names = list(optzoo.REGISTRY.optimizers)
    path = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.getenv("PYTHONPATH")]))
    child = subprocess.run(
        [sys.executable, "-c", CHILD, *names],
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
        for name, line in zip(names, lines, strict=True)
        for row in line
    }


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", optzoo.REGISTRY.optimizers)
def test_eight_devices(rows, name, check):
    row = rows[name, check]
    assert row.outcome == "passed", f"{row.message}\n  {row.reproduction}"


@pytest.fixture(scope="module")
def outcomes():
    """What two joined processes computed, by optimizer."""
    targets = [importable(subject(name).factory) for name in optzoo.REGISTRY.optimizers]
    return dict(zip(optzoo.REGISTRY.optimizers, distributed.run_together(targets), strict=True))


@pytest.mark.parametrize("name", optzoo.REGISTRY.optimizers)
def test_two_processes(outcomes, name):
    processes.agree_with_one(subject(name), outcomes[name])
