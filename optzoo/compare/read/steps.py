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
    cells = [_cells(results, question, row) for row in table.to_dict("records")]
    head = [name for name in cells[0] if any(row[name] for row in cells)]
    return [head, *([row[name] for name in head] for row in cells)]


def _cells(results: Tables, question: Until, row: dict[str, Any]) -> dict[str, str]:
    problem, name = row["problem"], row["optimizer"]
    costly = unit(results, problem) == "gradients"
    crossing = f"over {row['short']}" if row["short"] else "–"
    if row["outcome"] == "reached":
        crossing = f"{row['short']}–{row['steps']}"
    loss = f"{row['loss']:.4g} ({row['loss_low']:.4g}–{row['loss_high']:.4g})"
    return {
        "optimizer": name,
        "steps": _steps(row),
        "gradients": ("–" if pd.isna(row["gradients"]) else f"{row['gradients']}") * costly,
        f"crossing, {2 * question.confidence - 1:.0%}": crossing,
        "test loss": "–" if row["outcome"] == "diverged" else loss,
        "lr": f"{row['learning_rate']:.3g}",
        "trials": str(row["trials"]),
        "runs": "each length" if row["re_run"] else "one",
        "other settings": setting(results.answers[problem, name]["options"]),
    }


def unit(results: Tables, problem: str) -> str:
    """What rules are told apart by: "gradients" where a step of any costs more than one."""
    return "gradients" if max(results.step_cost(problem).values(), default=1) > 1 else "steps"


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
    counted, costs = unit(results, problem), results.step_cost(problem)
    told = []
    for row in reached.head(3).itertuples():
        cost = costs[row.optimizer]
        over = f" (over {row.short * cost})" if row.short else ""
        told.append(f"{row.optimizer} {row.steps * cost}{over}")
    others = len(table) - len(reached)
    missing = f"; {others} not shown to get there" if others else ""
    return f"{lead}, the fewest {counted}: {', '.join(told)}{missing}."
