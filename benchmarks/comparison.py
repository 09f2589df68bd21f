"""The table and the picture of a comparison on docs/pages/comparison.md.

    python benchmarks/comparison.py default FOLDER   from what `optzoo compare --out FOLDER` wrote
    python benchmarks/comparison.py all FOLDER       from what `optzoo compare --all` wrote

Keeps the numbers in docs/comparison.json, from which the tests make the table again.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from optzoo.catalog import between_markers
from optzoo.compare import Results
from optzoo.compare.show import pictures
from optzoo.compare.show.figures.charts import OVERALL

DOCS = Path(__file__).resolve().parents[1] / "docs"
STORE, PAGE = DOCS / "comparison.json", DOCS / "pages" / "comparison.md"
PICTURES = {"default": "compare.png", "all": "compare_all.png"}
COLUMNS = [
    *("optimizer", "rank", "rank_low", "rank_high", "ties"),
    *("rank_untuned", "solved", "speed", "diverged"),
]


def record(results: Results) -> dict[str, Any]:
    """What the page tells of a comparison, as JSON has it."""
    rows = results.ranking[COLUMNS].to_json(orient="records", double_precision=3)
    return {
        "runs": len(results.frame),
        "problems": len(results.problems),
        "seeds": results.about["seeds"],
        "ranking": json.loads(rows),
    }


def block(name: str, found: dict[str, Any]) -> str:
    """A comparison's part of the page: how much was run, the table, the picture."""
    rows = [
        f"| `{row['optimizer']}` "
        f"| {row['rank']:.1f} | {row['ties']} | {row['rank_low']:.1f}–{row['rank_high']:.1f} "
        f"| {row['rank_untuned']:.1f} | {row['solved']:.0%} "
        f"| {'–' if row['speed'] is None else format(row['speed'], '.2g') + '×'} "
        f"| {row['diverged']:.0%} |"
        for row in found["ranking"]
    ]
    head = "| optimizer | rank | ties | 9 in 10 | untuned | solved | speed | diverged |"
    lines = [
        f"{found['runs']} runs on {found['problems']} problems with {found['seeds']} seeds.",
        "",
        *(head, "|---|---:|---|---|---:|---:|---:|---:|", *rows),
        "",
        f"![Mean rank of every optimizer, with error bars]({PICTURES[name]})",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=PICTURES, help="which part of the page")
    parser.add_argument("folder", type=Path, help="the output folder of the comparison")
    options = parser.parse_args()
    results = Results.load(options.folder)
    stored = json.loads(STORE.read_text("utf-8")) if STORE.exists() else {}
    stored[options.name] = record(results)
    STORE.write_text(json.dumps(stored, indent=1) + "\n", "utf-8")
    text = between_markers(
        PAGE.read_text("utf-8"), options.name, block(options.name, stored[options.name])
    )
    PAGE.write_text(text, "utf-8")
    chart = OVERALL["ranking"]
    picture = pictures.draw(chart.draw(results), chart.title)
    picture.savefig(PAGE.with_name(PICTURES[options.name]), dpi=pictures.DPI)


if __name__ == "__main__":
    main()
