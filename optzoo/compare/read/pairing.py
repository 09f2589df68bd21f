"""Two comparisons side by side."""

from dataclasses import replace
from typing import TypeVar

from optzoo.compare.errors import UserError
from optzoo.compare.keep.merge import SAME
from optzoo.compare.read.metrics import ranks
from optzoo.compare.read.tables import Tables

Names = tuple[str, str]
T = TypeVar("T", bound=Tables)


def merged(first: T, second: T, names: Names) -> T:
    """Both comparisons as one, on the problems and seeds of both.

    An optimizer whose runs are the same in both takes part once; another one twice, with the name
    of its comparison attached.

    Raises:
      UserError: if a problem that both have differs between them.
    """
    problems = first.about["problems"] | second.about["problems"]
    for problem in first.about["problems"].keys() & second.about["problems"].keys():
        details = [results.about["problems"][problem] for results in (first, second)]
        for key in SAME:
            if details[0][key] != details[1][key]:
                raise UserError(
                    f"{' and '.join(names)} cannot be compared: {problem} has other {key} in each"
                )
    seeds = min(first.about["seeds"], second.about["seeds"])
    grids, answers = {}, {}
    same_question = first.about.get("until") == second.about.get("until")
    differing = {
        optimizer
        for (problem, optimizer), tried in first.grids.items()
        if (other := second.grids.get((problem, optimizer))) and other.program != tried.program
    }
    for results, name in zip((second, first), reversed(names), strict=True):
        for (problem, optimizer), tried in results.grids.items():
            label = f"{optimizer} ({name})" if optimizer in differing else optimizer
            runs = [run for run in tried.runs if run.seed < seeds]
            grids[problem, label] = replace(tried, runs=runs)
            if same_question and (problem, optimizer) in results.answers:
                answers[problem, label] = results.answers[problem, optimizer]
    about = first.about | {
        "problems": problems,
        "optimizers": sorted({optimizer for _, optimizer in grids}),
        "seeds": seeds,
        "command": f"{first.about['command']}; {second.about['command']}",
    }
    return replace(first, about=about, grids=grids, answers=answers)


def changes(first: Tables, second: Tables, names: Names) -> list[list[str]]:
    """What became of every optimizer on every problem that both have: rows of text, header first.

    "same" where the very same program ran, else whether the test loss is clearly lower or higher,
    as ranks on a problem are told apart.
    """
    tables = [
        results.frame.merge(results.table[["problem", "optimizer", "learning_rate"]])
        for results in (first, second)
    ]
    groups = [dict(list(table.groupby(["problem", "optimizer"]))) for table in tables]
    rows = [["problem", "optimizer", *(f"test loss, {name}" for name in names), names[1]]]
    for key in sorted(groups[0].keys() & groups[1].keys()):
        losses = [group[key]["test_loss"].to_numpy() for group in groups]
        placed = ranks({"first": losses[0], "second": losses[1]})
        outcome = "no clear difference"
        if first.grids[key].program == second.grids[key].program:
            outcome = "same"
        elif placed["first"] != placed["second"]:
            outcome = "better" if placed["second"] == 1 else "worse"
        rows.append([*key, *(f"{values.mean():.4g}" for values in losses), outcome])
    return rows
