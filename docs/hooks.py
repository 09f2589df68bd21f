"""Pages that MkDocs makes: one for each entry, and those of the claims and the benchmarks."""

import ast
import json
import re
import sys
from html import escape
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))

import maths  # noqa: E402
import plots  # noqa: E402

import optzoo.primitives  # noqa: E402
from optzoo import catalog  # noqa: E402
from optzoo.registry import REGISTRY, Entry  # noqa: E402

CLAIMS = Path(__file__).parents[1] / "examples" / "claims"
FIGURES = sorted((CLAIMS / "figures").glob("*.png"))
BENCHMARKS = CLAIMS.parents[1] / "benchmarks"
PRIMITIVES = "<!-- primitives -->"
SCHEDULES = "<!-- schedules -->"
# Pages with tables of entries; others have tables of their own about a few.
LINKED = ("index.md", "catalogue.md", "parity.md", "comparison.md")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fills the navigation's empty list of optimizers, family by family."""
    for item in config.nav:
        if "Optimizers" in item:
            item["Optimizers"] = [
                {
                    family.replace("_", " ").capitalize(): [
                        {n: f"optimizers/{n}.md"} for n in members
                    ]
                }
                for family, members in REGISTRY.families.items()
            ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the entries' pages, the claims' and the benchmarks'."""
    for folder in (CLAIMS, BENCHMARKS):
        text = (folder / "README.md").read_text("utf-8")
        files.append(File.generated(config, f"{folder.name}.md", content=text))
        for figure in sorted(folder.rglob("*.png")):
            source = figure.relative_to(folder).as_posix()
            files.append(File.generated(config, source, abs_src_path=str(figure)))
    for entry in REGISTRY.values():
        source = f"optimizers/{entry.name}.md"
        files.append(File.generated(config, source, content=page(entry)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Puts what is derived where a page asks for it, and links where they lead on the site."""
    here = page.file.src_uri
    if here in LINKED:
        markdown = linked(markdown)
    if PRIMITIVES in markdown:
        markdown = markdown.replace(PRIMITIVES, primitives())
    if SCHEDULES in markdown:
        markdown = markdown.replace(SCHEDULES, schedules())
    # What is a page of its own here is a folder's README in the repository.
    up = "../" * here.count("/")
    return re.sub(r"\]\((?:\.\./)+(?:\w+/)?(\w+)/README\.md", rf"]({up}\1.md", markdown)


def linked(markdown: str) -> str:
    """Tables whose entries' names lead to their pages."""

    def line(text: str) -> str:
        if not text.startswith("|"):
            return text
        names = r"(?<=[|,] )`(\w+)`(?= \||,)"
        return re.sub(
            names, lambda m: f"[{m[0]}](optimizers/{m[1]}.md)" if m[1] in REGISTRY else m[0], text
        )

    return "\n".join(map(line, markdown.splitlines()))


def primitives() -> str:
    """Directives for mkdocstrings: what optzoo.primitives exports, module by module."""
    tree = ast.parse(Path(optzoo.primitives.__file__).read_text("utf-8"))
    return "\n\n".join(
        f"## {node.module.rpartition('.')[2]}\n\n"
        f"::: {node.module}\n"
        "    options:\n"
        "      show_root_heading: false\n"
        "      show_root_toc_entry: false\n"
        f"      members: [{', '.join(alias.name for alias in node.names)}]"
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
    )


def schedules() -> str:
    """The figure of every schedule, with its idea."""
    return "\n\n".join(
        f"## [{name}](optimizers/{name}.md)\n\n{entry.summary}.\n\n{plots.figure(entry)}"
        for name, entry in REGISTRY.schedules.items()
    )


def page(entry: Entry) -> str:
    """The page of one entry as Markdown."""
    traits = "".join(f"- {trait.value[0].upper()}{trait.value[1:]}.\n" for trait in entry.traits)
    authors = ", ".join(entry.authors)
    code = f" [Official code]({entry.code})." if entry.code else " No official code is public."
    parts = [
        f"# {entry.name}",
        f"{entry.summary}.",
        titled("**Against Adam.** ", entry, "Against Adam"),
        f"*Family:* {entry.family}. *Kind:* {entry.kind}.",
        "## Rule",
        formula(entry),
        f"## Over a run\n\n{plots.figure(entry)}" if entry.kind == "schedule" else "",
        titled("## When to use\n\n", entry, "When to use"),
        titled("## Learning rate and decay\n\n", entry, "Tuning"),
        claim(entry),
        f"## State\n\n{memory(entry)}\n\n{traits}{cost(entry)}",
        f"## Options\n\n{options(entry)}",
        f"## Paper and official code\n\n{prose(entry, 'References')}",
        f"[{entry.title}]({entry.url}), {authors}, {entry.year}.{code}",
        f"```bibtex\n{catalog.bibtex(entry)}\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def titled(head: str, entry: Entry, title: str) -> str:
    """A section of the docstring under a head of its own; empty where there is none."""
    text = prose(entry, title)
    return head + text if text else ""


def formula(entry: Entry) -> str:
    """The rule, typeset."""
    html = maths.rule(entry.section("Rule"), entry.signature.parameters)
    return (
        f'<div class="rule">\n{html}\n</div>\n\n'
        "*p* are the parameters, *g* their gradient, *t* the number of the step, from 1; ← gives "
        "a variable its new value; the long names are arguments."
    )


def cost(entry: Entry) -> str:
    """What a step costs beyond the gradient that everybody needs, as a bullet."""
    if entry.gradients == 1:
        return ""
    return f"- Each step costs {entry.gradients} gradients, which comparisons count.\n"


def memory(entry: Entry) -> str:
    """What the state costs beside Adam's."""
    count = catalog.memory(entry)
    inside = " beside those of its inside" if entry.kind == "wrapper" else ""
    return (
        f"{count} number{'' if count == '1' else 's'} for each parameter{inside}, measured on the "
        "state itself; Adam keeps 2."
    )


def claim(entry: Entry) -> str:
    """What came of the paper's central claim, with its figure; empty where no script checks it."""
    for figure in FIGURES:
        record = json.loads(figure.with_suffix(".json").read_text("utf-8"))
        if REGISTRY[record["rule"]].url == entry.url:
            link = f"../claims.md#{figure.stem}"
            return (
                f"## The paper's claim\n\n{record['title']}: **{record['verdict']}** "
                f"([numbers and protocol]({link})).\n\n"
                f"[![{record['title']}](../figures/{figure.name})]({link})"
            )
    return ""


def prose(entry: Entry, title: str) -> str:
    """A section of the docstring in one paragraph; arXiv numbers become links."""
    text = " ".join(entry.section(title).split())
    text = re.sub(r"arXiv (\d{4}\.\d{5})", r"[arXiv \1](https://arxiv.org/abs/\1)", text)
    return re.sub(r"(?<![\w\"`])(\w+_\w+)(?![\w\"`(.])", r"`\1`", text)


def options(entry: Entry) -> str:
    """The arguments in a table: name, default, what the docstring says."""
    about = dict(re.findall(r"^(\w+): (.*(?:\n  .*)*)", entry.section("Args"), re.MULTILINE))
    rows = [
        f"| `{name}` | {default(parameter)} | {cell(about[name])} |"
        for name, parameter in entry.signature.parameters.items()
    ]
    return "\n".join(["| argument | default | meaning |", "|---|---|---|", *rows])


def default(parameter: Any) -> str:
    return "required" if parameter.default is parameter.empty else f"`{written(parameter.default)}`"


def cell(text: str) -> str:
    text = escape(" ".join(text.split()), quote=False).replace("|", "&#124;")
    return text[0].upper() + text[1:]


def written(value: Any) -> str:
    return getattr(value, "__name__", None) or repr(value)
