"""The results of a comparison as tables."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from optzoo.compare.errors import UserError
from optzoo.compare.keep.store import STORE_NAME, Run, Store
from optzoo.compare.plan.baselines import REFERENCE
from optzoo.compare.plan.contestants import paced
from optzoo.compare.read import metrics

PAIR = ["problem", "optimizer"]
# An optimizer is behind another one if it is in this share of the resamples.
CLEAR = 0.95
FACTORS = np.geomspace(1, 32, 41)


@dataclass(frozen=True)
class Tried:
    """What was tried of one optimizer on one problem.

    Attributes:
      program: the fingerprint of what ran.
      runs: its runs.
      default_rate: the rule's own default learning rate.
      state_ratio: bytes of optimizer state per byte of parameters.
      gradients: how many gradients a step costs.
      step_seconds: seconds of one step of one run; NaN where it was not measured.
    """

    program: str
    runs: list[Run]
    default_rate: float
    state_ratio: float
    gradients: int
    step_seconds: float


@dataclass(frozen=True)
class Tables:
    """What a comparison found, in numbers; `optzoo.compare.Results` also draws it.

    Attributes:
      about: the protocol: problems, grid, schedules, seeds, versions, device, command, date.
      grids: (problem, optimizer) -> what was tried.
    """

    about: dict[str, Any]
    grids: dict[tuple[str, str], Tried]

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Reads the output folder of a comparison, finished or not.

        Raises:
          UserError: if it holds no results, or they are damaged or of another version.
        """
        path = Path(folder) / STORE_NAME
        if not path.is_file():
            raise UserError(f"{folder} holds no results of `optzoo compare`")
        with Store(path) as store:
            return cls.of(store)

    @classmethod
    def of(cls, store: Store) -> Self:
        """What a store holds of its comparison.

        Raises:
          UserError: if that is nothing.
        """
        about, chosen = store.comparison()
        seeds = range(about["seeds"])
        grids = {
            (grid.problem, grid.optimizer): Tried(
                grid.program,
                store.find(grid.program, grid.rates, seeds),
                grid.default_rate,
                grid.state_ratio,
                grid.gradients,
                store.cost(grid.program),
            )
            for grid in chosen
        }
        return cls(about, grids)

    @property
    def problems(self) -> list[str]:
        """The problems with results; all of them, unless the comparison was stopped."""
        present = {problem for problem, _ in self.grids}
        return [name for name in self.about["problems"] if name in present]

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row a run: its problem, optimizer, learning rate and seed, and what it was worth.

        `multiple` is the learning rate over the rule's own default; `gradients` are the forward and
        backward passes spent, which are the same for all, and `steps` what they paid for;
        `gradients_to_target` those up to the target; `validation_*` come from the
        validation split, `test_*` from the test split, both after the last step; `seconds` is
        what the steps alone take on the machine that ran them, with the other runs beside it. See
        `metrics.run_metrics` for the others.
        """
        rows = []
        for (problem, optimizer), tried in self.grids.items():
            details = self.about["problems"][problem]
            marks = paced(details["checkpoints"], tried.gradients)
            steps = int(marks[-1])
            for run in tried.runs:
                row: dict[str, Any] = {
                    "problem": problem,
                    "optimizer": optimizer,
                    "learning_rate": run.rate,
                    "multiple": float(f"{run.rate / tried.default_rate:.3g}"),
                    "seed": run.seed,
                    "steps": steps,
                    "gradients": steps * tried.gradients,
                    "initial_loss": run.curves["loss"][0],
                }
                losses = run.curves["loss"]
                row |= metrics.run_metrics(losses, marks, details["target"])
                row["gradients_to_target"] = row["steps_to_target"] * tried.gradients
                row |= {f"validation_{k}": curve[-1] for k, curve in run.curves.items()}
                row |= {f"test_{k}": value for k, value in run.final.items()}
                rows.append(row | {"seconds": steps * tried.step_seconds})
        return pd.DataFrame(rows)

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row a problem and optimizer, at the learning rate with the best validation loss.

        Beside that rate: mean and spread of the test loss over the seeds; `rank` among the
        optimizers on this problem, `rank_untuned` the same at everybody's own default rate; `edge`
        where the best rate is the outermost one tried; `usable` of `tried` rates came within a
        tenth of the best one's progress; `solved`, the share of seeds that reached the target, and
        `steps_to_target` and `gradients_to_target`, their median if all did; `gradients`, what a
        run spends in its `steps`; `step_seconds` and `state_ratio`, what a step and its state cost;
        `diverged`, the share of all its runs.
        """
        rows = [self._row(key, group) for key, group in self.frame.groupby(PAIR, sort=False)]
        table = pd.DataFrame(rows)
        for column, samples in (("rank", "tests"), ("rank_untuned", "tests_untuned")):
            table[column] = np.nan
            for _, group in table.groupby("problem"):
                scores = group.set_index("optimizer")[samples].dropna()
                placed = metrics.ranks(scores.to_dict())
                table.loc[group.index, column] = group["optimizer"].map(placed)
        return table.drop(columns=["tests", "tests_untuned"])

    def _row(self, key: tuple[str, str], group: pd.DataFrame) -> dict[str, Any]:
        means = group.groupby("learning_rate")["validation_loss"]
        means = means.agg(lambda losses: losses.mean(skipna=False))
        means = means.where(np.isfinite(means), np.inf)
        rate = means.idxmin()
        at_best = group[group["learning_rate"] == rate]
        untuned = group[group["multiple"] == 1]
        outermost = len(means) > 1 and rate in (means.index[0], means.index[-1])
        tried = self.grids[key]
        row = dict(zip(PAIR, key, strict=True)) | {
            "learning_rate": rate,
            "multiple": at_best["multiple"].iloc[0],
            "edge": outermost,
            "test_spread": at_best["test_loss"].std() if len(at_best) > 1 else 0.0,
            "solved": at_best["steps_to_target"].notna().mean(),
            "steps": at_best["steps"].iloc[0],
            "gradients": at_best["gradients"].iloc[0],
            **{
                column: at_best[column].median(skipna=False)
                for column in ("steps_to_target", "gradients_to_target")
            },
            "step_seconds": tried.step_seconds,
            "state_ratio": tried.state_ratio,
            "usable": metrics.usable(group["initial_loss"].mean(), means),
            "tried": len(means),
            "diverged": group["diverged"].mean(),
            "tests": at_best["test_loss"].to_numpy(),
            "tests_untuned": untuned["test_loss"].to_numpy() if len(untuned) else None,
        }
        scores = [c for c in group if c.startswith(("test_", "validation_"))]
        return row | {column: at_best[column].mean() for column in scores}

    @cached_property
    def ranking(self) -> pd.DataFrame:
        """One row an optimizer, in the order of their mean ranks.

        `rank` is its rank averaged over the problems and over resamples of the seeds, `rank_low`
        and `rank_high` bound it in nine of ten resamples. Of two optimizers that share a letter of
        `ties`, neither is ahead in 95 % of the resamples; `place` is one more than the number of
        those that are so far ahead. `rank_untuned` is the same as `rank` at default learning
        rates; `solved` the share of seeds and problems that reached the target; `speed` how many
        times fewer gradients that took than the reference AdamW needed, as a geometric mean over
        the problems that both solved; `step_gradients` how many a step costs, on average over the
        problems.
        """
        table = self.table
        resampled = metrics.bootstrap([self._losses(problem) for problem in self.problems])
        ranks = pd.DataFrame(resampled)
        grouped = table.groupby("optimizer")
        columns = {name: (name, "mean") for name in ("solved", "usable", "diverged", "state_ratio")}
        ranking = grouped.agg(**columns, edge=("edge", "sum"))
        each = (table["gradients"] / table["steps"]).groupby(table["optimizer"])
        ranking["step_gradients"] = each.mean()
        ranking["rank"] = ranks.mean()
        ranking["rank_low"], ranking["rank_high"] = ranks.quantile(0.05), ranks.quantile(0.95)
        ranking["rank_untuned"] = self._ranks_untuned()
        for column, unit in (("speed", "gradients_to_target"), ("step_cost", "step_seconds")):
            ranking[column] = np.exp(np.log(self.against_reference(unit)).mean())
        ranking["step_cost"] = 1 / ranking["step_cost"]
        ranking = ranking.sort_values(["rank", "rank_untuned"])
        values = ranks[ranking.index].to_numpy()
        ahead = (values[:, :, None] < values[:, None, :]).mean(axis=0) >= CLEAR
        # Resamples of a single seed are all the same, and tell nothing apart.
        ahead &= self.about["seeds"] > 1
        ranking["place"] = 1 + ahead.sum(axis=0)
        ranking["ties"] = metrics.letters(ahead | ahead.T)
        return ranking.reset_index()

    @cached_property
    def _by_seed(self) -> pd.DataFrame:
        """Losses: a row for each problem, optimizer and learning rate, a column for each seed."""
        index, values = [*PAIR, "learning_rate", "multiple"], ["validation_loss", "test_loss"]
        return self.frame.pivot(index=index, columns="seed", values=values)

    def _losses(
        self, problem: str, *, untuned: bool = False
    ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """optimizer -> validation and test losses on a problem, shape (rates, seeds)."""
        rows = self._by_seed.loc[problem]
        if untuned:
            rows = rows[rows.index.get_level_values("multiple") == 1]
        validation, test = (rows[split].to_numpy() for split in ("validation_loss", "test_loss"))
        places = rows.groupby("optimizer").indices
        return {name: (validation[at], test[at]) for name, at in places.items()}

    def _ranks_untuned(self) -> pd.Series:
        problems = [losses for p in self.problems if (losses := self._losses(p, untuned=True))]
        return pd.DataFrame(metrics.bootstrap(problems)).mean()

    def against_reference(self, column: str) -> pd.DataFrame:
        """The reference's value of a column of `table` over everybody's: problems x optimizers.

        NaN where either is missing; all NaN where the reference took no part.
        """
        values = self.table.pivot(index="problem", columns="optimizer", values=column)
        reference = values[REFERENCE] if REFERENCE in values else np.nan
        return (1 / values).mul(reference, axis=0).reindex(self.problems)

    @cached_property
    def profiles(self) -> pd.DataFrame:
        """Share of problems and seeds solved within a multiple of the fewest gradients (index)."""
        best = self.frame.merge(self.table[[*PAIR, "learning_rate"]], on=[*PAIR, "learning_rate"])
        spent = best.pivot(
            index=["problem", "seed"], columns="optimizer", values="gradients_to_target"
        )
        return pd.DataFrame(
            metrics.profile({name: spent[name] for name in spent}, FACTORS), FACTORS
        )

    @cached_property
    def budgets(self) -> pd.DataFrame:
        """Expected share of the possible progress after k trials of learning rates (the index)."""
        curves: dict[str, list[np.ndarray]] = {}
        for problem in self.problems:
            details, losses = self.about["problems"][problem], self._losses(problem)
            start = self.frame[self.frame["problem"] == problem]["initial_loss"].mean()
            finite = np.concatenate([test[np.isfinite(test)] for _, test in losses.values()])
            lowest = finite.min(initial=start)
            for name, (validation, test) in losses.items():
                made = metrics.progress(test, start, lowest, details["target"]).mean(axis=1)
                choice = np.where(np.isfinite(validation), validation, np.inf).mean(axis=1)
                curves.setdefault(name, []).append(metrics.expected_best(choice, made))
        longest = min(len(curve) for parts in curves.values() for curve in parts)
        means = {
            name: np.mean([part[:longest] for part in parts], axis=0)
            for name, parts in curves.items()
        }
        return pd.DataFrame(means, index=pd.RangeIndex(1, longest + 1, name="trials"))

    def best(self) -> dict[str, str]:
        """The best-ranked optimizer of every problem."""
        order = self.table.sort_values(["rank", "test_loss"]).groupby("problem")["optimizer"]
        return order.first().reindex(self.problems).to_dict()


def results(path: str | Path) -> pd.DataFrame:
    """The runs that an output folder of `optzoo compare` holds, one row each.

    `Results.load(path)` gives more: tables, rankings, plots.

    Raises:
      UserError: if it holds no results, or they are damaged or of another version.
    """
    return Tables.load(path).frame
