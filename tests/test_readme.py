"""The README is short, its commands are two, its program runs, its numbers are its pages' own."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
BENCHMARKS = (ROOT / "benchmarks/README.md").read_text("utf-8")
COMMANDS = re.findall(r"```sh\n(.*?)\n```", README, re.DOTALL)
PROMISES = re.findall(r"^- \*\*(.*?)\.\*\* ((?:.*\n)(?:  .*\n)*)", README, re.MULTILINE)


def test_two_commands_set_up_each_in_one_line_before_all_else():
    compare, tests = COMMANDS
    assert "\n" not in compare and "optzoo compare" in compare
    assert "\n" not in tests and "pytest" in tests
    assert len(README[: README.index(tests)].splitlines()) < 25


def test_ci_runs_the_test_command():
    pattern = re.search(r"grep -m 1 '([^']*)' README.md", (ROOT / ".ci/run").read_text("utf-8"))
    (command,) = [line for line in README.splitlines() if re.search(pattern[1], line)]
    assert command in COMMANDS


def test_it_fits_one_screen_and_a_half_in_this_order():
    assert len(README.splitlines()) <= 150
    parts = ["# optzoo\n", "![", *COMMANDS, "```python", "<!-- families", PROMISES[0][0], "## More"]
    places = [README.index(part) for part in parts]
    assert places == sorted(places)
    assert len(README.split("## More")[1].split("\n- ")) == 1 + 3


def test_the_program_runs_as_it_stands_and_trains(capsys):
    (program,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(program, {})
    assert float(capsys.readouterr().out) < 1e-3


def test_links_into_the_repository_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    ours = [link for link in links if "://" not in link]
    assert len(ours) >= 5
    assert all((ROOT / link).exists() for link in ours)


def rows(page):
    """The cells of the tables of a page."""
    lines = (ROOT / page).read_text("utf-8").splitlines()
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "|" in line]


def test_each_promise_has_a_command_and_the_number_that_its_page_shows():
    promises = dict(PROMISES)
    commands = re.findall(r"`(python benchmarks/[^`]*|optzoo [^`]*)`", "".join(promises.values()))
    assert len(commands) == len(promises) == 4
    parity = [row[1] for row in rows("docs/pages/parity.md") if row[0].startswith("`")]
    worst = max(parity, key=float)
    ours = next(row for row in rows("docs/pages/conformance.md") if row[0] == "optzoo")
    (table,) = re.findall(r"\| rule .* GPU kernels .*\n(?:\|.*\n)+", BENCHMARKS)
    kernels = dict(re.findall(r"^\| ([\w ]+) \|(?:.*?\|){2} (\d+) \|", table, re.MULTILINE))
    compared = json.loads((ROOT / "docs/comparison.json").read_text("utf-8"))["default"]
    said = {
        "True to the paper": rf"further from\s+it than {worst} of",
        "Sound in real training": rf"Of {ours[4]} checks .* {ours[3]} fail",
        "Fast": rf"is {kernels['muon']} kernels where Optax's is {kernels['optax muon']}:",
        "Evidence": rf"^{compared['runs']} runs ",
    }
    for promise, words in said.items():
        assert re.search(words, promises[promise], re.DOTALL), promise
