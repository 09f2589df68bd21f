"""Steps to a loss, in words."""

from typing import Any

import pandas as pd

from optzoo.compare.plan.until import Until
from optzoo.compare.read.tables import Tables, setting


def rows(results: Tables, problem: str) -> list[list[str]]:
    """The answers on one problem as a table of text, header first; empty without any."""
    question, table = results.question, results.until
    table = table[table["problem"] == problem]
    if question is None or table.empty:
        return []
    both = f"{2 * question.confidence - 1:.0%}"
    head = ["optimizer", "steps", f"crossing, {both}", "test loss", "lr", "trials", "runs"]
    lines = [head, *([row["optimizer"], *_cells(row)] for row in table.to_dict("records"))]
    if not results.tuned:
        return lines
    settings = [setting(results.answers[problem, name]["options"]) for name in table["optimizer"]]
    return [[*line, last] for line, last in zip(lines, ["other settings", *settings], strict=True)]


def _cells(row: dict[str, Any]) -> list[str]:
    crossing = f"over {row['short']}" if row["short"] else "–"
    if row["outcome"] == "reached":
        crossing = f"{row['short']}–{row['steps']}"
    loss = f"{row['loss']:.4g} ({row['loss_low']:.4g}–{row['loss_high']:.4g})"
    return [
        _steps(row),
        crossing,
        "–" if row["outcome"] == "diverged" else loss,
        f"{row['learning_rate']:.3g}",
        str(row["trials"]),
        "each length" if row["re_run"] else "one",
    ]


def _steps(row: dict[str, Any]) -> str:
    """The number of steps, or what came in its place."""
    return {
        "reached": str(row["steps"]),
        "not reached": f"not in {row['tested']}",
        "not shown": f"unclear at {row['tested']}",
        "diverged": "diverged",
    }[row["outcome"]]


def note(question: Until) -> str:
    """How to read `rows`."""
    return (
        f"steps: the fewest that bring the mean test loss below {question.target:g}, at "
        f"{question.confidence:.0%} confidence (one-sided t-tests over {question.seeds} seeds that "
        "tuning did not see). crossing: between the largest number that is shown to be too few "
        "and this one. test loss: the mean there and its one-sided bounds. runs: one, where a run "
        "holds all shorter ones, or some for each length, where the rule plans to its end."
    )


def markdown(results: Tables) -> str:
    """The answers on all problems, to be quoted; empty where nothing was asked."""
    question = results.question
    if question is None:
        return ""
    parts = [f"# Steps to a loss of {question.target:g}\n"]
    for problem in results.problems:
        head, *body = rows(results, problem) or [[]]
        if body:
            lines = [head, ["---"] + ["---:"] * (len(head) - 1), *body]
            parts.append(f"## {problem}\n")
            parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n")
    return "\n".join([*parts, f"{note(question)}\n"])


def sentence(results: Tables, problem: str) -> str:
    """Who takes the fewest steps on a problem."""
    question, table = results.question, results.until
    assert question is not None
    table = table[table["problem"] == problem]
    reached = table[table["steps"].notna()]
    lead = f"To a test loss of {question.target:g} on {problem}"
    if reached.empty:
        return f"{lead}, nobody is shown to get in {table['tested'].max()} steps."
    told = [f"{row.optimizer} {_span(row)}" for row in reached.head(3).itertuples()]
    others = len(table) - len(reached)
    missing = f"; {others} not shown to get there" if others else ""
    return f"{lead}, the fewest steps: {', '.join(told)}{missing}."


def _span(row: Any) -> str:
    assert not pd.isna(row.steps)
    return f"{row.steps} (over {row.short})" if row.short else f"{row.steps}"
