"""The report: one HTML file that holds everything it shows and opens without a network."""

import json
import os
import tempfile
from collections.abc import Iterable
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from plotly.offline import get_plotlyjs

from optzoo.compare.errors import UserError
from optzoo.compare.plan.baselines import REFERENCE
from optzoo.compare.plan.grid import MAX_GROWTH
from optzoo.compare.read import pairing
from optzoo.compare.read.tables import Tables
from optzoo.compare.read.verdict import aligned, verdict
from optzoo.compare.show import export
from optzoo.compare.show.figures.charts import BY_PROBLEM, OVERALL
from optzoo.compare.show.figures.form import colours
from optzoo.compare.show.figures.paths import path_chart
from optzoo.compare.show.figures.problem import loss_curves, rate_curves

T = TypeVar("T", bound=Tables)


def write(results: Tables, folder: str | Path) -> tuple[Path, Path]:
    """Writes `report.html` and `results.csv` into a folder; each appears whole or not at all.

    Returns:
      The paths of both.

    Raises:
      UserError: where they cannot be written.
    """
    page, table = Path(folder) / "report.html", Path(folder) / "results.csv"
    _replace(table, export.csv_text(results.frame))
    _replace(page, html(results))
    return page, table


def write_both(first: T, second: T, folder: Path, other: Path) -> tuple[Path, T]:
    """Writes the report of two comparisons together into the first one's folder.

    Returns:
      Its path, and both comparisons as one.

    Raises:
      UserError: where it cannot be written, or they measured different things.
    """
    names = folder.resolve().name, other.resolve().name
    page = folder / f"report-with-{names[1]}.html"
    both = pairing.merged(first, second, names)
    _replace(page, html(both, pairing.changes(first, second, names)))
    return page, both


def html(results: Tables, changes: list[list[str]] | None = None) -> str:
    """The whole page.

    Args:
      results: what it shows.
      changes: rows of `pairing.changes`, header first, where it shows two comparisons.
    """
    figures = {name: chart.draw(results) for name, chart in OVERALL.items()}
    sections = []
    for i, problem in enumerate(results.problems):
        figures[f"loss-{i}"] = loss_curves(results, problem)
        figures[f"clock-{i}"] = _sharing(
            loss_curves(results, problem, clock=True), figures[f"loss-{i}"]
        )
        figures[f"rate-{i}"] = rate_curves(results, problem)
        if path := path_chart(results, problem):
            figures[f"path-{i}"] = path
        sections.append(_section(results, problem, i, drawn="path" if path else ""))
    first, *rest = verdict(results)
    template = Template((files("optzoo.compare.show") / "template.html").read_text("utf-8"))
    links = [f'<a href="#problem-{i}">{escape(p)}</a>' for i, p in enumerate(results.problems)]
    return template.substitute(
        lead=escape(first),
        verdict="".join(f"<li>{escape(sentence)}</li>" for sentence in rest),
        navigation="".join(links),
        changes=_changes(changes),
        ranking=_ranking(results),
        reference=REFERENCE,
        charts="".join(_chart([name], chart.caption) for name, chart in OVERALL.items()),
        sections="".join(sections),
        protocol=_protocol(results),
        date=escape(results.about["date"]),
        figures=json.dumps(figures, separators=(",", ":")).replace("<", "\\u003c"),
        plotly=get_plotlyjs().replace("</script", "<\\/script"),
    )


