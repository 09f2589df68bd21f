"""The results of a comparison as tables."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from optzoo.compare.errors import UserError
from optzoo.compare.metrics import ranks, run_metrics, usable
from optzoo.compare.store import STORE_NAME, Run, Store

PAIR = ["problem", "optimizer"]


@dataclass(frozen=True)
class Results:
    """What a comparison found.

    Attributes:
      about: the protocol: problems, grid, seeds, versions, device, command, date.
      runs: (problem, optimizer) -> its runs.
      defaults: (problem, optimizer) -> the rule's own default learning rate.
    """

    about: dict[str, Any]
    runs: dict[tuple[str, str], list[Run]]
    defaults: dict[tuple[str, str], float]

    @classmethod
    def load(cls, folder: str | Path) -> "Results":
        """Reads the output folder of a comparison, finished or not.

        Raises:
          UserError: if it holds no results, or they are damaged or newer than this optzoo.
        """
        path = Path(folder) / STORE_NAME
        if not path.is_file():
            raise UserError(f"{folder} holds no results of `optzoo compare`")
        with Store(path) as store:
            return cls.of(store)

    @classmethod
    def of(cls, store: Store) -> "Results":
        """What a store holds of its current comparison.

        Raises:
          UserError: if that is nothing.
        """
        about, runs, defaults = store.about(), {}, {}
        for grid in store.grids():
            key = grid.problem, grid.optimizer
            runs[key] = store.find(grid.program, grid.rates, range(about["seeds"]))
            defaults[key] = grid.default_rate
        if not runs:
            raise UserError("the comparison was stopped before its first result")
        return cls(about, runs, defaults)

    @property
    def problems(self) -> list[str]:
        """The problems with results; all of them, unless the comparison was stopped."""
        return [name for name in self.about["problems"] if any(name == key[0] for key in self.runs)]

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row a run: its problem, optimizer, learning rate and seed, and what it was worth.

        `multiple` is the learning rate over the rule's own default; `validation_*` come from the
        validation split, `test_*` from the test split, both after the last step; `seconds` is the
        run's share of its grid's wall-clock time. See `metrics.run_metrics` for the others.
        """
        rows = []
        for (problem, optimizer), runs in self.runs.items():
            details = self.about["problems"][problem]
            for run in runs:
                row = {
                    "problem": problem,
                    "optimizer": optimizer,
                    "learning_rate": run.rate,
                    "multiple": float(f"{run.rate / self.defaults[problem, optimizer]:.3g}"),
                    "seed": run.seed,
                    "steps": details["steps"],
                    "initial_loss": run.curves["loss"][0],
                }
                row |= run_metrics(run.curves["loss"], details["checkpoints"], details["target"])
                row |= {f"validation_{k}": curve[-1] for k, curve in run.curves.items()}
                row |= {f"test_{k}": value for k, value in run.final.items()}
                rows.append(row | {"seconds": run.seconds})
        return pd.DataFrame(rows)

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row a problem and optimizer, at the learning rate with the best validation loss.

        Beside that rate: mean and spread of the test loss over the seeds; `rank` among the
        optimizers on this problem, `rank_untuned` the same at everybody's own default rate; `edge`
        where the best rate is the outermost one tried; `usable` of `tried` rates came within a
        tenth of the best one's progress; `diverged`, the share of all its runs.
        """
        rows = [self._row(key, group) for key, group in self.frame.groupby(PAIR, sort=False)]
        table = pd.DataFrame(rows)
        for column, samples in (("rank", "tests"), ("rank_untuned", "tests_untuned")):
            table[column] = np.nan
            for _, group in table.groupby("problem"):
                scores = group.set_index("optimizer")[samples].dropna()
                placed = ranks(scores.to_dict())
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
        row = dict(zip(PAIR, key, strict=True)) | {
            "learning_rate": rate,
            "multiple": at_best["multiple"].iloc[0],
            "edge": outermost,
            "test_spread": at_best["test_loss"].std() if len(at_best) > 1 else 0.0,
            "steps_to_target": at_best["steps_to_target"].median(skipna=False),
            "usable": usable(group["initial_loss"].mean(), means),
            "tried": len(means),
            "diverged": group["diverged"].mean(),
            "tests": at_best["test_loss"].to_numpy(),
            "tests_untuned": untuned["test_loss"].to_numpy() if len(untuned) else None,
        }
        scores = [c for c in group if c.startswith(("test_", "validation_"))]
        return row | {column: at_best[column].mean() for column in scores}

    @cached_property
    def ranking(self) -> pd.DataFrame:
        """One row an optimizer, best first: its ranks averaged over the problems."""
        columns = {name: (name, "mean") for name in ("rank", "rank_untuned", "diverged")}
        grouped = self.table.groupby("optimizer")
        ranking = grouped.agg(**columns, usable=("usable", "mean"), edge=("edge", "sum"))
        return ranking.sort_values(["rank", "rank_untuned"]).reset_index()

    def best(self) -> dict[str, str]:
        """The best-ranked optimizer of every problem."""
        order = self.table.sort_values(["rank", "test_loss"])
        return order.groupby("problem")["optimizer"].first().to_dict()
