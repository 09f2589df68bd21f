"""The report: one HTML file that holds everything it shows and opens without a network."""

import json
import os
import tempfile
from collections.abc import Iterable
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

import numpy as np
import pandas as pd
from plotly.offline import get_plotlyjs

from optzoo.compare.figures import colours, loss_curves, rate_curves
from optzoo.compare.results import Results
from optzoo.compare.verdict import verdict


def write(results: Results, folder: str | Path) -> tuple[Path, Path]:
    """Writes `report.html` and `results.csv` into a folder; each appears whole or not at all.

    Returns:
      The paths of both.
    """
    page, table = Path(folder) / "report.html", Path(folder) / "results.csv"
    _replace(table, results.frame.to_csv(index=False))
    _replace(page, html(results))
    return page, table


def html(results: Results) -> str:
    """The whole page."""
    figures, sections = {}, []
    for i, problem in enumerate(results.problems):
        figures[f"loss-{i}"] = loss_curves(results, problem)
        figures[f"rate-{i}"] = rate_curves(results, problem)
        sections.append(_section(results, problem, i))
    first, *rest = verdict(results)
    template = Template((files("optzoo.compare") / "template.html").read_text("utf-8"))
    return template.substitute(
        lead=escape(first),
        verdict="".join(f"<li>{escape(sentence)}</li>" for sentence in rest),
        ranking=_ranking(results),
        sections="".join(sections),
        protocol=_protocol(results),
        date=escape(results.about["date"]),
        figures=json.dumps(figures).replace("</", "<\\/"),
        plotly=get_plotlyjs().replace("</script", "<\\/script"),
    )


def _ranking(results: Results) -> str:
    problems, palette = results.problems, colours(results)
    table = results.table.set_index(["optimizer", "problem"])
    head = ["", "optimizer", "mean rank", "at default rate", "usable rates", "diverged", *problems]
    rows = []
    for place, row in enumerate(results.ranking.itertuples(), 1):
        cells = [
            str(place),
            _name(row.optimizer, palette),
            f"{row.rank:.1f}",
            _number(row.rank_untuned, ".1f"),
            f"{row.usable:.1f}",
            f"{row.diverged:.0%}",
        ]
        for problem in problems:
            if (row.optimizer, problem) not in table.index:
                cells.append("–")
                continue
            at = table.loc[row.optimizer, problem]
            share = (at["rank"] - 1) / max(1, len(results.ranking) - 1)
            cells.append(
                f'<span class="rank" style="--share:{share:.2f}">{at["rank"]:.0f}</span>'
                f'<span class="loss">{_number(at["test_loss"])}</span>'
            )
        rows.append(cells)
    return _table(head, rows)


def _section(results: Results, problem: str, index: int) -> str:
    details = results.about["problems"][problem]
    table = results.table[results.table["problem"] == problem]
    table = table.sort_values(["rank", "test_loss"])
    extra = [c for c in table if c.startswith("test_") and c not in ("test_loss", "test_spread")]
    extra = [column for column in extra if table[column].notna().any()]
    head = ["rank", "optimizer", "best rate", "× default", "test loss", "± seeds"]
    head += [column.replace("_", " ") for column in extra]
    head += ["steps to target", "diverged", "progress by rate"]
    rows = []
    for row in table.to_dict("records"):
        edge = ' <abbr title="the outermost rate tried">edge</abbr>' if row["edge"] else ""
        cells = [
            f"{row['rank']:.0f}",
            _name(row["optimizer"], colours(results)),
            f"{row['learning_rate']:.3g}{edge}",
            f"{row['multiple']:.3g}",
            _number(row["test_loss"]),
            _number(row["test_spread"], ".2g"),
            *(_number(row[column]) for column in extra),
            _number(row["steps_to_target"], ".0f"),
            f"{row['diverged']:.0%}",
            _strip(results, problem, row["optimizer"]),
        ]
        rows.append(cells)
    return f"""
<section id="problem-{index}">
<h2>{escape(problem)}</h2>
<p>{escape(details["summary"])}. {details["steps"]} steps; counts as solved at a loss of
{details["target"]:g}.</p>
<div class="charts">
<figure><figcaption>Loss during training, at everybody's best learning rate. Line: median of the
seeds; band: all seeds; grey: the other optimizers.</figcaption>
<div id="loss-{index}"></div></figure>
<figure><figcaption>Final loss for every learning rate tried. The flatter the valley, the easier to
tune; a dot marks the best, a line ends where runs diverge.</figcaption>
<div id="rate-{index}"></div></figure>
</div>
{_table(head, rows)}
</section>"""


def _strip(results: Results, problem: str, optimizer: str) -> str:
    """One square a learning rate, the darker the more of the best possible progress it made."""
    frame = results.frame[results.frame["problem"] == problem]
    lowest = frame["validation_loss"].where(np.isfinite(frame["validation_loss"])).min()
    start = frame["initial_loss"].mean()
    squares = []
    for rate, group in frame[frame["optimizer"] == optimizer].groupby("learning_rate"):
        loss = group["validation_loss"].mean(skipna=False)
        share = (start - loss) / (start - lowest) if np.isfinite(loss) and start > lowest else -1
        label = f"learning rate {rate:.3g}: loss {loss:.3g}"
        kinds = ["square"]
        kinds += ["own"] if (group["multiple"] == 1).any() else []
        kinds += [] if share > 0 else ["failed"]
        style = f"--share:{max(share, 0):.2f}"
        squares.append(f'<i class="{" ".join(kinds)}" style="{style}" title="{label}"></i>')
    return f'<span class="strip">{"".join(squares)}</span>'


def _protocol(results: Results) -> str:
    about = results.about
    values = ", ".join(f"{value:.3g}" for value in about["grid"]["values"])
    grid = f"learning rates {values}, the same for everybody"
    if about["grid"]["relative"]:
        grid = (
            f"the rule's own default times {values}; where the best is the outermost, once as many "
            "again on that side"
        )
    items = {
        "Learning rates": grid,
        "Seeds": f"{about['seeds']}; equal seeds start at equal parameters and see equal batches",
        "Choice": "the learning rate with the lowest mean validation loss after the last step",
        "Ranks": "by test loss at that rate; one optimizer is clearly better than another if the "
        "difference is more than twice its standard error over the seeds, and a rank is one more "
        "than the number of clearly better optimizers, so equal ranks are ties",
        "Usable rates": "how many of the tried rates come within a tenth of the optimizer's best "
        "progress from the start",
        "Diverged": "ended above the loss that the run started from, or at no finite loss",
        "Everything else": "at each rule's defaults; rules that average are evaluated at their "
        "averages; rules that own a schedule are told the number of steps",
        "Versions": ", ".join(f"{name} {number}" for name, number in about["versions"].items()),
        "Device": about["device"],
    }
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(items[name])}</dd>" for name in items)
    command = f"<dt>Command</dt><dd><code>{escape(about['command'])}</code></dd>"
    return f"<dl>{rows}{command if about['command'] else ''}</dl>"


def _name(optimizer: str, palette: dict[str, str]) -> str:
    colour = palette.get(optimizer, "transparent")
    return f'<b class="name"><i class="dot" style="background:{colour}"></i>{escape(optimizer)}</b>'


def _number(value: float, spec: str = ".3g") -> str:
    return "–" if pd.isna(value) else format(value, spec)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of ready-made HTML cells; the header is plain text."""
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    table = f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll" tabindex="0">{table}</div>'


def _replace(path: Path, text: str) -> None:
    """Writes a file so that no reader ever sees half of it."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
