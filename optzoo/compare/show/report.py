"""The report: one HTML file that holds everything it shows and opens without a network."""

import itertools
import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
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
from optzoo.compare.plan.tuners import GRID
from optzoo.compare.read import pairing, steps
from optzoo.compare.read.tables import Tables, setting
from optzoo.compare.read.verdict import aligned, verdict
from optzoo.compare.show import export
from optzoo.compare.show.figures.charts import BY_PROBLEM, OVERALL
from optzoo.compare.show.figures.form import (
    LABEL_HEIGHT,
    LETTER_WIDTH,
    PALETTE,
    ROW_HEIGHT,
    labels,
)
from optzoo.compare.show.figures.paths import path_chart
from optzoo.registry import MULTIPLES

T = TypeVar("T", bound=Tables)


def write(results: Tables, folder: str | Path) -> list[Path]:
    """Writes `report.html`, `results.csv` and, where steps to a loss were asked, `until.md`.

    Each appears whole or not at all.

    Returns:
      Their paths.

    Raises:
      UserError: where they cannot be written.
    """
    page, table = Path(folder) / "report.html", Path(folder) / "results.csv"
    _replace(table, export.csv_text(results.frame))
    _replace(page, html(results))
    written = [page, table]
    if text := steps.markdown(results):
        written.append(Path(folder) / "until.md")
        _replace(written[-1], text)
    return written


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
    overall = {name: chart.figure(results) for name, chart in OVERALL.items()}
    charts = "".join(
        _chart([name], overall[name], chart.caption, f"{chart.title}. {_reading(overall[name])}")
        for name, chart in OVERALL.items()
    )
    sections = [_section(results, problem, i) for i, problem in enumerate(results.problems)]
    first, *rest = verdict(results)
    room = files("optzoo.compare.show")
    links = [
        f'<a href="#problem-{i}" data-problem="{i}">{escape(problem)}</a>'
        for i, problem in enumerate(results.problems)
    ]
    return Template((room / "template.html").read_text("utf-8")).substitute(
        lead=escape(first),
        verdict="".join(f"<li>{escape(sentence)}</li>" for sentence in rest),
        navigation="".join(links),
        changes=_changes(changes),
        ranking=_ranking(results),
        reference=REFERENCE,
        charts=charts,
        sections="".join(sections),
        protocol=_protocol(results),
        date=escape(results.about["date"]),
        names=_json(
            {
                "optimizers": _optimizers(results),
                "problems": results.problems,
                "labels": [*labels(_optimizers(results)).values()],
                "palette": PALETTE,
                "sizes": {"letter": LETTER_WIDTH, "label": LABEL_HEIGHT, "row": ROW_HEIGHT},
            }
        ),
        figures=_figures("", overall),
        plotly=get_plotlyjs().replace("</script", "<\\/script"),
        script=(room / "page.js").read_text("utf-8"),
    )


def _optimizers(results: Tables) -> list[str]:
    """The optimizers in the order of the ranking, by whose places the page knows them."""
    return results.ranking["optimizer"].tolist()


def _figures(place: Any, figures: dict[str, dict[str, Any]]) -> str:
    """Figures as data that the page reads when they come into view.

    Lists that traces share, such as the steps of all curves, stand there once.
    """
    lists: dict[tuple[Any, ...], int] = {}
    for figure in figures.values():
        for trace in figure["data"]:
            for axis in "xy":
                trace[axis] = lists.setdefault(tuple(trace[axis]), len(lists))
    data = _json({"lists": list(lists), "figures": figures})
    return f'<script type="application/json" id="data{place}">{data}</script>'


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _chart(names: list[str], figure: dict[str, Any], caption: str, words: str) -> str:
    """A figure, and what it shows in words; of several charts one is shown, by buttons."""
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
        f"{_canvas(names[0], figure, words)}</figure>"
    )


SWITCHES = {"loss": "gradients", "clock": "seconds"}


def _canvas(name: str, figure: dict[str, Any], words: str) -> str:
    return (
        f'<div class="chart" id="{name}" data-shows="{name}" role="img" '
        f'aria-label="{escape(words)}" style="height:{figure["layout"]["height"]}px"></div>'
    )


