"""The charts of one problem: losses against gradients and against learning rates."""

from typing import Any

import numpy as np

from optzoo.compare.plan.contestants import paced
from optzoo.compare.read.tables import Tables
from optzoo.compare.show.figures.form import HEIGHT, colours, end_labels, label_room, plain

FLOOR = 1e-9


def loss_curves(results: Tables, problem: str, *, clock: bool = False) -> dict[str, Any]:
    """Validation loss against the gradients spent, everybody at its own best learning rate.

    With `clock`, against the seconds that the steps take. The best-ranked optimizers are coloured
    and named at the end of their lines, with a band that spans the seeds; the others are grey, and
    tell their names under the pointer.
    """
    spent = results.about["problems"][problem]["checkpoints"]
    table = results.table[results.table["problem"] == problem].set_index("optimizer")
    lines: dict[str, np.ndarray] = {}
    for name, rate in table["learning_rate"].items():
        runs = results.grids[problem, name].runs
        lines[name] = np.asarray([r.curves["loss"] for r in runs if r.rate == rate], float)
    losses = np.concatenate(list(lines.values()))
    traces = []
    for name, curves in lines.items():
        title = f"{name}, learning rate {table['learning_rate'][name]:.3g}"
        tried = results.grids[problem, name]
        pace = tried.step_seconds if clock else 1
        x = [
            float(f"{count * pace:.4g}")
            for count in (paced(spent, tried.gradients) if clock else spent)
        ]
        if np.isfinite(pace):
            traces.append((name, title, x, np.median(curves, axis=0), curves))
    unit = "seconds of training a run, runs side by side" if clock else "gradients"
    longest = max((x[-1] for _, _, x, _, _ in traces), default=1)
    axis = {"title": {"text": unit}, "range": [0, longest]}
    start = float(np.nanmax(losses[:, 0]))
    figure, ends = _figure(results, problem, traces, axis, losses, start)
    figure["layout"]["annotations"] = end_labels(ends, figure["layout"]["yaxis"]["range"])
    figure["layout"]["margin"]["r"] = label_room(ends)
    return figure


def rate_curves(results: Tables, problem: str) -> dict[str, Any]:
    """Final validation loss against the learning rate, in multiples of each rule's own default.

    Coloured as in `loss_curves`; a dot marks the best rate of a coloured line.
    """
    relative = results.about["grid"]["relative"]
    column = "multiple" if relative else "learning_rate"
    frame = results.frame[results.frame["problem"] == problem]
    traces = []
    for name, group in frame.groupby("optimizer", sort=False):
        runs = group.pivot(index="seed", columns=column, values="validation_loss")
        values = runs.to_numpy()
        traces.append((name, name, runs.columns.tolist(), np.median(values, axis=0), values))
    rates = frame[column]
    low, high = np.log10(rates.min()), np.log10(rates.max())
    powers = range(int(np.ceil(low)), int(np.floor(high)) + 1)
    axis = {
        "title": {"text": "learning rate" + (" as a multiple of the default" if relative else "")},
        "type": "log",
        "range": [low - 0.1, high + 0.1],
        "tickvals": [10.0**power for power in powers[:: 1 + len(powers) // 7]],
        "tickprefix": "×" if relative else "",
    }
    losses = frame["validation_loss"].to_numpy()
    start = float(frame["initial_loss"].max())
    figure, _ = _figure(results, problem, traces, axis, losses, start)
    for line in figure["data"]:
        if "fill" not in line and line["line"]["color"] != "$muted":
            best = min((y for y in line["y"] if y is not None), default=None)
            sizes = [9 if y == best else 0 for y in line["y"]]
            line |= {"mode": "lines+markers", "marker": {"size": sizes, "opacity": 1}}
    return figure


def _figure(
    results: Tables,
    problem: str,
    traces: list[tuple[str, str, list, np.ndarray, np.ndarray]],
    xaxis: dict[str, Any],
    losses: np.ndarray,
    start: float,
) -> tuple[dict[str, Any], list[tuple[float, str, str]]]:
    """Lines (name, hover title, x, y, y of every seed) on one loss axis.

    Returns the figure, and where the coloured lines end: height on the axis, name, colour.
    """
    palette = colours(results)
    palette.setdefault(results.best()[problem], "$ink")
    finite = losses[np.isfinite(losses)]
    bottom = float(finite.min()) if finite.size else 0.0
    logarithmic = bottom >= 0 and start > 20 * bottom
    if logarithmic:
        low, high = np.log10(max(bottom, FLOOR)), np.log10(start)
    else:
        low, high = bottom, start
    span = max(high - low, 1e-6)
    low, high = low - 0.04 * span, high + 0.08 * span
    # The coloured lines come last, so that they lie on top.
    traces = sorted(traces, key=lambda trace: trace[0] in palette)
    drawn: list[dict[str, Any]] = []
    ends = []
    for name, title, x, y, every in traces:
        colour = palette.get(name)
        if colour and len(every) > 1:
            drawn.append(_band(x, every, colour))
        drawn.append(
            {
                "x": x,
                "y": plain(np.maximum(y, FLOOR) if logarithmic else y),
                "mode": "lines",
                "name": name,
                "line": {"color": colour or "$muted", "width": 2.25 if colour else 1},
                "opacity": 1 if colour else 0.55,
                "hovertemplate": f"{title}<br>loss %{{y:.4g}} at %{{x}}<extra></extra>",
            }
        )
        seen = np.flatnonzero(np.isfinite(y))
        if colour and seen.size:
            last = y[seen[-1]]
            height = np.log10(max(last, FLOOR)) if logarithmic else last
            ends.append((float(np.clip(height, low, high)), name, colour))
    figure = {
        "data": drawn,
        "layout": {
            "height": HEIGHT,
            "margin": {"l": 44, "r": 8, "t": 8, "b": 44},
            "showlegend": False,
            "hovermode": "closest",
            "xaxis": xaxis,
            "yaxis": {
                "type": "log" if logarithmic else "linear",
                "range": [low, high],
                **(_decades(low, high) if logarithmic else {"nticks": 7}),
            },
        },
    }
    return figure, ends


def _band(x: list, every: np.ndarray, colour: str) -> dict[str, Any]:
    """The span of all seeds as a shaded outline."""
    inside = np.isfinite(every).all(axis=0)
    low, high = (np.maximum(f(every[:, inside], axis=0), FLOOR) for f in (np.min, np.max))
    steps = np.asarray(x)[inside]
    return {
        "x": np.concatenate([steps, steps[::-1]]).tolist(),
        "y": plain(np.concatenate([high, low[::-1]])),
        "mode": "lines",
        "fill": "toself",
        "line": {"width": 0, "color": colour},
        "fillcolor": colour,
        "opacity": 0.1,
        "hoverinfo": "skip",
    }


def _decades(low: float, high: float) -> dict[str, Any]:
    """Ticks of a logarithmic axis: powers of ten, with 2 and 5 between where there are few."""
    powers = range(int(np.ceil(low)), int(np.floor(high)) + 1)
    if len(powers) > 3:
        powers = powers[:: 1 + len(powers) // 7]
        return {
            "tickvals": [10.0**power for power in powers],
            "ticktext": [f"{10.0**p:g}" if -3 < p < 4 else f"10<sup>{p}</sup>" for p in powers],
        }
    every = range(int(np.floor(low)), int(np.ceil(high)))
    values = [digit * 10.0**power for power in every for digit in (1, 2, 5)]
    return {"tickvals": values, "ticktext": [f"{value:g}" for value in values]}
