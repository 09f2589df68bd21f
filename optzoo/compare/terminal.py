"""What `optzoo` prints."""

from collections.abc import Sequence
from types import TracebackType

import rich.box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress as Bar, TextColumn
from rich.table import Table
from rich.text import Text

from optzoo.compare.results import Results
from optzoo.compare.runner import Progress

PLAIN_WIDTH = 200


class Reporter:
    """Shows the progress of a comparison: a live bar on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
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
            self._console.print(f"{runs} were in the results already and were not repeated")

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


def show_results(results: Results) -> None:
    """Prints who ranked where, and every optimizer's loss and best learning rate."""
    problems = results.problems
    rows = results.table.set_index(["optimizer", "problem"])
    table = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("optimizer", no_wrap=True)
    table.add_column("mean\nrank", justify="right")
    for problem in problems:
        table.add_column(f"{problem}\nrank, test loss, lr", no_wrap=True)
    ranks = results.table.groupby("problem")["rank"].value_counts()
    for ranked in results.ranking.itertuples():
        cells = [Text(ranked.optimizer, "bold"), Text(f"{ranked.rank:.1f}")]
        for problem in problems:
            row = rows.loc[ranked.optimizer, problem]
            tie = "=" if ranks[problem, row["rank"]] > 1 else " "
            place = f"{tie}{row['rank']:.0f}".rjust(3)
            loss = f"{row['test_loss']:.3g} ± {row['test_spread']:.1g}"
            rate = f"    lr {row['learning_rate']:.3g}{'!' if row['edge'] else ''}"
            style = "bold green" if row["rank"] == 1 else ""
            cells.append(Text.assemble((place, style), f" {loss}\n", (rate, "dim")))
        table.add_row(*cells)
    notes = [
        f"Mean ± spread over {results.about['seeds']} seeds, at the learning rate with the best "
        "validation loss. = marks ties."
    ]
    if results.table["edge"].any():
        notes.append("! marks a rate on the edge of those tried.")
    console = _console()
    console.print(table)
    console.print(" ".join(notes), highlight=False)


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
