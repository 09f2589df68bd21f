"""The documentation's code runs, its formulas say what the docstrings say, and all of it builds."""

import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
import unicodedata
from html import unescape
from pathlib import Path
from xml.etree import ElementTree

import jax
import optax
import pytest

import optzoo
from optzoo.testing import check_transformation, conformance_checks

DOCS = Path(optzoo.__file__).parents[1] / "docs"
PAGES = DOCS / "pages"
PROGRAM = "from optzoo.cli import main; main()"
MIGRATION = (PAGES / "guides/migration.md").read_text("utf-8")

sys.path.insert(0, str(DOCS.parent / "benchmarks"))

import comparison  # noqa: E402
import conformance  # noqa: E402


def module(name):
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


maths, plots = module("maths"), module("plots")


def letters(text):
    """Letters and digits in their order; what is above or below the line counts the same."""
    return re.sub(r"[\W_ΣΠ]", "", unicodedata.normalize("NFKC", text))


@pytest.mark.parametrize("name", optzoo.REGISTRY)
def test_formulas_are_well_formed_and_complete(name):
    entry = optzoo.get(name)
    rule = entry.section("Rule")
    html = maths.rule(rule, entry.signature.parameters)
    tree = ElementTree.fromstring(f"<div>{html}</div>")
    assert tree.find(".//math") is not None
    assert letters("".join(tree.itertext())) == letters(rule)
    # What is not a formula stays outside, to be read as text and to wrap.
    words = " ".join("".join(math.itertext()) for math in tree.iter("math"))
    assert not re.search(r"\b(over|with|averages|the)\b", words)


@pytest.mark.parametrize(
    ("rule", "structure"),
    [
        ("a/b·c", "<mfrac>a|b</mfrac>c"),
        ("a·b / (c + d)", "<mfrac>ab|c+d</mfrac>"),
        ("√(a + b1²)", "<msqrt>a+<msubsup>b|1|2</msubsup></msqrt>"),
        ("(a + b)/c", "<mfrac>a+b|c</mfrac>"),
        ("(a)·(b)/c", "(a)<mfrac>b|c</mfrac>"),
        ("x^(k + 1)", "<msup>x|k+1</msup>"),
        ("rate·x", "rate·x"),
    ],
)
def test_formulas_have_the_structure_of_the_text(rule, structure):
    def shown(node):
        parts = [node.text or "", *map(shown, node)]
        if node.tag in ("mfrac", "msup", "msubsup"):
            return f"<{node.tag}>{'|'.join(parts[1:])}</{node.tag}>"
        inner = "".join(parts)
        return f"<msqrt>{inner}</msqrt>" if node.tag == "msqrt" else inner

    (math,) = ElementTree.fromstring(maths.rule(rule, ["rate"]))
    assert shown(math) == structure


def test_a_formula_that_cannot_be_read_is_an_error():
    with pytest.raises(ValueError, match="no formula"):
        maths.rule("a + ^b", [])


