"""One style for all figures: told apart in grey and with every kind of colour vision.

Series differ in colour, darkness and dashes at once, and are named at their lines instead of in a
legend.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatterSciNotation, NullFormatter, NullLocator

from shared.protocol import FAILS, HOLDS, UNDECIDED, Finding, Trend, interval

# Okabe and Ito's hues from dark to light; the rule that a claim is about comes first.
STYLES = (
    ("#0A5C91", "-"),
    ("#D55E00", (0, (5, 1.5))),
    ("#1B1B1B", (0, (1, 1.2))),
    ("#009E73", (0, (6, 1.5, 1, 1.5))),
    ("#CC79A7", (0, (3, 1))),
    ("#8A8A8A", "-"),
    ("#56B4E9", (0, (4, 1, 1, 1, 1, 1))),
)
WIDTH, HEIGHT = 4.3, 3.3
GREY = "#9AA0A6"
# How verdicts look in the picture of all claims: colour, marker, how it is filled.
VERDICTS = {
    HOLDS: ("#0A5C91", "o", "full"),
    UNDECIDED: ("#7A7A7A", "o", "none"),
    FAILS: ("#D55E00", "s", "full"),
}
ROW, MOST = 0.2, 30.0
TICKS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20)


def panels(*titles: str) -> tuple[Figure, list[Any]]:
    """A figure with one panel a title, side by side; more than three go in two rows."""
    columns = len(titles) if len(titles) <= 3 else (len(titles) + 1) // 2
    rows = -(-len(titles) // columns)
    figure = Figure(figsize=(WIDTH * columns, HEIGHT * rows), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)
    axes = []
    for place, title in enumerate(titles, 1):
        one = figure.add_subplot(rows, columns, place)
        one.set_title(title, loc="left", fontsize=10)
        one.grid(color="#E3E6EA", linewidth=0.6)
        one.set_axisbelow(True)
        one.spines[["top", "right"]].set_visible(False)
        one.spines[["left", "bottom"]].set_color(GREY)
        one.tick_params(length=0, labelsize=8.5)
        axes.append(one)
    return figure, axes


def line(
    axes: Any,
    x: Sequence[float] | np.ndarray,
    samples: np.ndarray,
    label: str,
    style: int,
    *,
    marker: str = "",
) -> None:
    """The median over the seeds, with a band over all of them, named where `name_lines` puts it.

    Args:
      axes: of `panels`.
      x: shape (points,).
      samples: shape (seeds, points) or (points,).
      label: the name.
      style: a place in `STYLES`, the same for a rule in every panel of a figure.
      marker: Matplotlib's marker for the points.
    """
    samples = np.atleast_2d(np.asarray(samples, float))
    colour, dashes = STYLES[style]
    middle = np.median(samples, axis=0)
    if len(samples) > 1:
        low, high = samples.min(axis=0), samples.max(axis=0)
        axes.fill_between(x, low, high, color=colour, alpha=0.14, linewidth=0)
    axes.plot(
        x, middle, color=colour, linestyle=dashes, linewidth=1.8, label=label,
        marker=marker, markersize=4,
    )  # fmt: skip


def name_lines(axes: Any) -> None:
    """Writes the names of all lines beside their last points, moved apart where they would meet.

    To be called last: it fixes the limits of the axes.
    """
    axes.relim()
    axes.autoscale_view()
    lines = [one for one in axes.get_lines() if not one.get_label().startswith("_")]
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    axes.set_xlim(*axes.get_xlim())
    to_axes = axes.transData + axes.transAxes.inverted()
    ends = []
    for one in lines:
        x, y = (np.asarray(values, float) for values in one.get_data())
        seen = np.flatnonzero(np.isfinite(y))
        if seen.size:
            height = to_axes.transform((x[seen[-1]], y[seen[-1]]))[1]
            ends.append([float(np.clip(height, 0, 1)), one])
    ends.sort(key=lambda end: end[0])
    heights = apart([height for height, _ in ends], gap=0.075)
    for height, (_, one) in zip(heights, ends, strict=True):
        axes.annotate(
            one.get_label(),
            (1.02, height),
            xycoords="axes fraction",
            va="center",
            fontsize=8.5,
            color=one.get_color(),
            annotation_clip=False,
        )


def apart(heights: Sequence[float], gap: float) -> list[float]:
    """Rising heights from 0 to 1, moved within that for neighbours to be `gap` apart."""
    if not heights:
        return []
    # Moved by multiples of the gap, the heights only have to rise: pool neighbours that fall.
    pools: list[list[float]] = []
    for place, height in enumerate(heights):
        pools.append([height - place * gap])
        while len(pools) > 1 and np.mean(pools[-2]) > np.mean(pools[-1]):
            last = pools.pop()
            pools[-1] += last
    highest = max(0.0, 1 - gap * (len(heights) - 1))
    flat = [min(max(float(np.mean(pool)), 0.0), highest) for pool in pools for _ in pool]
    return [height + place * gap for place, height in enumerate(flat)]


def describe_axes(axes: Any, x: str, y: str, *, log_x: bool = False, log_y: bool = False) -> None:
    """Labels both axes, with their units, and sets their scales."""
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    if log_x:
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
    if log_y:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(PlainLogFormatter())
        axes.yaxis.set_minor_formatter(PlainLogFormatter())


class PlainLogFormatter(LogFormatterSciNotation):
    """Matplotlib's choice of what to label on a logarithmic axis, written as 0.6 or 20."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def bars(
    axes: Any, names: Sequence[str], samples: Sequence[np.ndarray], styles: Sequence[int]
) -> None:
    """A dot for the mean of each name's samples, a bar over all of them, names down the side."""
    for place, (values, style) in enumerate(zip(samples, styles, strict=True)):
        values, (colour, _) = np.atleast_1d(values), STYLES[style]
        axes.plot([values.min(), values.max()], [place, place], color=colour, linewidth=2.2)
        axes.plot([values.mean()], [place], "o", color=colour, markersize=6)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)