def _reading(figure: dict[str, Any]) -> str:
    """What a chart over all problems says to those who do not see it."""
    if "ends" not in figure:
        return "The table of the ranking has its numbers."
    ends = sorted(figure["ends"].items(), key=lambda end: -end[1])[: len(PALETTE)]
    return "The highest at its right end: " + ", ".join(f"{name} {y:.0%}" for name, y in ends)


def _changes(rows: list[list[str]] | None) -> str:
    if rows is None:
        return ""
    head, *body = rows
    cells = [[escape(cell) for cell in row] for row in body]
    table = (
        _table("What changed", head, cells)
        if cells
        else "<p>They share no pair of optimizer and problem.</p>"
    )
    return f"<h2>What changed</h2>{table}"


def _ranking(results: Tables) -> str:
    problems = results.problems
    table = results.table.set_index(["optimizer", "problem"])
    head = ["optimizer", "mean rank", "ties", "at default rate", "solved", "speed"]
    head += ["gradients a step", "step cost", "state", "usable rates", "diverged", *problems]
    ranking = results.ranking
    rows = []
    for row, ties in zip(ranking.itertuples(), aligned(ranking["ties"]), strict=True):
        cells = [
            f'<button type="button" aria-pressed="false">{_name(row.optimizer)}</button>',
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
    return _table("Ranking", head, rows, range(len(rows)), len(head) - len(problems))


def _section(results: Tables, problem: str, index: int) -> str:
    places = {name: place for place, name in enumerate(_optimizers(results))}
    details = results.about["problems"][problem]
    table = results.table[results.table["problem"] == problem]
    table = table.sort_values(["rank", "test_loss"])
    extra = [c for c in table if c.startswith("test_") and c not in ("test_loss", "test_spread")]
    extra = [column for column in extra if table[column].notna().any()]
    lengths = ["steps_to_target"]
    # Where every step costs one gradient, steps say it all.
    if (table["gradients"] > table["steps"]).any():
        lengths = ["steps", *lengths, "gradients_to_target"]
    head = ["optimizer", "rank", "best rate", "× default", "test loss", "± seeds"]
    head += [column.replace("_", " ") for column in extra]
    head += ["other settings"] if results.tuned else []
    head += ["solved", *(column.replace("_", " ") for column in lengths)]
    head += ["µs a step", "state", "diverged", "progress by rate"]
    rows, strips = [], _strips(results, problem)
    for row in table.to_dict("records"):
        edge = ' <abbr title="the outermost rate tried">edge</abbr>' if row["edge"] else ""
        cells = [
            _name(row["optimizer"]),
            f"{row['rank']:.0f}",
            f"{row['learning_rate']:.3g}{edge}",
            f"{row['multiple']:.3g}",
            _number(row["test_loss"]),
            _number(row["test_spread"], ".2g"),
            *(_number(row[column]) for column in extra),
            *([escape(setting({name: row[name] for name in results.tuned}))] * bool(results.tuned)),
            f"{row['solved']:.0%}",
            *(_number(row[column], ".0f") for column in lengths),
            _number(1e6 * row["step_seconds"]),
            _number(row["state_ratio"], ".1f", "×"),
            f"{row['diverged']:.0%}",
            strips[row["optimizer"]],
        ]
        rows.append(cells)
    shown = {
        f"{stem}-{index}": BY_PROBLEM[name]
        for stem, name in {"loss": "losses", "rate": "rates", "until": "until"}.items()
        if BY_PROBLEM[name].applies(results, problem)
    }
    figures = {name: chart.figure(results, problem) for name, chart in shown.items()}
    there = "The table below has the numbers."
    charts = ""
    for name, chart in shown.items():
        figure = figures[name]
        names = [name, f"clock-{index}"] if "clock" in figure else [name]
        charts += _chart(names, figure, chart.caption, f"{problem}: {chart.title}. {there}")
    if path := path_chart(results, problem):
        figures[f"path-{index}"] = path
        words = f"{problem}: paths of the highlighted optimizers. {there}"
        charts += f"""<figure><figcaption>The paths of the first seed, at everybody's best learning
rate, over the logarithm of the loss.</figcaption>
<div class="player"><button type="button" data-plays="path-{index}">play</button>
<input type="range" min="0" aria-label="checkpoint" data-moves="path-{index}"
max="{len(path["frames"]) - 1}" value="{len(path["frames"]) - 1}"><output></output></div>
{_canvas(f"path-{index}", path, words)}</figure>"""
    return f"""
<section id="problem-{index}" data-problem="{index}">
<h2>{escape(problem)}</h2>
<p>{escape(details["summary"])}. {details["steps"]} gradients a run; counts as solved at a loss of
{details["target"]:.4g}.</p>
<div class="charts">{charts}</div>
{_table(problem, head, rows, [places[name] for name in table["optimizer"]])}
{_until(results, problem, places)}
{_figures(index, figures)}
</section>"""


def _until(results: Tables, problem: str, places: Mapping[str, int]) -> str:
    """The steps to the loss that was asked for, where one was."""
    head, *rows = steps.rows(results, problem) or [[]]
    question = results.question
    if not rows or question is None:
        return ""
    title = f"Steps to a loss of {question.target:g}"
    cells = [[_name(row[0]), *map(escape, row[1:])] for row in rows]
    table = _table(f"{problem}: {title}", head, cells, [places[row[0]] for row in rows])
    return f"<h3>{title}</h3><p>{escape(steps.note(question))}</p>{table}"


def _strips(results: Tables, problem: str) -> dict[str, str]:
    """For each optimizer one square a learning rate, the darker the more progress it made.

    That is the share of the progress that the best optimizer made at its best rate.
    """
    frame = results.frame[results.frame["problem"] == problem]
    lowest = frame["validation_loss"].where(np.isfinite(frame["validation_loss"])).min()
    start = frame["initial_loss"].mean()
    means = frame.groupby(["optimizer", "learning_rate"]).agg(
        loss=("validation_loss", lambda losses: losses.mean(skipna=False)),
        multiple=("multiple", "first"),
    )
    strips = {}
    for optimizer, rows in means.groupby("optimizer"):
        squares, words = [], []
        for (_, rate), loss, multiple in rows.itertuples():
            known = np.isfinite(loss) and start > lowest
            share = (start - loss) / (start - lowest) if known else -1
            words.append(f"{loss:.3g} at {rate:.3g}")
            kinds = ["square"]
            kinds += ["own"] if multiple == 1 else []
            kinds += [] if share > 0 else ["failed"]
            style = f"--share:{max(share, 0):.2f}"
            squares.append(f'<i class="{" ".join(kinds)}" style="{style}" title="{words[-1]}"></i>')
        spoken = f"losses by learning rate: {', '.join(words)}"
        strips[optimizer] = (
            f'<span class="strip" role="img" aria-label="{spoken}">{"".join(squares)}</span>'
        )
    return strips


def _protocol(results: Tables) -> str:
    about = results.about
    values = ", ".join(f"{value:.3g}" for value in about["grid"]["values"])
    grid = f"learning rates {values}, the same for everybody"
    if results.tuner != GRID:
        grid = (
            f"{results.tuner}: so many settings for everybody, of the learning rate from "
            f"{MULTIPLES.low:.2g} to {MULTIPLES.high:.2g} times the rule's own default and of "
            "weight decay, b1, b2 and what else the rule declares ranges for. Random ones are the "
            "same shares of the ranges for all; TPE chooses eight at a time after eight random ones"
        )
    elif about["grid"]["relative"]:
        grid = (
            f"the rule's own default times {values}; while the best is the outermost, as many more "
            f"on that side, at most {MAX_GROWTH} times; where it still is, the table says “edge”"
        )
    decay = "each rule's own default"
    if about["weight_decay"] is not None:
        decay = f"{about['weight_decay']:g} for every rule that has it"
    items = {
        "Tuning": grid,
        "Seeds": f"{about['seeds']}; equal seeds start at equal parameters and see equal batches",
        "Schedule": f"{' and '.join(about['schedules'])}; cosine is a linear warm-up over a tenth "
        "of the steps and cosine decay to zero; rules that own a schedule keep it and are told the "
        "number of steps",
        "Length": "all runs on a problem spend as many gradients, forward and backward passes: a "
        "rule whose steps cost two takes half as many steps",
        "Weight decay": decay,
        "Choice": "the setting with the lowest mean validation loss after the last step",
        "Data": "batches come from the training split; the validation split chooses, the test "
        "split is only reported",
        "Ranking": "by mean rank over the problems; the seeds are drawn anew a thousand times, "
        "each time the learning rates are chosen again and the test losses ranked; two optimizers "
        "share a letter unless one of them is ahead in 95 % of the draws",
        "Ranks on a problem": "by test loss; one optimizer is clearly better than another if the "
        "difference is more than twice its standard error over the seeds, and a rank is one more "
        "than the number of clearly better optimizers, so equal ranks are ties",
        **_until_protocol(results),
        "Costs": f"{_timing(results)}; state is bytes of optimizer state per byte of parameters",
        "Usable rates": "how many of the tried settings come within a tenth of the optimizer's "
        "best progress from the start",
        "Diverged": "ended above the loss that the run started from, or at no finite loss",
        "Everything else": "at each rule's defaults; rules that average are evaluated at their "
        "averages",
        "Versions": ", ".join(f"{name} {number}" for name, number in about["versions"].items()),
        "Device": "; ".join(results.devices),
    }
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(items[name])}</dd>" for name in items)
    command = f"<dt>Command</dt><dd><code>{escape(about['command'])}</code></dd>"
    return f"<dl>{rows}{command if about['command'] else ''}</dl>"