@pytest.mark.parametrize("name", optzoo.REGISTRY.schedules)
def test_every_schedule_is_drawn_with_every_alternative_it_lists(name):
    entry = optzoo.get(name)
    tree = ElementTree.fromstring(plots.figure(entry).replace("&nbsp;", " "))
    curves = [line.attrib["points"] for line in tree.iter("polyline")]
    calls = ["".join(code.itertext()) for code in tree.iter("code")]
    listed = re.findall(r"Literal\[(.*?)\]", str(entry.signature))
    assert len(set(curves)) == len(calls) >= 1 + sum(text.count(",") for text in listed)
    for points, call in zip(curves, calls, strict=True):
        schedule = eval(call, {entry.name: entry.factory, "norms": plots.NORMS})
        heights = [float(point.partition(",")[2]) for point in points.split()]
        drawn = [(plots.TOP + plots.HEIGHT - y) / plots.HEIGHT for y in heights]
        for k in (0, plots.STEPS // 3, plots.STEPS):
            assert abs(drawn[k] - float(schedule(jax.numpy.asarray(k)))) < 1e-3


@pytest.mark.parametrize("name", optzoo.REGISTRY)
def test_every_entry_says_when_and_how_to_use_it(name):
    entry = optzoo.get(name)
    optimizers_say = ("Against Adam", "Tuning") if entry.kind == "optimizer" else ()
    for title in ("When to use", "References", *optimizers_say):
        assert entry.section(title).endswith(".")
    assert "Not " in entry.section("When to use")
    documented = re.findall(r"^(\w+): ", entry.section("Args"), re.MULTILINE)
    assert documented == list(entry.signature.parameters)


def test_the_guide_writes_a_sound_optimizer(tmp_path):
    text = (PAGES / "guides/own.md").read_text("utf-8")
    (program,) = re.findall(r'```python title="mine.py"\n(.*?)```', text, re.DOTALL)
    assert len([line for line in program.splitlines() if line.strip()]) <= 15
    (tmp_path / "mine.py").write_text(program, "utf-8")
    namespace = {}
    exec(program, namespace)
    quick = [check for check in conformance_checks if check.name in ("donation", "every_rank")]
    assert len(check_transformation(namespace["trusted_adam"], checks=quick).passed) == 2
    commands = re.findall(r"```sh\n(optzoo compare .*)\n```", text)
    (command,) = (line.removesuffix("digits") + "quadratic" for line in commands)
    tiny = ["--steps", "5", "--seeds", "1", "--lrs", "x1", "--out", "out"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *command.split()[1:], *tiny],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "mine:trusted_adam" in done.stdout


def test_the_home_page_runs(capsys):
    text = (PAGES / "index.md").read_text("utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(program, {})
    assert float(capsys.readouterr().out) < 1e-3


@pytest.mark.parametrize(("page", "largest"), [("loop", 0.1), ("scale", 1e-2)])
def test_the_first_program_of_a_guide_runs_as_it_stands_and_trains(page, largest):
    text = (PAGES / f"guides/{page}.md").read_text("utf-8")
    program = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "2"},
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) < largest


def test_links_between_pages_lead_somewhere():
    """In the repository as on the site, but for the optimizers' pages, which `hooks.py` makes."""
    for page in PAGES.rglob("*.md"):
        links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text("utf-8"))
        ours = [link for link in links if "://" not in link and "optimizers/" not in link]
        for link in ours:
            assert (page.parent / link).exists(), (page.name, link)


def test_the_conformance_page_shows_what_was_recorded():
    shown = (PAGES / "conformance.md").read_text("utf-8")
    assert shown == conformance.document(conformance.reports())


def test_the_comparison_shows_what_was_recorded():
    stored = json.loads(comparison.STORE.read_text("utf-8"))
    shown = comparison.PAGE.read_text("utf-8")
    assert "default" in stored
    for name, found in stored.items():
        assert comparison.block(name, found) in shown
        ranks = [row["rank"] for row in found["ranking"]]
        assert ranks == sorted(ranks)


def test_migration_names_what_exists():
    """Every `optzoo.x` and `optax.x` resolves; an arrow points to an argument of the rule."""
    for name in set(re.findall(r"`(optzoo\.\w+)", MIGRATION)):
        assert hasattr(optzoo, name.removeprefix("optzoo.")), name
    for path in set(re.findall(r"`optax\.([\w.]+)", MIGRATION)):
        found = optax
        for part in path.split("."):
            found = getattr(found, part)
    rule = re.compile(r"^`.* (?:is|are) `optzoo\.(\w+).*$\n((?:^(?::|    |$).*\n)*)", re.MULTILINE)
    seen = 0
    for name, body in rule.findall(MIGRATION):
        arguments = inspect.signature(getattr(optzoo, name)).parameters
        for target in re.findall(r"→\s+`(\w+)[=`]", body):
            assert target in arguments, (name, target)
            seen += 1
    assert seen > 10


def test_migration_of_ranger21_names_its_arguments():
    arguments = inspect.signature(optzoo.ranger21).parameters
    rows = re.findall(r"^\| `.*` \| (`.*`) \|$", MIGRATION, re.MULTILINE)
    targets = {name for row in rows for name in re.findall(r"`(\w+)(?:=[^`]*)?`", row)}
    assert targets - {"ranger21"} <= set(arguments)
    assert len(targets) >= 10


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")
    pytest.importorskip("material", reason="the extra `docs` is not installed")
    pytest.importorskip("mkdocstrings_handlers.python", reason="the extra `docs` is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    done = subprocess.run(
        [*command, "-f", str(DOCS / "mkdocs.yml"), "-d", str(tmp_path / "site")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for name in optzoo.REGISTRY:
        page = (tmp_path / "site/optimizers" / name / "index.html").read_text("utf-8")
        assert "<math" in page and optzoo.get(name).title in unescape(page)
    assert "https://fonts." not in page