def trend(axes: Any, line: Trend, paper: Sequence[float], *, beyond: float = 1.0) -> None:
    """Effects at several sizes, the line through them with its 95 % band, and the paper's number.

    Args:
      axes: of `panels`.
      line: what to draw.
      paper: the lowest and the highest effect that the paper reports.
      beyond: how many times beyond the largest size to go on with the line, dotted.
    """
    colour, _ = STYLES[0]
    lowest, highest = min(line.sizes), max(line.sizes)
    for dashes, first, last in (("-", lowest, highest), (":", highest, highest * beyond)):
        sizes = np.geomspace(first, last, 40)
        middle, low, high = line.at(sizes)
        axes.fill_between(sizes, low, high, color=colour, alpha=0.14, linewidth=0)
        axes.plot(sizes, middle, color=colour, linestyle=dashes, linewidth=1.8)
    for size, effects in zip(line.sizes, line.effects.T, strict=True):
        middle, low, high = interval(np.log(effects), ratio=True)
        axes.plot([size, size], [low, high], color=colour, linewidth=1.2)
        axes.plot([size], [middle], "o", color=colour, markersize=5)
    for level, name in ((1.0, "no effect"), (float(np.mean(paper)), "paper")):
        axes.axhline(level, color=GREY, linewidth=0.8, zorder=0)
        axes.annotate(
            name, (1.02, level), xycoords=("axes fraction", "data"), va="center", fontsize=8.5
        )


def effects(rows: Sequence[tuple[str, Finding]]) -> Figure:
    """The picture of all claims: a row for each, by verdict and effect.

    Args:
      rows: the script and the claim.
    """
    order = list(VERDICTS)

    def rank(row: tuple[str, Finding]) -> tuple[int, float]:
        # A claim without a number is undecided, and comes last among those.
        return order.index(row[1].verdict), -np.nan_to_num(row[1].value)

    rows = sorted(rows, key=rank)
    figure = Figure(figsize=(9.6, ROW * len(rows) + 1.3), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.axvline(1, color=GREY, linewidth=1, zorder=0)
    for place, (_, claim) in enumerate(rows):
        colour, marker, fill = VERDICTS[claim.verdict]
        value, low, high = np.clip([claim.value, claim.low, claim.high], 1 / MOST, MOST)
        axes.plot([low, high], [place, place], color=colour, linewidth=1.8)
        axes.plot([value], [place], marker, color=colour, fillstyle=fill, markersize=6, zorder=3)
        if claim.least != 1:
            axes.plot([claim.least], [place], "|", color="#1B1B1B", markersize=9)
        if claim.paper:
            axes.plot(claim.paper, [place] * len(claim.paper), color="#009E73", linewidth=1)
            axes.plot(
                [np.exp(np.mean(np.log(claim.paper)))], [place], "D", color="#009E73",
                fillstyle="none", markersize=6,
            )  # fmt: skip
    axes.set_yticks(range(len(rows)), [f"{stem}: {claim.text}" for stem, claim in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(
        max(1 / MOST, 0.8 * np.nanmin([claim.low for _, claim in rows])),
        min(MOST, 1.25 * np.nanmax([claim.high for _, claim in rows])),
    )
    first, last = axes.get_xlim()
    ticks = [tick for tick in TICKS if first <= tick <= last]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.tick_params(length=0, labelsize=8)
    axes.grid(axis="x", color="#E3E6EA", linewidth=0.6)
    axes.grid(axis="y", color="#F1F3F5", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("times better than the rival (right: for the paper; 1: no effect)", fontsize=9)
    marks = [
        Line2D([], [], color=colour, marker=marker, fillstyle=fill, label=verdict)
        for verdict, (colour, marker, fill) in VERDICTS.items()
    ]
    alone = {"linestyle": "none", "fillstyle": "none"}
    marks.append(Line2D([], [], color="#1B1B1B", marker="|", label="needed, if not 1", **alone))
    marks.append(Line2D([], [], color="#009E73", marker="D", label="the paper's number", **alone))
    figure.legend(handles=marks, loc="outside lower center", ncols=5, frameon=False, fontsize=8.5)
    return figure
