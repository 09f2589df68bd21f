"""The catalogue: table, cards and citations, all derived from the registry.

`python -m optzoo.catalog` rewrites what README.md, CITATION.cff and the documentation say about the
registry.
"""

import importlib
import itertools
import json
import re
import textwrap
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from optzoo.describe import describe
from optzoo.plugins import load, one_line
from optzoo.registry import REGISTRY, Entry, Registry, get

PROSE = ("Against Adam", "When to use", "Tuning")


def table(entries: Mapping[str, Entry] = REGISTRY) -> list[dict[str, str]]:
    """One row an entry: its name, family, idea, use, memory, year and paper, all as text."""
    return [
        {
            "name": entry.name,
            "family": entry.family,
            "idea": entry.summary,
            "use": _use(entry),
            "memory": memory(entry),
            "year": str(entry.year),
            "paper": entry.url,
        }
        for entry in entries.values()
    ]


def about(family: str) -> str:
    """What the members of a family share and when to look there: its docstring."""
    for package in ("optimizers", "primitives"):
        try:
            return importlib.import_module(f"optzoo.{package}.{family}").__doc__ or ""
        except ModuleNotFoundError:
            continue
    raise ValueError(f"there is no family {family!r}")


def _lead(family: str) -> str:
    return about(family).splitlines()[0].rstrip(".")


def listing(entries: Registry = REGISTRY, width: int = 80) -> str:
    """The entries by family, as text for a terminal that is `width` columns wide."""
    width = _readable(width)

    def filled(text: str, indent: str) -> list[str]:
        return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent)

    blocks = []
    for family, members in entries.families.items():
        lines = filled(f"{family}: {_lead(family)}", "")
        for entry, row in zip(members.values(), table(members), strict=True):
            kind = "" if entry.kind == "optimizer" else f" ({entry.kind})"
            lines.append(f"  {entry.name}{kind}")
            lines += filled(f"{row['idea']}.", "    ")
            lines += filled(f"{row['year']}, state {row['memory']}; {row['paper']}", "    ")
        blocks.append("\n".join(lines))
    note = "state: numbers kept for each parameter; of a wrapper, those that it adds."
    return "\n\n".join([*blocks, "\n".join(filled(note, ""))])


def _readable(width: int) -> int:
    """The width of a text for a terminal that is `width` columns wide."""
    return max(30, min(width, 100))


def _use(entry: Entry) -> str:
    """When to use an entry: what comes before the first full stop or colon."""
    return re.split(r"[.:](?: |$)", " ".join(entry.section("When to use").split()))[0]


def memory(entry: Entry) -> str:
    """How many numbers of state an entry keeps for each parameter: "2", or "1 to 2".

    Measured on the state of a hidden matrix, an embedding and a vector, each on its own and large
    enough that counters and norms do not show. For a wrapper, those that it adds to its inside, for
    float32 and for bfloat16 parameters.
    """
    if entry.kind == "schedule":
        return "0"
    shapes = {"kernel": (512, 512), "embedding": (512, 512), "bias": (2**18,)}
    tx = example(entry)
    counts = set()
    dtypes = (jnp.float32, jnp.bfloat16) if entry.kind == "wrapper" else (jnp.float32,)
    for (name, shape), dtype in itertools.product(shapes.items(), dtypes):
        params = {"layer": {name: jax.ShapeDtypeStruct(shape, dtype)}}
        state = jax.tree.leaves(jax.eval_shape(tx.init, params))
        counts.add(round(sum(leaf.size for leaf in state) / 2**18, 1))
    low, high = min(counts), max(counts)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def example(entry: Entry) -> optax.GradientTransformationExtraArgs:
    """An optimizer at its defaults, or a wrapper around a rule without state."""
    if entry.kind == "optimizer":
        return entry.build(total_steps=1000)
    inside, *rest = entry.signature.parameters.values()
    known = {"learning_rate": 0.1, "key": 0, "level": 0.1}
    needed = {p.name: known[p.name] for p in rest if p.default is p.empty and p.name in known}
    return entry.build(total_steps=1000, **{inside.name: optax.sgd(0.1)}, **needed)


def described(name: str, target: str) -> str:
    """What one optimizer does with each leaf of the user's own parameters.

    Args:
      name: a registered name.
      target: "package.module:name" of a tree of parameters, or of a function that makes one; the
        function is only traced.

    Raises:
      ValueError: for an unknown name or a target that cannot be loaded or traced.
    """
    found = load(target)
    try:
        params = jax.eval_shape(found) if callable(found) else found
        return describe(get(name).build(total_steps=1000), params)
    except Exception as error:
        raise ValueError(f"{target!r} is no tree of parameters: {one_line(error)}") from error


