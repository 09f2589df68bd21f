"""The report's charts as pictures, by Matplotlib."""

from pathlib import Path
from typing import Any

import numpy as np

from optzoo.compare.read.tables import Tables
from optzoo.compare.show.figures.charts import BY_PROBLEM, OVERALL
from optzoo.compare.show.figures.form import THEME

WIDTH, DPI, PIXELS = 7.2, 110, 100


def write(results: Tables, folder: Path) -> list[Path]:
    """Draws every chart over all problems and for each problem; returns the files."""
    pictures = {name: (chart.draw(results), chart.title) for name, chart in OVERALL.items()}
    for problem in results.problems:
        stem = "".join(c if c.isalnum() else "_" for c in problem)
        for name, chart in BY_PROBLEM.items():
            title = f"{problem}: {chart.title}"
            if chart.applies(results, problem):
                pictures[f"{stem}-{name}"] = (chart.draw(results, problem), title)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, (figure, title) in pictures.items():
        paths.append(folder / f"{name}.png")
        draw(figure, title).savefig(paths[-1], dpi=DPI)
    return paths


def draw(figure: dict[str, Any], title: str = "") -> Any:
    """A Matplotlib figure of one of the report's charts of lines and points."""
    from matplotlib.figure import Figure

    layout = figure["layout"]
    picture = Figure(figsize=(WIDTH, layout["height"] / PIXELS + 0.4), layout="constrained")
    axes = picture.add_subplot()
    for trace in figure["data"]:
        _trace(axes, trace)
    for name, axis in (("x", layout["xaxis"]), ("y", layout["yaxis"])):
        _axis(axes, name, axis)
    for label in layout.get("annotations", ()):
        y = 10 ** label["y"] if layout["yaxis"].get("type") == "log" else label["y"]
        axes.annotate(
            label["text"],
            (1, y),
            xycoords=("axes fraction", "data"),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            family=label["font"].get("family"),
            color=_colour(label["font"]["color"]),
        )
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(color="#dfe3e8", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return picture


def _trace(axes: Any, trace: dict[str, Any]) -> None:
    x, y = (np.array([np.nan if v is None else v for v in trace[k]], float) for k in "xy")
    line, marker = trace.get("line", {}), trace.get("marker", {})
    colour = _colour(line.get("color") or marker.get("color"))
    opacity = trace.get("opacity", 1)
    if "fill" in trace:
        axes.fill(x, y, color=colour, alpha=opacity, linewidth=0)
        return
    if "lines" in trace["mode"]:
        style = "steps-post" if line.get("shape") == "hv" else "default"
        width = 0.7 * line.get("width", 2)
        axes.plot(x, y, color=colour, alpha=opacity, linewidth=width, drawstyle=style)
    if "markers" in trace["mode"]:
        sizes = np.square(np.multiply(0.7, marker["size"]))
        axes.scatter(x, y, s=sizes, color=colour, alpha=opacity, linewidths=0, zorder=3)


def _axis(axes: Any, name: str, axis: dict[str, Any]) -> None:
    from matplotlib.ticker import (
        FixedLocator,
        FuncFormatter,
        MultipleLocator,
        NullLocator,
        PercentFormatter,
    )

    one = getattr(axes, f"{name}axis")
    logarithmic = axis.get("type") == "log"
    limits = axis["range"]
    if logarithmic:
        getattr(axes, f"set_{name}scale")("log")
        limits = [10**value for value in limits]
    getattr(axes, f"set_{name}lim")(limits)
    if "tickvals" in axis:
        prefix = axis.get("tickprefix", "")
        texts = axis.get("ticktext") or [f"{prefix}{value:g}" for value in axis["tickvals"]]
        texts = [text.replace("<sup>", "$^{").replace("</sup>", "}$") for text in texts]
        one.set_major_locator(FixedLocator(axis["tickvals"]))
        named = dict(zip(axis["tickvals"], texts, strict=True))
        one.set_major_formatter(FuncFormatter(lambda value, _: named.get(value, "")))
        one.set_minor_locator(NullLocator())
    elif "dtick" in axis:
        one.set_major_locator(MultipleLocator(axis["dtick"]))
    elif axis.get("tickformat") == ".0%":
        one.set_major_formatter(PercentFormatter(1, decimals=0))
    one.label.set_text(axis.get("title", {}).get("text", ""))


def _colour(name: str | None) -> str | None:
    return THEME.get(name, name) if name else None
