"""The charts over all problems; see `form` for what they are made of."""

from typing import Any

import numpy as np
import pandas as pd

from optzoo.compare.plan.baselines import REFERENCE
from optzoo.compare.plan.tuners import GRID
from optzoo.compare.read.tables import FACTORS, Tables
from optzoo.compare.read.verdict import aligned
from optzoo.compare.show.figures.form import HEIGHT, LETTER, LINE, LIT, named_rows, plain


def ranking_chart(results: Tables) -> dict[str, Any]:
    """Mean ranks, where they lie in nine of ten resamples of the seeds, and letters for ties."""
    ranking = results.ranking
    data = []
    for height, row in zip(_heights(ranking), ranking.itertuples(), strict=True):
        hover = (
            f"{row.optimizer}: mean rank {row.rank:.1f} ({row.rank_low:.1f} to "
            f"{row.rank_high:.1f})<extra></extra>"
        )
        span = {"x": [row.rank_low, row.rank_high], "y": [height, height], "mode": "lines"}
        dot = {"x": [row.rank], "y": [height], "mode": "markers"}
        data.append(span | {"line": {"color": "$own", "width": 4}, "opacity": 0.45})
        data.append(dot | {"marker": {"color": "$own", "size": 9}})
        for trace in data[-2:]:
            trace |= {"meta": row.optimizer, "hovertemplate": hover}
    axis = {"title": {"text": "mean rank (1 is best)"}, "range": [0.5, len(ranking) + 0.5]}
    figure = named_rows(ranking["optimizer"].tolist(), data, axis)
    shown = aligned(ranking["ties"])
    figure["layout"]["margin"]["r"] = 12 + LETTER * max(map(len, shown))
    figure["layout"]["annotations"] = [
        {
            "xref": "paper",
            "x": 1,
            "y": height,
            # Spaces that no renderer drops keep the letters in their columns.
            "text": ties.replace(" ", "\xa0"),
            "font": {"color": "$ink", "size": 12, "family": "monospace"},
            "xanchor": "left",
            "xshift": 4,
            "showarrow": False,
        }
        for height, ties in zip(_heights(ranking), shown, strict=True)
    ]
    return figure


def speed_chart(results: Tables) -> dict[str, Any]:
    """Gradients to the target against the reference's: a dot a problem, a bar at the mean."""
    speeds = results.against_reference("gradients_to_target")
    names = [name for name in results.ranking["optimizer"] if speeds[name].notna().any()]
    data: list[dict[str, Any]] = []
    for height, name in zip(range(len(names), 0, -1), names, strict=True):
        known = speeds[name].replace([0.0, np.inf], np.nan).dropna()
        if known.empty:
            continue
        mean = float(np.exp(np.log(known).mean()))
        data.append(
            {
                "x": plain(known.to_numpy()),
                "y": [height] * len(known),
                "mode": "markers",
                "meta": name,
                "marker": {"color": "$own", "size": 8},
                "opacity": 0.6,
                "text": known.index.tolist(),
                "hovertemplate": f"{name} on %{{text}}: %{{x:.2g}} times<extra></extra>",
            }
        )
        data.append(
            {
                "x": [mean, mean],
                "y": [height - 0.35, height + 0.35],
                "mode": "lines",
                "meta": name,
                "line": {"color": "$own", "width": 4},
                "hovertemplate": f"{name}: {mean:.2g} times on average<extra></extra>",
            }
        )
    values = [x for trace in data for x in trace["x"]] or [1.0]
    low, high = min(0.5, *values), max(2.0, *values)
    axis = {
        "title": {"text": f"speed against {REFERENCE}"},
        "type": "log",
        "range": [float(np.log10(low)) - 0.05, float(np.log10(high)) + 0.05],
        **_factors(low, high),
    }
    return named_rows(names, data, axis)


def profile_chart(results: Tables) -> dict[str, Any]:
    """Share of problems and seeds solved within a multiple of the fewest gradients spent."""
    axis = {
        "title": {"text": "gradients over the fastest's"},
        "type": "log",
        "range": [0, float(np.log10(FACTORS[-1]))],
        **_factors(1, FACTORS[-1]),
    }
    return _lines(results.profiles, axis, "share solved", "hv")


def budget_chart(results: Tables) -> dict[str, Any]:
    """Expected share of the possible progress after so many trials."""
    budgets = results.budgets
    axis = {
        "title": {"text": "learning rates tried" if results.tuner == GRID else "trials"},
        "range": [1, max(2, len(budgets))],
        "dtick": max(1, len(budgets) // 8),
    }
    return _lines(budgets, axis, "share of the progress", "linear")


def _lines(table: pd.DataFrame, xaxis: dict[str, Any], title: str, shape: str) -> dict[str, Any]:
    """A line a column on an axis from 0 to 1."""
    return {
        "data": [
            {
                "x": table.index.tolist(),
                "y": plain(table[name].to_numpy()),
                "mode": "lines",
                "meta": name,
                "hovertemplate": f"{name}: %{{y:.0%}} at %{{x:.3g}}<extra></extra>",
                **LINE,
                "line": LINE["line"] | {"shape": shape},
            }
            for name in table
        ],
        "lit": LIT | {"line": LIT["line"] | {"shape": shape}},
        "ends": {name: float(table[name].iloc[-1]) for name in table},
        "layout": {
            "height": HEIGHT,
            "margin": {"l": 52, "r": 8, "t": 8, "b": 44},
            "showlegend": False,
            "hovermode": "closest",
            "xaxis": xaxis,
            "yaxis": {"range": [0.0, 1.03], "tickformat": ".0%", "title": {"text": title}},
        },
    }


def _heights(rows: pd.DataFrame) -> range:
    return range(len(rows), 0, -1)


def _factors(low: float, high: float) -> dict[str, Any]:
    """Ticks of a logarithmic axis of multiples."""
    values = [2.0**power for power in range(-10, 11)]
    if high / low > 2**7:
        values = [10.0**power for power in range(-10, 11)]
    values = [value for value in values if low * 0.99 <= value <= high * 1.01]
    return {"tickvals": values, "ticktext": [f"×{value:g}" for value in values]}