def card(name: str, width: int = 100) -> str:
    """All there is to say about one optimizer, as plain text.

    Args:
      name: a registered name.
      width: of the terminal, in columns.

    Returns:
      Its idea, rule, use, defaults, memory, cost, traits, paper, code and BibTeX entry.

    Raises:
      ValueError: if no optimizer has that name.
    """
    entry, width = get(name), _readable(width)
    numbers = memory(entry)
    defaults = [f"{key} = {_written(value)}" for key, value in entry.defaults.items()]
    parts = {
        "Rule": entry.section("Rule"),
        **{part: " ".join(entry.section(part).split()) for part in PROSE},
        "Defaults": "\n".join(defaults),
        "State": f"{numbers} number{'s' * (numbers != '1')} for each parameter",
        "Gradients": f"{entry.gradients} a step" if entry.gradients > 1 else "",
        "Family": f"{entry.family} ({entry.kind})",
        "Note": "\n".join(sorted(trait.value for trait in entry.traits)),
        "Paper": f"{entry.title}\n{', '.join(entry.authors)} ({entry.year})\n{entry.url}",
        "Code": entry.code or "",
        "Citation": bibtex(entry),
    }
    blocks = [_folded(f"{entry.name}: {entry.summary}", width, "")]
    for title, text in parts.items():
        # What goes on in another line stands further to the right, but for prose.
        lines = [_folded(line, width, "  ", title not in PROSE) for line in text.splitlines()]
        if lines:
            blocks.append("\n".join([title, *lines]))
    return "\n\n".join(blocks)


def bibtex(entry: Entry) -> str:
    """The BibTeX entry of an optimizer's paper."""
    family = unicodedata.normalize("NFKD", entry.authors[0].split()[-1].lower())
    # BibTeX itself reads keys without accents only.
    family = family.encode("ascii", "ignore").decode()
    fields = {
        "title": f"{{{entry.title}}}",
        "author": " and ".join(entry.authors),
        "year": str(entry.year),
        "url": entry.url,
    }
    if entry.arxiv:
        fields |= {"eprint": entry.arxiv, "archivePrefix": "arXiv"}
    lines = [f"  {key} = {{{value}}}," for key, value in fields.items()]
    return "\n".join([f"@misc{{{family}{entry.year}{entry.name},", *lines, "}"])


def families() -> str:
    """The families, what their members share and who they are, as a small Markdown table."""
    rows = []
    for family, members in REGISTRY.families.items():
        names = ", ".join(f"`{name}`" for name in members)
        rows.append(f"| {family} | {_lead(family)} | {names} |")
    return "\n".join(["| family | what its members share | members |", "|---|---|---|", *rows])


def catalogue() -> str:
    """Every entry in the table of its family, as Markdown."""
    parts = []
    for family, members in REGISTRY.families.items():
        rows = [
            f"| `{row['name']}` | {row['idea']} | {row['use']} | {row['memory']} "
            f"| [{row['year']}]({row['paper']}) |"
            for row in table(members)
        ]
        head = ["| name | idea | when to use | state | paper |", "|---|---|---|---|---|"]
        parts += [f"## {family}", about(family).strip(), "\n".join([*head, *rows])]
    return "\n\n".join(parts)


def citation_cff() -> str:
    """CITATION.cff: this library, and the papers of its optimizers as references."""
    papers = {entry.url: entry for entry in REGISTRY.values()}
    software = {
        "cff-version": "1.2.0",
        "message": "If you use an optimizer, please cite its paper; and this library, if you like.",
        "title": "optzoo",
        "abstract": "Optimizers for JAX that follow their papers, as Optax transformations.",
        "type": "software",
        "license": "Apache-2.0",
        "authors": [{"name": "The optzoo authors"}],
        "references": [_reference(entry) for entry in papers.values()],
    }
    return "\n".join(_yaml(software)) + "\n"


def documents(root: Path) -> dict[Path, str]:
    """What the files that speak of the registry have to say: file -> text."""
    blocks = {
        "README.md": ("families", families()),
        "docs/pages/index.md": ("families", families()),
        "docs/pages/catalogue.md": ("catalogue", catalogue()),
    }
    pages = {
        root / name: between_markers((root / name).read_text("utf-8"), *block)
        for name, block in blocks.items()
    }
    return pages | {root / "CITATION.cff": citation_cff()}


def between_markers(text: str, name: str, block: str) -> str:
    """`text` with `block` between "<!-- name: command -->" and "<!-- end of name -->".

    Raises:
      ValueError: where the markers are missing.
    """
    markers = re.compile(f"(<!-- {name}: .*? -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
    if not markers.search(text):
        raise ValueError(f"there is no <!-- {name}: … --> with an <!-- end of {name} --> after it")
    return markers.sub(lambda found: f"{found[1]}{block}\n{found[2]}", text)


def _reference(entry: Entry) -> dict[str, Any]:
    people = [author.rpartition(" ") for author in entry.authors]
    return {
        "type": "article",
        "title": entry.title,
        "authors": [{"given-names": given, "family-names": family} for given, _, family in people],
        "year": entry.year,
        "url": entry.url,
    }


def _yaml(node: dict[str, Any], indent: str = "") -> Iterator[str]:
    """The lines of a mapping of text, numbers and lists of mappings; JSON strings are YAML."""
    for key, value in node.items():
        if isinstance(value, list):
            yield f"{indent}{key}:"
            for item in value:
                first, *rest = _yaml(item, indent + "    ")
                yield f"{indent}  - {first.strip()}"
                yield from rest
        else:
            yield f"{indent}{key}: {json.dumps(value, ensure_ascii=False)}"


def _written(value: Any) -> str:
    return getattr(value, "__name__", None) or repr(value)


def _folded(line: str, width: int, indent: str, hangs: bool = False) -> str:
    return textwrap.fill(
        line,
        width,
        initial_indent=indent,
        subsequent_indent=indent + "    " * hangs,
        # Addresses stay whole.
        break_long_words=False,
        break_on_hyphens=False,
    )


def main() -> None:
    """Rewrites the documents of the folder above the package."""
    for path, text in documents(Path(__file__).parents[1]).items():
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
