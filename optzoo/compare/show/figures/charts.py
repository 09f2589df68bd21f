"""Every chart that a report, a folder of pictures or a notebook can ask for: the one list."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from optzoo.compare.plan.baselines import REFERENCE
from optzoo.compare.read.tables import Tables
from optzoo.compare.show.figures.form import colours, painted
from optzoo.compare.show.figures.overall import (
    budget_chart,
    profile_chart,
    ranking_chart,
    speed_chart,
)
from optzoo.compare.show.figures.problem import loss_curves, rate_curves, until_rows


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
      figure: makes its figure from the results (and a problem, if it is one problem's), in which
        nobody is highlighted.
      title: a few words.
      caption: how to read it.
      applies: whether there is anything to draw, asked with what `figure` is given.
    """

    figure: Callable[..., dict[str, Any]]
    title: str
    caption: str
    applies: Callable[..., bool] = lambda *_: True

    def draw(self, results: Tables, *problem: str) -> dict[str, Any]:
        """The figure with the best-ranked optimizers highlighted."""
        return painted(self.figure(results, *problem), colours(results))


def _was_asked(results: Tables, problem: str) -> bool:
    return any(where == problem for where, _ in results.answers)


OVERALL = {
    "ranking": Chart(
        ranking_chart,
        "Mean rank over the problems, with 90 % of the resamples of the seeds",
        "Rank averaged over the problems. Dot: the mean over resamples of the seeds; bar: nine of "
        "ten of them. Those who share a letter cannot be told apart.",
    ),
    "speed": Chart(
        speed_chart,
        f"Gradients to the target against {REFERENCE}",
        f"How many times fewer gradients than {REFERENCE} to each problem's target, at everybody's "
        "best learning rate. A dot for each problem that both solve; bar: geometric mean.",
    ),
    "profile": Chart(
        profile_chart,
        "Share of problems and seeds solved within so many gradients",
        "Performance profile: the share of problems and seeds whose target is reached within a "
        "multiple of the gradients of whoever is fastest there. Higher is better.",
    ),
    "budget": Chart(
        budget_chart,
        "Expected progress after so many trials",
        "What tuning buys: the share of the possible progress to expect of the best of so many "
        "trials, drawn at random from those made (TPE's in their order). Flat and high is easy to "
        "tune.",
    ),
}
BY_PROBLEM = {
    "losses": Chart(
        loss_curves,
        "validation loss",
        "Loss during training, at everybody's best learning rate. Line: median of the seeds; band: "
        "all seeds; grey: those not highlighted.",
    ),
    "rates": Chart(
        rate_curves,
        "final loss by learning rate",
        "Final loss for every learning rate tried. The flatter the valley, the easier to tune; a "
        "dot marks the best, a line ends where runs diverge.",
    ),
    "until": Chart(
        until_rows,
        "steps to the loss asked for",
        "The fewest steps that are shown to bring the mean test loss below the one asked for, and "
        "a bar from the most that are shown to be too few. Without a dot: not shown to get there.",
        _was_asked,
    ),
}
CHARTS = OVERALL | BY_PROBLEM
