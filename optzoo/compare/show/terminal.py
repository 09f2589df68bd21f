"""What `optzoo` prints."""

import math
import textwrap
import warnings
from collections.abc import Iterator
from types import TracebackType
from typing import NamedTuple

import rich.box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress import BarColumn, MofNCompleteColumn, Progress as Bar, TextColumn
from rich.table import Column, Table
from rich.text import Text

from optzoo.compare.errors import NotReused, PairFailed
from optzoo.compare.plan.baselines import REFERENCE
from optzoo.compare.read import steps
from optzoo.compare.read.tables import Tables, setting
from optzoo.compare.read.verdict import aligned
from optzoo.compare.work.progress import Progress

PLAIN_WIDTH = 200
ECHO = len("^C") + 1


class _Roomy(Bar):
    """Leaves the end of its line to the ^C that terminals echo, lest it begin another line."""

    def get_renderables(self) -> Iterator[RenderableType]:
        yield from map(_Short, super().get_renderables())


class _Short(NamedTuple):
    whole: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        return console.render(self.whole, options.update_width(options.max_width - ECHO))


class Reporter:
    """Shows the progress of a comparison: a live bar on a terminal, plain lines elsewhere.

    Attributes:
      failed: whether a pair of optimizer and problem did.
    """

    def __init__(self, shown: bool = True) -> None:
        self._console = Console(stderr=True, quiet=not shown)
        self._reused = self._computed = 0
        self.failed = False
        self._bar = _Roomy(
            # Where there is little room, the bar gives way.
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            BarColumn(),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[left]}", table_column=Column(no_wrap=True)),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("preparing", total=None, left="")
        self._warnings = warnings.catch_warnings()

    def __enter__(self) -> "Reporter":
        self._warnings.__enter__()
        usual = warnings.showwarning

        def show(message, category, filename, lineno, file=None, line=None):
            if issubclass(category, NotReused | PairFailed):
                self.failed |= category is PairFailed
                self._console.out(f"optzoo: {message}", highlight=False)
            else:
                usual(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        self._warnings.__exit__(None, None, None)
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
        label = Text(progress.label)
        counts = f" - {progress.total}/{progress.total} {left}"
        label.truncate(max(1, self._console.width - ECHO - len(counts)), overflow="ellipsis")
        self._bar.update(
            self._task,
            total=progress.total,
            completed=progress.done,
            description=label.plain,
            left=left,
        )
        if not self._console.is_terminal:
            count = f"[{progress.done}/{progress.total}]"
            line = ", ".join(filter(None, (f"{count} {progress.label}", left)))
            self._console.out(line, highlight=False)


def show_results(results: Tables) -> None:
    """Prints the ranking, and who is best on each problem; both fit the terminal."""
    console = _console()
    tables = [_ranking(results), _winners(results), *_until(results)]
    cut = [_narrowed(table, console) for table in tables]
    for table in tables:
        console.print(table)
        console.print()
    meanings = {
        "rank": "rank: mean over the problems, at the settings with the best validation loss, "
        f"and where it lies in nine of ten resamples of the {results.about['seeds']} seeds.",
        "ties": "ties: those who share a letter cannot be told apart, for neither is ahead in 95 % "
        "of the resamples.",
        "speed": f"speed: fewer gradients to the target than {REFERENCE}.",
        "gradients": "gradients: what a step costs; all runs on a problem spend as many.",
    }
    shown = [column.header for column in tables[0].columns]
    notes = [" ".join(meanings[name] for name in meanings if name in shown)]
    if results.question:
        notes.append(steps.note(results.question))
    if results.table["edge"].any() and not cut[1]:
        notes.append("! marks a rate on the edge of those tried.")
    if any(cut):
        notes.append("A wider terminal shows more columns.")
    for note in notes:
        console.print(textwrap.fill(note, min(79, console.width - 1)), highlight=False)


def _ranking(results: Tables) -> Table:
    columns = ("untuned", "solved", "speed", "diverged", "gradients")
    table = _table("optimizer", "rank", "ties", "9 in 10", *columns)
    ranking = results.ranking
    first = set(ranking["ties"][0])
    for row, ties in zip(ranking.itertuples(), aligned(ranking["ties"]), strict=True):
        table.add_row(
            Text(row.optimizer, "bold green" if first & set(row.ties) else "bold"),
            f"{row.rank:.1f}",
            ties,
            f"{row.rank_low:.1f}–{row.rank_high:.1f}",
            _number(row.rank_untuned, ".1f"),
            f"{row.solved:.0%}",
            _number(row.speed, ".2g", "×"),
            f"{row.diverged:.0%}",
            f"{row.step_gradients:.3g}",
        )
    return table


def _winners(results: Tables) -> Table:
    tuned = ["other settings"] if results.tuned else []
    table = _table("problem", "best", "test loss", "lr", "ties with", *tuned)
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
            *(setting({name: row[name] for name in results.tuned}) for _ in tuned),
        )
    return table


def _until(results: Tables) -> list[Table]:
    """The steps to the loss that was asked for, on every problem."""
    tables = []
    for problem in results.problems:
        head, *rows = steps.rows(results, problem) or [[]]
        if rows:
            table = _table(*head)
            table.columns[0].header = Text(problem)
            for name, *cells in rows:
                table.add_row(Text(name, "bold"), *cells)
            tables.append(table)
    return tables


def _table(*columns: str) -> Table:
    """An empty table; all but names and what follows them to the right."""
    table = Table(box=rich.box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0)
    for column in columns:
        left = column in ("optimizer", "problem", "best", "ties", "ties with", "other settings")
        table.add_column(column, overflow="fold", justify="left" if left else "right")
    return table


def _narrowed(table: Table, console: Console) -> bool:
    """Leaves out columns from the right until the names fit whole; whether it had to."""
    count, width = len(table.columns), console.width
    unlimited = console.options.update(width=PLAIN_WIDTH)
    while len(table.columns) > 2 and console.measure(table, options=unlimited).maximum > width:
        table.columns.pop()
    return len(table.columns) < count


def _number(value: float, spec: str, unit: str = "") -> str:
    return "–" if math.isnan(value) else format(value, spec) + unit


def _console() -> Console:
    """Standard output, wide where nobody's window limits it."""
    console = Console()
    return console if console.is_terminal else Console(width=PLAIN_WIDTH)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
