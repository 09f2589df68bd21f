"""The outcome in plain words."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from optzoo.compare.plan.baselines import REFERENCE
from optzoo.compare.plan.tuners import GRID
from optzoo.compare.read import steps
from optzoo.compare.read.metrics import LETTERS
from optzoo.compare.read.tables import Tables

# With more problems than this their sentences become one.
FEW = 6
# Where there are more letters than this, columns of their own take too much room.
MANY_LETTERS = 12


def verdict(results: Tables) -> list[str]:
    """A few sentences, the most important first."""
    ranking = results.ranking.set_index("optimizer")
    count = results.about["seeds"]
    problems = results.problems
    asked = dict.fromkeys(problem for problem, _ in results.answers)
    reached = [steps.sentence(results, problem) for problem in problems if problem in asked]
    if len(ranking) == 1:
        return [_single(results), *reached]
    many = len(problems) > 1
    over = f"over {len(problems)} problems" if many else f"on {problems[0]}"
    what = "learning rates" if results.tuner == GRID else "settings"
    sentences = [f"With {what} tuned, {_places(ranking)}, {over}.", *reached]
    if ranking["rank_untuned"].notna().all():
        sentences.append(f"At default learning rates, {_winners(ranking['rank_untuned'])}.")
    speed = ranking["speed"].drop(REFERENCE, errors="ignore").dropna()
    if len(speed) and speed.max() > 1:
        sentences.append(
            f"Fastest to the targets that both reach: {speed.idxmax()}, which takes "
            f"{speed.max():.2g} times fewer gradients than {REFERENCE} on average."
        )
    if len(problems) > FEW:
        sentences.append(_counted(results))
    elif many:
        sentences += [_problem_sentence(results, problem) for problem in problems]
    usable = ranking["usable"]
    sentences.append(
        f"Easiest to tune: {_names(usable.nlargest(3).index.tolist())}. Their good {what} "
        f"span the widest range: on average {usable.max():.1f} of those tried come within a tenth "
        f"of the best one's progress."
    )
    diverged = results.frame["diverged"]
    if diverged.any():
        worst = ranking["diverged"].idxmax()
        sentences.append(
            f"{int(diverged.sum())} of {len(diverged)} runs ended worse than they started or at no "
            f"finite loss; most often {worst} ({ranking['diverged'][worst]:.0%} of its runs)."
        )
    edges = results.table[results.table["edge"]]
    if len(edges):
        pairs = _names([f"{row.optimizer} on {row.problem}" for row in edges.itertuples()][:6])
        more = f" and {len(edges) - 6} more" if len(edges) > 6 else ""
        sentences.append(f"The best learning rate was the outermost one tried for {pairs}{more}.")
    missing = len(results.about["optimizers"]) * len(results.about["problems"]) - len(results.grids)
    if missing:
        sentences.append(
            f"{missing} pairs of optimizer and problem are missing: the comparison was stopped, or "
            "they failed."
        )
    if count < 3:
        sentences.append(f"With {count} seed{'s' * (count > 1)}, chance decides close ranks.")
    return sentences


def aligned(ties: Iterable[str]) -> list[str]:
    """The letters of `Results.ranking`, each in a column of its own where they are few enough."""
    every = sorted(set().union(*ties), key=LETTERS.index)
    if len(every) > MANY_LETTERS:
        return list(ties)
    return ["".join(one if one in shared else " " for one in every) for shared in ties]


def _single(results: Tables) -> str:
    rows = [
        f"{row.test_loss:.3g} on {row.problem} (learning rate {row.learning_rate:.3g})"
        for row in results.table.itertuples()
    ]
    return f"{results.table['optimizer'].iloc[0]} reaches a test loss of {_names(rows)}."


def _places(ranking: pd.DataFrame) -> str:
    """Who is first, and who cannot be told from them by so few seeds."""
    first = ranking.index[0]
    letters = set(ranking["ties"].iloc[0])
    tied = [name for name, ties in ranking["ties"].drop(first).items() if letters & set(ties)]
    lead = f"{first} ranks best with a mean rank of {ranking['rank'].iloc[0]:.1f}"
    if not tied:
        second = ranking.index[1]
        return f"{lead}, clearly ahead of {second} with {ranking['rank'].iloc[1]:.1f}"
    more = f" and {len(tied) - 3} more" if len(tied) > 3 else ""
    names = ", ".join(tied[:3]) + more if more else _names(tied)
    return f"{lead}, but the seeds do not tell it from {names}"


def _winners(ranks) -> str:
    """Who has the lowest mean rank, and who comes next."""
    ordered = ranks.sort_values()
    first = ordered.index[np.isclose(ordered, ordered.iloc[0])].tolist()
    rest = ordered.drop(first).head(2)
    behind = _names([f"{name} {rank:.1f}" for name, rank in rest.items()])
    verb = "rank best with a mean rank" if len(first) > 1 else "ranks best with a mean rank"
    tail = f", then {behind}" if behind else ""
    return f"{_names(first)} {verb} of {ordered.iloc[0]:.1f}{tail}"


def _counted(results: Tables) -> str:
    """Who is ahead on how many problems."""
    counts = pd.Series(results.best()).value_counts()
    shares = _names([f"{name} on {count}" for name, count in counts.head(5).items()])
    return f"Ahead on most problems, if not always clearly: {shares} of {counts.sum()}."


def _problem_sentence(results: Tables, problem: str) -> str:
    rows = results.table[results.table["problem"] == problem]
    first = results.best()[problem]
    row = rows.set_index("optimizer").loc[first]
    tied = rows[(rows["rank"] == 1) & (rows["optimizer"] != first)]
    tie = ""
    if len(tied):
        names = tied.sort_values("test_loss")["optimizer"].tolist()
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        tie = f"; not clearly better than {_names(names[:3]) if not more else ', '.join(names[:3])}"
        tie += more
    return f"On {problem}, {first} is ahead (test loss {row['test_loss']:.3g}{tie})."


def _names(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
