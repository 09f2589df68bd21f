"""The README's commands are two, its programs run as they stand, and its links lead somewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
COMMANDS = re.findall(r"```sh\n(.*?)\n```", README, re.DOTALL)
PROGRAMS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
TWO_DEVICES = {"JAX_NUM_CPU_DEVICES": "2"}
# The largest loss that each program may end with.
LOSSES = {"loop": 1e-3, "nnx": 0.1, "sharded": 1e-2}


def test_two_commands_set_up_each_in_one_line_before_all_else():
    compare, tests = COMMANDS
    assert "\n" not in compare and "optzoo compare" in compare
    assert "\n" not in tests and "pytest" in tests
    assert len(README[: README.index(tests)].splitlines()) < 25


def test_ci_runs_the_test_command():
    pattern = re.search(r"grep -m 1 '([^']*)' README.md", (ROOT / ".ci/run").read_text("utf-8"))
    (command,) = [line for line in README.splitlines() if re.search(pattern[1], line)]
    assert command in COMMANDS


@pytest.mark.parametrize(
    ("program", "largest"), [*zip(PROGRAMS, LOSSES.values(), strict=True)], ids=LOSSES
)
def test_program_runs_as_it_stands_and_trains(program, largest):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        env=os.environ | TWO_DEVICES,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) < largest


def test_links_into_the_repository_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    ours = [link for link in links if "://" not in link]
    assert len(ours) >= 5
    assert all((ROOT / link).exists() for link in ours)


def test_each_promise_names_its_command_or_page():
    promises = README.split("\n## Four promises\n")[1].split("\n## ")[0].split("\n### ")[1:]
    titles = [promise.splitlines()[0] for promise in promises]
    assert titles == ["True to the paper", "Sound in real training", "Fast", "Evidence"]
    for promise in promises:
        assert re.search(r"python benchmarks/|benchmarks/README.md|`optzoo compare`", promise)