def _timing(results: Tables) -> str:
    how = "with all runs of its grid side by side, without evaluation"
    if workers := results.about["workers"]:
        how += f", by the workers of {workers}, others of which may have been busy beside it"
    else:
        how += ", with nothing else going on"
    elsewhere = len(results.devices) > 1
    return f"a step is timed {how}{f'; only on {results.timed_on}' if elsewhere else ''}"


def _until_protocol(results: Tables) -> dict[str, str]:
    question = results.question
    if question is None:
        return {}
    return {
        "Steps to a loss": "one trial, chosen by the validation losses of the tuning seeds; "
        f"{question.seeds} other seeds and the test split test it. One-sided t-tests at "
        f"{question.confidence:.0%} of lengths in a fixed order, from half more than tuning "
        "expects downwards until one fails; the crossing's lower end by the opposite tests from "
        "below. A rule that plans to its end is run, and its trial chosen, for each length anew"
    }


def _name(optimizer: str) -> str:
    name = escape(optimizer).replace("(", "(<wbr>")
    return f'<b class="name"><i class="dot"></i><span>{name}</span></b>'


def _number(value: float, spec: str = ".3g", unit: str = "") -> str:
    return "–" if pd.isna(value) else format(value, spec) + unit


def _table(
    title: str,
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    optimizers: Iterable[int] | None = None,
    first_problem: int | None = None,
) -> str:
    """A table of ready-made HTML cells; the header is plain text.

    Args:
      title: what it is a table of.
      head, rows: its cells; the first one of a row is the row's header.
      optimizers: the places of the optimizers that the rows are about.
      first_problem: the first column that is about a problem, as are those behind it.
    """

    def cell(tag: str, column: int, content: str) -> str:
        about = ""
        if first_problem is not None and column >= first_problem:
            about = f' data-problem="{column - first_problem}"'
        return f"<{tag}{about}>{content}</{tag.partition(' ')[0]}>"

    titles = "".join(cell('th scope="col"', i, escape(text)) for i, text in enumerate(head))
    body = ""
    places = itertools.repeat(None) if optimizers is None else optimizers
    for row, place in zip(rows, places, strict=False):
        about = "" if place is None else f' data-optimizer="{place}"'
        cells = "".join(cell("td" if i else 'th scope="row"', i, c) for i, c in enumerate(row))
        body += f"<tr{about}>{cells}</tr>"
    table = (
        f"<table><caption>{escape(title)}</caption><thead><tr>{titles}</tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(title)}">{table}</div>'
    )


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
