"""The charts of one problem: losses against gradients and against learning rates."""

from typing import Any

import numpy as np

from optzoo.compare.plan.tuners import GRID
from optzoo.compare.read import steps
from optzoo.compare.read.tables import Tables
from optzoo.compare.show.figures.form import HEIGHT, LINE, LIT, named_rows, plain

FLOOR = 1e-9


def loss_curves(results: Tables, problem: str) -> dict[str, Any]:
    """Validation loss against the gradients spent, everybody at its own best learning rate.

    Highlighted optimizers are named at the end of their lines, with a band that spans the seeds;
    the others are grey, and tell their names under the pointer.
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
        traces.append((name, title, spent, np.median(curves, axis=0), curves))
    axis = {"title": {"text": "gradients"}, "range": [0, spent[-1]]}
    start = float(np.nanmax(losses[:, 0]))
    figure = _figure(results, problem, traces, axis, losses, start)
    for trace in figure["data"]:
        name = trace["meta"]
        pace = table["step_seconds"][name] / results.grids[problem, name].gradients
        trace["pace"] = float(f"{pace:.4g}") if np.isfinite(pace) else None
    figure["clock"] = "seconds of training a run, runs side by side"
    figure["ends"] = _ends(figure)
    return figure


def rate_curves(results: Tables, problem: str) -> dict[str, Any]:
    """Final validation loss against the learning rate, in multiples of each rule's own default.

    Highlighted as in `loss_curves`, with a dot at the best rate. Where more than the rate was
    tuned, every trial is a dot, and no lines are drawn.
    """
    relative = results.about["grid"]["relative"]
    column = "multiple" if relative else "learning_rate"
    frame = results.frame[results.frame["problem"] == problem]
    traces = []
    for name, group in frame.groupby("optimizer", sort=False):
        runs = group.pivot(index="seed", columns="learning_rate", values="validation_loss")
        places = dict(zip(group["learning_rate"], group[column], strict=True))
        x, values = [places[rate] for rate in runs.columns], runs.to_numpy()
        traces.append((name, name, x, np.median(values, axis=0), values))
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
    figure = _figure(results, problem, traces, axis, losses, start)
    if results.tuner != GRID:
        lines = [line for line in figure["data"] if "only" not in line]
        dots = {"mode": "markers", "marker": {"size": 6, "color": "$own"}}
        figure["data"] = [line | dots for line in lines]
    for line in [line for line in figure["data"] if "only" not in line]:
        known = [(y, x) for x, y in zip(line["x"], line["y"], strict=True) if y is not None]
        if known:
            y, x = min(known)
            dot = {"x": [x], "y": [y], "mode": "markers", "marker": {"size": 9, "color": "$own"}}
            shared = {name: line[name] for name in ("meta", "hovertemplate")}
            figure["data"].append(dot | shared | {"only": True})
    return figure


def until_rows(results: Tables, problem: str) -> dict[str, Any]:
    """Steps to a loss: a dot at the fewest, a bar from the most that are shown to be too few.

    Without a dot the bar goes on to the edge: who does not get there may do so later. Where a step
    of any costs more than one gradient, gradients are drawn in place of steps.
    """
    table = results.until
    table = table[table["problem"] == problem]
    names = table["optimizer"].tolist()
    unit, costs = steps.unit(results, problem), table["optimizer"].map(results.step_cost(problem))
    shorts, ends = (table[column] * costs for column in ("short", "tested"))
    edge = 1.06 * float(ends.max())
    data: list[dict[str, Any]] = []
    for height, row, short, end in zip(
        range(len(names), 0, -1), table.to_dict("records"), shorts, ends, strict=True
    ):
        reached = row["outcome"] == "reached"
        told = f"{end} {unit}" if reached else f"{row['outcome']} at {end} {unit}"
        bar = {"x": [short, end if reached else edge], "y": [height, height], "mode": "lines"}
        dot = {"x": [end] if reached else [], "y": [height] * reached, "mode": "markers"}
        data.append(bar | {"line": {"color": "$own", "width": 4}, "opacity": 0.45})
        data.append(dot | {"marker": {"color": "$own", "size": 9}})
        for trace in data[-2:]:
            hover = f"{row['optimizer']}: {told}<extra></extra>"
            trace |= {"meta": row["optimizer"], "hovertemplate": hover}
    return named_rows(names, data, {"title": {"text": unit}, "range": [0, edge]})


def _figure(
    results: Tables,
    problem: str,
    traces: list[tuple[str, str, list, np.ndarray, np.ndarray]],
    xaxis: dict[str, Any],
    losses: np.ndarray,
    start: float,
) -> dict[str, Any]:
    """Lines (name, hover title, x, y, y of every seed) on one loss axis."""
    finite = losses[np.isfinite(losses)]
    bottom = float(finite.min()) if finite.size else 0.0
    logarithmic = bottom >= 0 and start > 20 * bottom
    if logarithmic:
        low, high = np.log10(max(bottom, FLOOR)), np.log10(start)
    else:
        low, high = bottom, start
    span = max(high - low, 1e-6)
    low, high = low - 0.04 * span, high + 0.08 * span
    drawn: list[dict[str, Any]] = []
    for name, title, x, y, every in traces:
        if len(every) > 1:
            drawn.append(_band(x, every) | {"meta": name})
        drawn.append(
            {
                "x": x,
                "y": plain(np.maximum(y, FLOOR) if logarithmic else y),
                "mode": "lines",
                "meta": name,
                "hovertemplate": f"{title}<br>loss %{{y:.4g}} at %{{x}}<extra></extra>",
                **LINE,
            }
        )
    return {
        "data": drawn,
        "lit": LIT,
        "best": results.best()[problem],
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


def _ends(figure: dict[str, Any]) -> dict[str, float]:
    """Where on the axis of a figure the line of each optimizer ends."""
    axis = figure["layout"]["yaxis"]
    ends = {}
    for line in figure["data"]:
        seen = [y for y in line["y"] if y is not None]
        if "only" not in line and seen:
            height = np.log10(seen[-1]) if axis["type"] == "log" else seen[-1]
            ends[line["meta"]] = float(np.clip(height, *axis["range"]))
    return ends


def _band(x: list, every: np.ndarray) -> dict[str, Any]:
    """The span of all seeds as a shaded outline."""
    inside = np.isfinite(every).all(axis=0)
    low, high = (np.maximum(f(every[:, inside], axis=0), FLOOR) for f in (np.min, np.max))
    steps = np.asarray(x)[inside]
    return {
        "x": np.concatenate([steps, steps[::-1]]).tolist(),
        "y": plain(np.concatenate([high, low[::-1]])),
        "mode": "lines",
        "fill": "toself",
        "only": True,
        "line": {"width": 0, "color": "$own"},
        "fillcolor": "$own",
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