def _sharing(figure: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The figure with places in the other one for heights that both have: half of its size."""
    for trace in figure["data"]:
        trace["y"] = next(
            place for place, twin in enumerate(other["data"]) if twin["y"] == trace["y"]
        )
    return figure


def _chart(names: list[str], caption: str) -> str:
    """A figure; of several charts one is shown, and buttons choose which."""
    buttons = ""
    if len(names) > 1:
        buttons = "".join(
            f'<button type="button" data-chart="{name}" aria-pressed="{str(not i).lower()}">'
            f"{SWITCHES[name.partition('-')[0]]}</button>"
            for i, name in enumerate(names)
        )
    return (
        f"<figure><figcaption>{escape(caption)}</figcaption>"
        f'<div class="switch">{buttons}</div>'
        f'<div class="chart" id="{names[0]}" data-shows="{names[0]}"></div></figure>'
    )


SWITCHES = {"loss": "gradients", "clock": "seconds"}


def _changes(rows: list[list[str]] | None) -> str:
    if rows is None:
        return ""
    head, *body = rows
    cells = [[escape(cell) for cell in row] for row in body]
    table = _table(head, cells) if cells else "<p>They share no pair of optimizer and problem.</p>"
    return f"<h2>What changed</h2>{table}"


def _ranking(results: Tables) -> str:
    problems, palette = results.problems, colours(results)
    table = results.table.set_index(["optimizer", "problem"])
    head = ["optimizer", "mean rank", "ties", "at default rate", "solved", "speed"]
    head += ["gradients a step", "step cost", "state", "usable rates", "diverged", *problems]
    ranking = results.ranking
    rows = []
    for row, ties in zip(ranking.itertuples(), aligned(ranking["ties"]), strict=True):
        cells = [
            _name(row.optimizer, palette),
            f'<span class="pair">{row.rank:.1f} '
            f"<small>({row.rank_low:.1f}–{row.rank_high:.1f})</small></span>",
            f'<span class="ties">{ties}</span>',
            _number(row.rank_untuned, ".1f"),
            f"{row.solved:.0%}",
            _number(row.speed, ".2g", "×"),
            f"{row.step_gradients:.3g}",
            _number(row.step_cost, ".2g", "×"),
            _number(row.state_ratio, ".1f", "×"),
            f"{row.usable:.1f}",
            f"{row.diverged:.0%}",
        ]
        for problem in problems:
            if (row.optimizer, problem) not in table.index:
                cells.append("–")
                continue
            at = table.loc[row.optimizer, problem]
            share = (at["rank"] - 1) / max(1, len(ranking) - 1)
            cells.append(
                f'<span class="pair"><span class="rank" style="--share:{share:.2f}">'
                f"{at['rank']:.0f}</span> <small>{_number(at['test_loss'])}</small></span>"
            )
        rows.append(cells)
    return _table(head, rows)


def _section(results: Tables, problem: str, index: int, *, drawn: str) -> str:
    details = results.about["problems"][problem]
    table = results.table[results.table["problem"] == problem]
    table = table.sort_values(["rank", "test_loss"])
    extra = [c for c in table if c.startswith("test_") and c not in ("test_loss", "test_spread")]
    extra = [column for column in extra if table[column].notna().any()]
    head = ["optimizer", "rank", "best rate", "× default", "test loss", "± seeds"]
    head += [column.replace("_", " ") for column in extra]
    head += ["solved", "steps", "gradients", "steps to target", "gradients to target"]
    head += ["µs a step", "state", "diverged", "progress by rate"]
    rows = []
    for row in table.to_dict("records"):
        edge = ' <abbr title="the outermost rate tried">edge</abbr>' if row["edge"] else ""
        cells = [
            _name(row["optimizer"], colours(results)),
            f"{row['rank']:.0f}",
            f"{row['learning_rate']:.3g}{edge}",
            f"{row['multiple']:.3g}",
            _number(row["test_loss"]),
            _number(row["test_spread"], ".2g"),
            *(_number(row[column]) for column in extra),
            f"{row['solved']:.0%}",
            *(
                _number(row[column], ".0f")
                for column in ("steps", "gradients", "steps_to_target", "gradients_to_target")
            ),
            _number(1e6 * row["step_seconds"]),
            _number(row["state_ratio"], ".1f", "×"),
            f"{row['diverged']:.0%}",
            _strip(results, problem, row["optimizer"]),
        ]
        rows.append(cells)
    charts = _chart([f"loss-{index}", f"clock-{index}"], BY_PROBLEM["losses"].caption)
    charts += _chart([f"rate-{index}"], BY_PROBLEM["rates"].caption)
    if drawn:
        charts += f"""<figure><figcaption>The paths of the first seed, at everybody's best learning
rate, over the logarithm of the loss.</figcaption>
<div class="player"><button type="button" data-plays="path-{index}">play</button>
<input type="range" min="0" aria-label="checkpoint" data-moves="path-{index}"><output></output>
</div>
<div class="chart" id="path-{index}" data-shows="path-{index}"></div></figure>"""
    return f"""
<section id="problem-{index}">
<h2>{escape(problem)}</h2>
<p>{escape(details["summary"])}. {details["steps"]} gradients a run; counts as solved at a loss of
{details["target"]:.4g}.</p>
<div class="charts">{charts}</div>
{_table(head, rows)}
</section>"""


def _strip(results: Tables, problem: str, optimizer: str) -> str:
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


def _protocol(results: Tables) -> str:
    about = results.about
    values = ", ".join(f"{value:.3g}" for value in about["grid"]["values"])
    grid = f"learning rates {values}, the same for everybody"
    if about["grid"]["relative"]:
        grid = (
            f"the rule's own default times {values}; while the best is the outermost, as many more "
            f"on that side, at most {MAX_GROWTH} times; where it still is, the table says “edge”"
        )
    decay = "each rule's own default"
    if about["weight_decay"] is not None:
        decay = f"{about['weight_decay']:g} for every rule that has it"
    items = {
        "Learning rates": grid,
        "Seeds": f"{about['seeds']}; equal seeds start at equal parameters and see equal batches",
        "Schedule": f"{' and '.join(about['schedules'])}; cosine is a linear warm-up over a tenth "
        "of the steps and cosine decay to zero; rules that own a schedule keep it and are told the "
        "number of steps",
        "Length": "all runs on a problem spend as many gradients, forward and backward passes: a "
        "rule whose steps cost two takes half as many steps",
        "Weight decay": decay,
        "Choice": "the learning rate with the lowest mean validation loss after the last step",
        "Data": "batches come from the training split; the validation split chooses, the test "
        "split is only reported",
        "Ranking": "by mean rank over the problems; the seeds are drawn anew a thousand times, "
        "each time the learning rates are chosen again and the test losses ranked; two optimizers "
        "share a letter unless one of them is ahead in 95 % of the draws",
        "Ranks on a problem": "by test loss; one optimizer is clearly better than another if the "
        "difference is more than twice its standard error over the seeds, and a rank is one more "
        "than the number of clearly better optimizers, so equal ranks are ties",
        "Costs": "a step is timed alone, with all runs of its grid side by side, without "
        "evaluation; state is bytes of optimizer state per byte of parameters",
        "Usable rates": "how many of the tried rates come within a tenth of the optimizer's best "
        "progress from the start",
        "Diverged": "ended above the loss that the run started from, or at no finite loss",
        "Everything else": "at each rule's defaults; rules that average are evaluated at their "
        "averages",
        "Versions": ", ".join(f"{name} {number}" for name, number in about["versions"].items()),
        "Device": about["device"],
    }
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(items[name])}</dd>" for name in items)
    command = f"<dt>Command</dt><dd><code>{escape(about['command'])}</code></dd>"
    return f"<dl>{rows}{command if about['command'] else ''}</dl>"


def _name(optimizer: str, palette: dict[str, str]) -> str:
    colour = palette.get(optimizer, "transparent")
    return f'<b class="name"><i class="dot" style="background:{colour}"></i>{escape(optimizer)}</b>'


def _number(value: float, spec: str = ".3g", unit: str = "") -> str:
    return "–" if pd.isna(value) else format(value, spec) + unit


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of ready-made HTML cells; the header is plain text."""
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    table = f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll" tabindex="0">{table}</div>'


def _replace(path: Path, text: str) -> None:
    """Writes a file so that no reader ever sees half of it."""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; the results are safe") from error
