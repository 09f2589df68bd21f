"""README.md, CITATION.cff and the documentation say what the registry says."""

import re
from pathlib import Path

import pytest
from cffconvert.cli.create_citation import create_citation

import optzoo
from optzoo import catalog

ROOT = Path(__file__).parents[1]
DOCUMENTS = catalog.documents(ROOT)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_documents_are_up_to_date(path):
    assert path.read_text("utf-8") == DOCUMENTS[path], "run: python -m optzoo.catalog"


def test_the_citation_is_valid():
    create_citation(str(ROOT / "CITATION.cff"), None).validate()


def test_table_has_one_complete_row_for_each_optimizer():
    rows = catalog.table()
    assert [row["name"] for row in rows] == list(optzoo.REGISTRY)
    assert all(all(row.values()) for row in rows)


def test_the_catalogue_and_the_families_name_every_entry_once():
    shown = re.findall(r"^\| `(\w+)` \|", catalog.catalogue(), re.MULTILINE)
    members = re.findall(r"`(\w+)`", catalog.families())
    assert sorted(shown) == sorted(members) == sorted(optzoo.REGISTRY)
    lines = catalog.families().splitlines()[2:]
    assert [line.split("|")[1].strip() for line in lines] == list(optzoo.REGISTRY.families)


@pytest.mark.parametrize(
    ("name", "memory"),
    [("grams", "2"), ("ademamix", "3"), ("schedule_free_sgd", "1"), ("muon", "1 to 2")],
)
def test_memory_is_measured(name, memory):
    assert catalog.memory(optzoo.get(name)) == memory


@pytest.mark.parametrize("name", optzoo.REGISTRY)
def test_card_shows_rule_defaults_paper_and_citation(name):
    # Where a line breaks depends on the terminal.
    entry, text = optzoo.get(name), " ".join(catalog.card(name).split())
    assert text.startswith(f"{name}: {entry.summary} Rule ")
    assert all(f" {key} = " in text for key in entry.defaults)
    assert all(trait.value in text for trait in entry.traits)
    assert entry.url in text
    assert "@misc{" in text
    assert " at 0x" not in text


def test_card_of_an_unknown_name_is_an_error():
    with pytest.raises(ValueError, match="did you mean 'muon'"):
        catalog.card("muonn")


@pytest.mark.parametrize("name", optzoo.REGISTRY)
def test_bibtex_is_balanced_and_has_the_paper(name):
    entry = optzoo.get(name)
    text = catalog.bibtex(entry)
    assert re.match(r"@misc\{[a-z-]+\d{4}\w+,\n", text)
    assert text.count("{") == text.count("}")
    assert entry.title in text
    assert ("eprint" in text) == ("arxiv.org" in entry.url)
