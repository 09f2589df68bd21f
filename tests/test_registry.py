"""One declaration an entry: files, exports, metadata and docstrings agree."""

import ast
import inspect
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from subjects import answered

import optzoo
from optzoo import catalog
from optzoo.registry import Entry, Registry, Trait, get

PACKAGE = Path(optzoo.__file__).parent
FILES = [
    path for path in sorted((PACKAGE / "optimizers").rglob("*.py")) if path.name != "__init__.py"
]
ENTRIES = [pytest.param(entry, id=name) for name, entry in optzoo.REGISTRY.items()]
OPTIMIZERS = [pytest.param(entry, id=name) for name, entry in optzoo.REGISTRY.optimizers.items()]
OTHERS = [*optzoo.REGISTRY.wrappers, *optzoo.REGISTRY.schedules]
# What the kit can fill in where a wrapper or a schedule requires it.
REQUIRED = {"learning_rate", "total_steps", "key", "warmup_steps", "period", "norms", "level"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_registers_what_it_defines(path):
    module = f"optzoo.optimizers.{path.parent.name}.{path.stem}"
    names = {name for name, entry in optzoo.REGISTRY.items() if entry.factory.__module__ == module}
    assert names
    functions = [
        node
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    ]
    for function in functions:
        assert hasattr(optzoo, function.name), f"{function.name}: no re-export"
        assert inspect.getdoc(getattr(optzoo, function.name)), f"{function.name}: no docstring"


@pytest.mark.parametrize("entry", ENTRIES)
def test_the_package_exports_the_factory(entry):
    assert getattr(optzoo, entry.name) is entry.factory


@pytest.mark.parametrize("entry", OPTIMIZERS)
def test_the_package_exports_the_direction(entry):
    direction = getattr(optzoo, f"scale_by_{entry.name}", None)
    if direction is None:
        # What only averages another rule's iterates has no direction of its own.
        assert Trait.AVERAGES in entry.traits and Trait.SELF_TUNING not in entry.traits
        return
    assert inspect.getdoc(direction)
    assert set(inspect.signature(direction).parameters) <= set(entry.signature.parameters)


@pytest.mark.parametrize("entry", ENTRIES)
def test_metadata_is_complete(entry):
    assert entry.title.strip()
    assert entry.authors and all(" " in author for author in entry.authors)
    assert 1950 < entry.year < 2100
    assert entry.url.startswith("https://")
    assert entry.code is None or entry.code.startswith("https://")
    assert entry.traits <= set(Trait)


@pytest.mark.parametrize("entry", ENTRIES)
def test_docstring_has_every_section(entry):
    assert 20 <= len(entry.summary) <= 100
    raises = ["Raises"] if entry.kind != "schedule" else ["Values"]
    for section in ("Rule", "When to use", "Args", "Returns", *raises, "References"):
        assert entry.section(section), f"no {section}: section"
    documented = re.findall(r"^(\w+): ", entry.section("Args"), re.MULTILINE)
    assert documented == list(entry.signature.parameters)


@pytest.mark.parametrize("name", OTHERS)
def test_what_a_wrapper_or_schedule_requires_can_be_filled_in(name):
    entry = optzoo.REGISTRY[name]
    first, *rest = entry.signature.parameters.values()
    assert (first.name == "learning_rate") == (entry.kind == "schedule")
    assert first.kind is first.POSITIONAL_OR_KEYWORD and first.default is first.empty
    assert {p.name for p in rest if p.default is p.empty} <= REQUIRED


@pytest.mark.parametrize("entry", OPTIMIZERS)
def test_signature_is_learning_rate_and_keywords(entry):
    first, *rest = entry.signature.parameters.values()
    assert first.name == "learning_rate"
    assert first.kind is first.POSITIONAL_OR_KEYWORD
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in rest)
    required = {parameter.name for parameter in rest if parameter.default is parameter.empty}
    assert required <= {"total_steps"}
    assert (Trait.SCHEDULED in entry.traits) == ("total_steps" in entry.signature.parameters)


