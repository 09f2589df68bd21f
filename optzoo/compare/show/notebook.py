"""Results that draw themselves in a notebook."""

import json
from typing import Any

from optzoo.compare.read.tables import Tables
from optzoo.compare.show.figures.charts import CHARTS
from optzoo.compare.show.figures.form import THEME


class Results(Tables):
    """What a comparison found: `Tables`, and the report's charts as Plotly figures."""

    def plot_ranking(self) -> Any:
        """Mean ranks with their uncertainty, as a Plotly figure."""
        return self._plot("ranking")

    def plot_speed(self) -> Any:
        """Steps to the targets against the reference AdamW's, as a Plotly figure."""
        return self._plot("speed")

    def plot_profile(self) -> Any:
        """Performance profiles, as a Plotly figure."""
        return self._plot("profile")

    def plot_budget(self) -> Any:
        """What to expect of so many trials of learning rates, as a Plotly figure."""
        return self._plot("budget")

    def plot_losses(self, problem: str) -> Any:
        """Loss curves on one problem, as a Plotly figure."""
        return self._plot("losses", problem)

    def plot_rates(self, problem: str) -> Any:
        """Final loss for every learning rate on one problem, as a Plotly figure."""
        return self._plot("rates", problem)

    def plot_until(self, problem: str) -> Any:
        """Steps to the loss that `until` asked for on one problem, as a Plotly figure."""
        return self._plot("until", problem)

    def _plot(self, name: str, *arguments: str) -> Any:
        """A chart in light colours."""
        from plotly.graph_objects import Figure

        figure = CHARTS[name].draw(self, *arguments)
        layout = figure["layout"] | {"template": "plotly_white"}
        text = json.dumps({"data": figure["data"], "layout": layout})
        for colour, value in THEME.items():
            text = text.replace(f'"{colour}"', f'"{value}"')
        return Figure(json.loads(text))
