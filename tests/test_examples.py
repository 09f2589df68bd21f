"""Every example runs, briefly, in a process of its own and without a warning."""

import ast
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
README = (EXAMPLES / "README.md").read_text("utf-8")
CHECKPOINTS = EXAMPLES / "schedule_free_checkpoints.py"
PROCESSES = EXAMPLES / "multi_process.py"
SHARDED = EXAMPLES / "fsdp.py"


# A few steps are not worth XLA's slower passes.
QUICKLY = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


def command(script, *options):
    return [sys.executable, "-W", "error", str(script), *map(str, options)]


def run(script, *options):
    done = subprocess.run(
        command(script, *options), capture_output=True, text=True, timeout=300, env=QUICKLY
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "script", sorted({*SCRIPTS} - {CHECKPOINTS, PROCESSES, SHARDED}), ids=lambda script: script.stem
)
def test_example_runs(script):
    output = run(script, "--steps", 4)
    assert output
    assert "nan" not in output


def test_the_state_stays_sharded():
    specs = re.findall(r" as (P\w*\(.*\))", run(SHARDED, "--steps", 4))
    assert len(specs) == 3
    assert all("'data'" in spec for spec in specs)


def test_all_processes_see_the_same_loss():
    output = run(PROCESSES, "--steps", 2)
    assert len(re.findall(r"process \d of 2", output)) == 2
    assert len(set(re.findall(r"loss \d\.\d{4}", output))) == 1


def test_a_killed_run_resumes_bit_for_bit(tmp_path):
    killed = tmp_path / "killed"
    process = subprocess.Popen(
        command(CHECKPOINTS, "--steps", 10**9, "--folder", killed), env=QUICKLY
    )
    while not (killed / "50").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()

    last = max(int(path.name) for path in killed.iterdir() if path.name.isdigit())
    resumed = run(CHECKPOINTS, "--steps", last + 60, "--folder", killed)
    whole = run(CHECKPOINTS, "--steps", last + 60, "--folder", tmp_path / "whole")
    assert resumed == f"resumed after step {last}\n{whole}"


def test_the_table_lists_every_example_with_its_first_line():
    rows = re.findall(r"^\| \[`(.*?)`\]\(\1\) \| (.*?) \|$", README, re.MULTILINE)
    modules = {script.name: ast.parse(script.read_text("utf-8")) for script in SCRIPTS}
    assert dict(rows) == {
        name: (ast.get_docstring(module) or "").splitlines()[0] for name, module in modules.items()
    }
