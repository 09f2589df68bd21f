"""The results of a comparison as tables."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from optzoo.compare.errors import UserError
from optzoo.compare.keep.store import STORE_NAME, Run, Store
from optzoo.compare.plan.baselines import REFERENCE
from optzoo.compare.plan.contestants import paced
from optzoo.compare.plan.tuners import GRID, TPE, Trial
from optzoo.compare.plan.until import Until
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
      costs: device -> seconds of one step of one run there; NaN where they were too few.
      trials: the settings that the runs are of, in the order of the tuner.
    """

    program: str
    runs: list[Run]
    default_rate: float
    state_ratio: float
    gradients: int
    costs: dict[str, float]
    trials: list[Trial] = field(default_factory=list)


@dataclass(frozen=True)
class Tables:
    """What a comparison found, in numbers; `optzoo.compare.Results` also draws it.

    Attributes:
      about: the protocol: problems, grid, schedules, seeds, versions, device, command, date.
      grids: (problem, optimizer) -> what was tried.
      answers: (problem, optimizer) -> how many steps a loss took, where that was asked.
    """

    about: dict[str, Any]
    grids: dict[tuple[str, str], Tried]
    answers: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

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
                store.find(grid.program, grid.trials, seeds),
                grid.default_rate,
                grid.state_ratio,
                grid.gradients,
                store.costs(grid.program),
                grid.trials,
            )
            for grid in chosen
        }
        return cls(about, grids, store.answers())

    @property
    def problems(self) -> list[str]:
        """The problems with results; all of them, unless the comparison was stopped."""
        present = {problem for problem, _ in self.grids}
        return [name for name in self.about["problems"] if name in present]

    @property
    def tuner(self) -> str:
        """What chose the settings."""
        return self.about.get("tuner", GRID)

    @cached_property
    def tuned(self) -> list[str]:
        """The arguments that were tuned beside the learning rate, of any optimizer."""
        trials = chain.from_iterable(tried.trials for tried in self.grids.values())
        return list(dict.fromkeys(name for trial in trials for name, _ in trial.options))

    @cached_property
    def devices(self) -> list[str]:
        """What the runs were computed on, the most frequent first."""
        runs = (run for tried in self.grids.values() for run in tried.runs)
        return [device for device, _ in Counter(run.device for run in runs).most_common()]

    @cached_property
    def timed_on(self) -> str:
        """The device that most grids were timed on: times elsewhere are not comparable."""
        devices = Counter(device for tried in self.grids.values() for device in tried.costs)
        return devices.most_common(1)[0][0] if devices else ""

    def _step_seconds(self, key: tuple[str, str]) -> float:
        return self.grids[key].costs.get(self.timed_on, np.nan)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row a run: its problem, optimizer, learning rate and seed, and what it was worth.

        No two settings of an optimizer share a learning rate; what else was tuned has columns of
        its own. `multiple` is the learning rate over the rule's own default; `gradients` are the
        forward and backward passes spent, which are the same for all, and `steps` what they paid
        for; `gradients_to_target` those up to the target; `validation_*` come from the validation
        split, `test_*` from the test split, both after the last step; `seconds` is what the steps
        alone take on the machine that ran them, with the other runs beside it. See
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
                    **run.options,
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
                seconds = steps * self._step_seconds((problem, optimizer))
                rows.append(row | {"seconds": seconds, "device": run.device})
        return pd.DataFrame(rows)

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row a problem and optimizer, at the learning rate with the best validation loss.

        Beside that rate, and what else was tuned: mean and spread of the test loss over the seeds;
        `rank` among the optimizers on this problem, `rank_untuned` the same at everybody's own
        default rate; `edge` where the best rate is the outermost one of a grid; `usable` of `tried`
        settings came within a tenth of the best one's progress; `solved`, the share of seeds that
        reached the target, and `steps_to_target` and `gradients_to_target`, their median if all
        did; `gradients`, what a run spends in its `steps`; `step_seconds` and `state_ratio`, what a
        step and its state cost; `diverged`, the share of all its runs.
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
        ends = means.index[0], means.index[-1]
        outermost = self.tuner == GRID and len(means) > 1 and rate in ends
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
            "step_seconds": self._step_seconds(key),
            "state_ratio": self.grids[key].state_ratio,
            "usable": metrics.usable(group["initial_loss"].mean(), means),
            "tried": len(means),
            "diverged": group["diverged"].mean(),
            "tests": at_best["test_loss"].to_numpy(),
            "tests_untuned": untuned["test_loss"].to_numpy() if len(untuned) else None,
        }
        scores = [c for c in group if c.startswith(("test_", "validation_"))]
        row |= {name: at_best[name].iloc[0] for name in self.tuned}
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
        """Expected share of the possible progress after k trials (the index).

        Expected over all orders of the trials; but TPE's have an order, and each its reason, so
        that theirs is the share that they came to.
        """
        curves: dict[str, list[np.ndarray]] = {}
        for problem in self.problems:
            details, losses = self.about["problems"][problem], self._losses(problem)
            start = self.frame[self.frame["problem"] == problem]["initial_loss"].mean()
            finite = np.concatenate([test[np.isfinite(test)] for _, test in losses.values()])
            lowest = finite.min(initial=start)
            for name, (validation, test) in losses.items():
                made = metrics.progress(test, start, lowest, details["target"]).mean(axis=1)
                choice = np.where(np.isfinite(validation), validation, np.inf).mean(axis=1)
                if self.tuner.startswith(TPE):
                    rates = [trial.rate for trial in self.grids[problem, name].trials]
                    order = np.argsort(np.argsort(rates))
                    curve = metrics.best_so_far(choice[order], made[order])
                else:
                    curve = metrics.expected_best(choice, made)
                curves.setdefault(name, []).append(curve)
        longest = min(len(curve) for parts in curves.values() for curve in parts)
        means = {
            name: np.mean([part[:longest] for part in parts], axis=0)
            for name, parts in curves.items()
        }
        return pd.DataFrame(means, index=pd.RangeIndex(1, longest + 1, name="trials"))

    @property
    def question(self) -> Until | None:
        """What `until` asked; None where nobody did."""
        asked = self.about.get("until")
        return Until(**asked) if asked else None

    def step_cost(self, problem: str) -> dict[str, int]:
        """The gradients that a step of everybody costs on a problem."""
        return {
            name: one.gradients for (where, name), one in self.grids.items() if where == problem
        }

    @cached_property
    def until(self) -> pd.DataFrame:
        """One row a problem and optimizer: how many steps brought the mean test loss down enough.

        `steps`, a whole number or missing, is the smallest number of steps whose mean is shown to
        be below the target, and `gradients` what they cost; `short` is the largest that is shown to
        be too few (0 where none is). Between the two the mean crosses the target. `outcome` is
        "reached", "not reached" (shown to be at the target or above at `tested`), "not shown"
        (neither) or "diverged". `tested` is the length that the other columns are about, `steps` or
        the longest tried: `loss`, the mean there, and `loss_low` and `loss_high`, its one-sided
        bounds. Then the chosen `learning_rate`, the number of `trials` that it was chosen from, the
        test `seeds`, and `re_run`, whether every length had runs of its own. The fewest gradients
        first, then the lowest loss. `optzoo.compare.plan.until.Until` has the statistics.
        """
        question = self.question
        rows = []
        for key, found in self.answers.items() if question else ():
            assert question is not None
            losses = {int(n): np.asarray(values, float) for n, values in found["losses"].items()}
            tested = found["steps"] or max(losses)
            mean, low, high = question.mean(losses[tested])
            outcome = "reached" if found["steps"] else "not shown"
            if not np.isfinite(mean):
                outcome = "diverged"
            elif found["short"] == max(losses):
                outcome = "not reached"
            rows.append(
                dict(zip(PAIR, key, strict=True))
                | {name: found[name] for name in ("steps", "short", "learning_rate", "trials")}
                | {"gradients": found["steps"] and found["steps"] * self.grids[key].gradients}
                | {"outcome": outcome, "tested": tested, "loss": mean, "loss_low": low}
                | {"loss_high": high, "seeds": question.seeds, "re_run": found["re_run"]}
            )
        columns = [
            *PAIR,
            "steps",
            "gradients",
            "short",
            "outcome",
            "tested",
            "loss",
            "loss_low",
            "loss_high",
        ]
        columns += ["learning_rate", "trials", "seeds", "re_run"]
        table = pd.DataFrame(rows, columns=columns).astype({"steps": "Int64", "gradients": "Int64"})
        return table.sort_values(["problem", "gradients", "loss"], ignore_index=True)

    def best(self) -> dict[str, str]:
        """The best-ranked optimizer of every problem."""
        order = self.table.sort_values(["rank", "test_loss"]).groupby("problem")["optimizer"]
        return order.first().reindex(self.problems).to_dict()


def setting(options: Mapping[str, float]) -> str:
    """Tuned arguments in words, but for those that an optimizer does not have."""
    words = {name.replace("_", " "): value for name, value in options.items()}
    return ", ".join(f"{name} {value:.4g}" for name, value in words.items() if value == value)


def results(path: str | Path) -> pd.DataFrame:
    """The runs that an output folder of `optzoo compare` holds, one row each.

    `Results.load(path)` gives more: tables, rankings, plots.

    Raises:
      UserError: if it holds no results, or they are damaged or of another version.
    """
    return Tables.load(path).frame
