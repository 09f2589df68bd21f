"""The paths that optimizers take over a landscape, drawn step by step."""

from typing import Any

import numpy as np

from optzoo.compare.read.tables import Tables
from optzoo.compare.show.figures.form import HEIGHT, labels
from optzoo.compare.work.relief import RESOLUTION


def path_chart(results: Tables, problem: str) -> dict[str, Any] | None:
    """Where optimizers went on a landscape, at their best learning rates, seed 0.

    `frames` counts the checkpoints, so that the page can draw the paths up to any of them. None
    where the problem is no landscape.
    """
    details = results.about["problems"][problem]
    if details["relief"] is None:
        return None
    left, right, bottom, top = details["box"]
    table = results.table[results.table["problem"] == problem].set_index("optimizer")
    data: list[dict[str, Any]] = [
        {
            "type": "contour",
            "x": np.linspace(left, right, RESOLUTION).round(4).tolist(),
            "y": np.linspace(bottom, top, RESOLUTION).round(4).tolist(),
            "z": details["relief"],
            "ncontours": 18,
            "showscale": False,
            "hoverinfo": "skip",
            "opacity": 0.55,
            "line": {"width": 0.5},
            "colorscale": [[0, "$accent"], [1, "$page"]],
        }
    ]
    short = labels(table.index)
    for name, rate in table["learning_rate"].items():
        run = next(run for run in results.grids[problem, name].runs if run.rate == rate)
        x, y = (np.asarray(run.curves[axis], float) for axis in "xy")
        inside = np.isfinite(x) & np.isfinite(y)
        data.append(
            {
                "x": [float(f"{v:.4g}") if ok else None for v, ok in zip(x, inside, strict=True)],
                "y": [float(f"{v:.4g}") if ok else None for v, ok in zip(y, inside, strict=True)],
                "mode": "lines+markers",
                "name": short[name],
                "meta": name,
                "only": True,
                "line": {"color": "$own", "width": 2},
                "marker": {"color": "$own", "size": 4},
                "hovertemplate": f"{name}, learning rate {rate:.3g}<extra></extra>",
            }
        )
    return {
        "data": data,
        "frames": details["checkpoints"],
        "layout": {
            "height": HEIGHT + 60,
            "margin": {"l": 44, "r": 8, "t": 8, "b": 64},
            "showlegend": True,
            "legend": {"orientation": "h", "y": -0.12},
            "hovermode": "closest",
            "xaxis": {"range": [left, right]},
            "yaxis": {"range": [bottom, top]},
        },
    }
