"""What all figures share: colours, sizes, and names at the ends of lines.

Figures are plain Plotly figures (dictionaries). Colours that depend on the page's theme are the
names `$ink`, `$muted` and `$page`, which the page replaces by its own.
"""

from typing import Any

import numpy as np

from optzoo.compare.read.tables import Tables

# Okabe and Ito's palette, told apart with every kind of colour vision, on light and on dark.
PALETTE = ("#1F83C4", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
# What the names of colours mean on paper and in notebooks; the report's page has its own.
THEME = {"$ink": "#1c2330", "$muted": "#9aa3af", "$page": "#ffffff", "$accent": "#0072b2"}
HEIGHT, LABEL_HEIGHT, LETTER_WIDTH = 340, 15, 7
LONGEST_LABEL = 26


def colours(results: Tables) -> dict[str, str]:
    """A colour for each of the best-ranked optimizers, the same in every chart."""
    return dict(zip(results.ranking["optimizer"], PALETTE, strict=False))


def label(name: str) -> str:
    """A name as it stands beside a chart, which a long one would leave no room.

    What is left out is in the middle: rules that compose differ in their heads or last arguments.
    """
    left = LONGEST_LABEL // 2
    return (
        name if len(name) <= LONGEST_LABEL else f"{name[:left]}…{name[left + 1 - LONGEST_LABEL :]}"
    )


def end_labels(ends: list[tuple[float, str, str]], span: list[float]) -> list[dict[str, Any]]:
    """Names at the ends of lines, pushed apart until they no longer overlap."""
    gap = (span[1] - span[0]) * LABEL_HEIGHT / (HEIGHT - 52)
    ends = sorted(ends)
    heights = [end[0] for end in ends]
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + gap)
    limit = span[1] - gap / 2
    for i in reversed(range(len(heights))):
        heights[i] = min(heights[i], limit)
        limit = heights[i] - gap
    return [
        {
            "xref": "paper",
            "x": 1,
            "y": height,
            "text": label(name),
            "font": {"color": colour, "size": 12},
            "xanchor": "left",
            "xshift": 4,
            "showarrow": False,
        }
        for height, (_, name, colour) in zip(heights, ends, strict=True)
    ]


def label_room(ends: list[tuple[float, str, str]]) -> int:
    """The width that `end_labels` need beside a chart."""
    return 12 + LETTER_WIDTH * max((len(label(end[1])) for end in ends), default=0)


def plain(values: np.ndarray) -> list[float | None]:
    """Values as JSON has them: four digits, and no infinity."""
    return [float(f"{value:.4g}") if np.isfinite(value) else None for value in values]
