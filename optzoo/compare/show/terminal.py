"""What `optzoo` prints."""

import math
import textwrap
from collections.abc import Sequence
from types import TracebackType

import rich.box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress as Bar, TextColumn
from rich.table import Table
from rich.text import Text

from optzoo.compare.plan.baselines import REFERENCE
from optzoo.compare.read.tables import Tables
from optzoo.compare.work.progress import Progress

PLAIN_WIDTH = 200


class Reporter:
    """Shows the progress of a comparison: a live bar on a terminal, plain lines elsewhere."""

    def __init__(self, shown: bool = True) -> None:
        self._console = Console(stderr=True, quiet=not shown)
        self._reused = self._computed = 0
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("preparing", total=None, left="")

    def __enter__(self) -> "Reporter":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if kind is None and self._reused:
            runs = f"{self._reused} of {self._reused + self._computed} runs"
            self._console.print(
                f"{runs} were in the results already, from before or from a rule that is the same "
                "on a problem, and were not repeated"
            )

    def __call__(self, progress: Progress) -> None:
        self._computed += progress.computed
        self._reused += progress.reused
        left = f"{_duration(progress.seconds_left)} left" if progress.seconds_left else ""
        self._bar.update(
            self._task,
            total=progress.total,
            completed=progress.done,
            description=progress.label,
            left=left,
        )
        if not self._console.is_terminal:
            count = f"[{progress.done}/{progress.total}]"
            line = ", ".join(filter(None, (f"{count} {progress.label}", left)))
            self._console.out(line, highlight=False)


def show_results(results: Tables) -> None:
    """Prints the ranking, and who is best on each problem; both fit 80 columns."""
    console = _console()
    for table in (_ranking(results), _winners(results)):
        console.print(table)
        console.print()
    notes = [
        "mean rank: over the problems, at the learning rates with the best validation loss, and "
        "where it lies in nine of ten resamples of the "
        f"{results.about['seeds']} seeds; = marks ties. speed: fewer steps to the target than "
        f"{REFERENCE}.",
    ]
    if results.table["edge"].any():
        notes.append("! marks a rate on the edge of those tried.")
    for note in notes:
        console.print(textwrap.fill(note, 79), highlight=False)


def _ranking(results: Tables) -> Table:
    table = _table("place", "optimizer", "mean rank", "untuned", "solved", "speed", "diverged")
    places = results.ranking["place"].value_counts()
    for row in results.ranking.itertuples():
        tie = "=" if places[row.place] > 1 else " "
        table.add_row(
            f"{tie}{row.place}",
            Text(row.optimizer, "bold green" if row.place == 1 else "bold"),
            f"{row.rank:.1f} ({row.rank_low:.1f}–{row.rank_high:.1f})",
            _number(row.rank_untuned, ".1f"),
            f"{row.solved:.0%}",
            _number(row.speed, ".2g", "×"),
            f"{row.diverged:.0%}",
        )
    return table


def _winners(results: Tables) -> Table:
    table = _table("problem", "best", "test loss", "lr", "ties with")
    for problem, best in results.best().items():
        rows = results.table[results.table["problem"] == problem].set_index("optimizer")
        row = rows.loc[best]
        tied = int((rows["rank"] == 1).sum()) - 1
        table.add_row(
            Text(problem),
            Text(best, "bold"),
            f"{row['test_loss']:.3g} ± {row['test_spread']:.1g}",
            f"{row['learning_rate']:.3g}{'!' if row['edge'] else ''}",
            f"{tied} other{'s' * (tied > 1)}" if tied else "",
        )
    return table


def _table(*columns: str) -> Table:
    """An empty table; all but names and what follows them to the right."""
    table = Table(box=rich.box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        left = column in ("optimizer", "problem", "best", "ties with")
        table.add_column(column, overflow="fold", justify="left" if left else "right")
    return table


def _number(value: float, spec: str, unit: str = "") -> str:
    return "–" if math.isnan(value) else format(value, spec) + unit


def show_table(rows: Sequence[dict[str, str]]) -> None:
    """Prints rows that share their keys as a table."""
    table = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for key in rows[0]:
        table.add_column(key, no_wrap=key == "name")
    for row in rows:
        table.add_row(*(Text(value) for value in row.values()))
    _console().print(table)


def _console() -> Console:
    """Standard output, wide where nobody's window limits it."""
    console = Console()
    return console if console.is_terminal else Console(width=PLAIN_WIDTH)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
