"""What all figures share: colours, sizes, and names at the ends of lines.

Figures are plain Plotly figures (dictionaries) in which nobody is highlighted yet; `painted` does
that here, and `page.js` on the report's page, where readers choose. For both of them:

- The optimizer that a trace belongs to is its `meta`; its colour, `$own`, is that of a highlighted
  one or `$muted`. Other colours that depend on the page's theme are `$ink`, `$page`, `$accent`.
- `lit`: what changes in the traces of a highlighted optimizer, which come to lie on top.
- A trace with `only` is there for a highlighted optimizer only: a band, a path.
- `ends`: where the lines of each optimizer end, for its name to stand beside it.
- `best`: who is drawn in `$ink` where no colour is left.
- `rows`: the optimizers that have a row of their own, from the top.
- `clock`: the title of an axis of seconds, for which every trace has its `pace`, seconds a step.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from optzoo.compare.read.tables import Tables

# Okabe and Ito's palette, told apart with every kind of colour vision, on light and on dark.
PALETTE = ("#1F83C4", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
# What the names of colours mean on paper and in notebooks; the report's page has its own.
THEME = {"$ink": "#1c2330", "$muted": "#9aa3af", "$page": "#ffffff", "$accent": "#0072b2"}
HEIGHT, LABEL_HEIGHT, LETTER_WIDTH = 340, 15, 7
LINE: dict[str, Any] = {"line": {"color": "$own", "width": 1}, "opacity": 0.55}
LIT: dict[str, Any] = {"line": {"color": "$own", "width": 2.25}, "opacity": 1}
ROW_HEIGHT, LETTER = 22, 7.2
LONGEST_LABEL = 26
OPTIONS = re.compile(r"\w+=[^()]*")


def colours(results: Tables) -> dict[str, str]:
    """A colour for each of the best-ranked optimizers, the same in every chart."""
    return dict(zip(results.ranking["optimizer"], PALETTE, strict=False))


def painted(figure: dict[str, Any], palette: Mapping[str, str]) -> dict[str, Any]:
    """A figure with the optimizers of a palette in their colours, on top of the others."""
    own = {figure["best"]: "$ink"} | dict(palette) if "best" in figure else palette
    traces = []
    for trace in figure["data"]:
        colour = own.get(trace.get("meta"))
        if "only" in trace and not colour:
            continue
        lit = figure.get("lit", {}) if colour and "only" not in trace else {}
        text = json.dumps({k: v for k, v in (trace | lit).items() if k not in ("only", "pace")})
        traces.append(json.loads(text.replace('"$own"', json.dumps(colour or "$muted"))))
    traces.sort(key=lambda trace: trace.get("meta") in own)
    layout = figure["layout"]
    if "ends" in figure:
        short = labels(figure["ends"])
        ends = [(y, short[name], own[name]) for name, y in figure["ends"].items() if name in own]
        layout = layout | {
            "annotations": end_labels(ends, layout["yaxis"]["range"]),
            "margin": layout["margin"] | {"r": label_room(ends)},
        }
    return figure | {"data": traces, "layout": layout}


def labels(names: Iterable[str]) -> dict[str, str]:
    """Names as they stand beside charts, to which long ones would leave no room.

    A long one loses its options, or something in its middle where another name would then look
    the same.
    """
    shorter = {name: _shorter(name) for name in names}
    uses = Counter(label for found in shorter.values() for label in found)
    return {
        name: next((label for label in found if uses[label] == 1), found[0])
        for name, found in shorter.items()
    }


def _shorter(name: str) -> list[str]:
    if len(name) <= LONGEST_LABEL:
        return [name]
    bare = OPTIONS.sub("…", name)
    heads = LONGEST_LABEL // 2, LONGEST_LABEL - 2, 1
    cut = [f"{name[:head]}…{name[head + 1 - LONGEST_LABEL :]}" for head in heads]
    return [bare, *cut] if len(bare) <= LONGEST_LABEL else cut


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
            "text": name,
            "font": {"color": colour, "size": 12},
            "xanchor": "left",
            "xshift": 4,
            "showarrow": False,
        }
        for height, (_, name, colour) in zip(heights, ends, strict=True)
    ]


def label_room(ends: list[tuple[float, str, str]]) -> int:
    """The width that `end_labels` need beside a chart."""
    return 12 + LETTER_WIDTH * max((len(end[1]) for end in ends), default=0)


def plain(values: np.ndarray) -> list[float | None]:
    """Values as JSON has them: four digits, and no infinity."""
    return [float(f"{value:.4g}") if np.isfinite(value) else None for value in values]


def named_rows(
    names: list[str], data: list[dict[str, Any]], xaxis: dict[str, Any]
) -> dict[str, Any]:
    """A chart with a row for each name, the first on top."""
    shown = [*labels(names).values()]
    widest = max(map(len, shown), default=0)
    return {
        "data": data,
        "rows": names,
        "layout": {
            "height": 64 + ROW_HEIGHT * len(names),
            "margin": {"l": 16 + LETTER * widest, "r": 12, "t": 8, "b": 44},
            "showlegend": False,
            "hovermode": "closest",
            "xaxis": xaxis,
            "yaxis": {
                "range": [0.4, len(names) + 0.6],
                "tickvals": list(range(len(names), 0, -1)),
                "ticktext": shown,
            },
        },
    }