@pytest.mark.parametrize("entry", OPTIMIZERS)
def test_build_gives_a_working_transformation(entry):
    tx = answered(entry.build(0.1, total_steps=10), entry)
    params = {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)}
    state = tx.init(params)
    updates, _ = jax.jit(tx.update)(params, state, params)
    assert jax.tree.map(jnp.shape, updates) == jax.tree.map(jnp.shape, params)


def test_the_registry_is_sorted_and_not_empty():
    assert list(optzoo.REGISTRY) == sorted(optzoo.REGISTRY)
    assert len(optzoo.REGISTRY) >= 10


def test_a_family_is_a_folder_with_three_lines_about_it():
    folders = {path.parent.name for path in FILES}
    families = optzoo.REGISTRY.families
    assert folders <= set(families)
    for family, members in families.items():
        assert members == optzoo.REGISTRY.family(family) and members
        first, gap, *others = catalog.about(family).strip().splitlines()
        assert first.endswith(".") and not gap and len(others) == 2, family
    assert families["matrix"]["muon"] is optzoo.get("muon")
    with pytest.raises(ValueError, match="unknown family 'matrices': did you mean 'matrix'"):
        optzoo.REGISTRY.family("matrices")


def test_every_family_is_re_exported_whole():
    assert {f"optzoo.optimizers.{path.parent.name}" for path in FILES} == {
        node.module
        for node in ast.parse((PACKAGE / "__init__.py").read_text("utf-8")).body
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*"
    }


def test_the_kinds_share_out_the_registry():
    kinds = optzoo.REGISTRY.optimizers, optzoo.REGISTRY.wrappers, optzoo.REGISTRY.schedules
    assert sorted(name for kind in kinds for name in kind) == list(optzoo.REGISTRY)
    assert {"muon", "dog"} <= set(kinds[0])
    assert {"schedule_free", "lookahead", "stochastic_round"} <= set(kinds[1])
    assert {"explore_exploit", "linear_warmup"} <= set(kinds[2])
    assert list(optzoo.REGISTRY.of(kind="wrapper", family="averaged")) == [
        name for name in kinds[1] if optzoo.get(name).family == "averaged"
    ]


def example(learning_rate=0.1, *, b1=0.9):
    """An example.

    Rule:
      p ← p − learning_rate·g
        indented

    Args:
      learning_rate: a number.
    """


ENTRY = Entry(
    factory=example,
    title="Title",
    authors=("A B",),
    year=2000,
    arxiv=None,
    url="https://example.org",
    code=None,
    traits=frozenset(),
)


def test_an_entry_reads_its_factory():
    assert ENTRY.name == "example"
    assert ENTRY.summary == "An example"
    assert ENTRY.defaults == {"learning_rate": 0.1, "b1": 0.9}
    assert ENTRY.section("Rule") == "p ← p − learning_rate·g\n  indented"
    assert ENTRY.section("Args") == "learning_rate: a number."
    assert ENTRY.section("Raises") == ""


def test_a_name_is_registered_once():
    registry = Registry()
    registry.add(ENTRY)
    assert registry["example"] is ENTRY
    with pytest.raises(ValueError, match="'example' is registered already"):
        registry.add(ENTRY)


def test_an_unknown_name_gives_the_nearest():
    with pytest.raises(ValueError, match="unknown optimizer 'ademamixx': did you mean 'ademamix'"):
        get("ademamixx")
    with pytest.raises(ValueError, match="unknown optimizer '': there are adabound, "):
        get("")


@pytest.mark.parametrize("module", [optzoo, optzoo.primitives], ids=lambda module: module.__name__)
def test_everything_public_is_annotated(module):
    public = {
        name: member
        for name, member in vars(module).items()
        if inspect.isfunction(member) and not name.startswith("_")
    }
    assert len(public) > 20
    for name, function in public.items():
        signature = inspect.signature(function)
        assert signature.return_annotation is not signature.empty, name
        for parameter in signature.parameters.values():
            assert parameter.annotation is not parameter.empty, f"{name}({parameter.name})"
