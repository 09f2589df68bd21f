"""Schedules as SVG figures, each with the alternatives that its signature offers."""

import inspect
import itertools
import typing
from html import escape
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from optzoo.registry import Entry

STEPS = 400
NORMS = 1 + 3 * np.exp(-np.arange(STEPS) / 30) + (np.arange(STEPS) / STEPS) ** 2
REQUIRED = {
    "learning_rate": 1.0,
    "total_steps": STEPS,
    "period": STEPS // 4,
    "warmup_steps": STEPS // 10,
    "norms": NORMS,
}
"""What a schedule is drawn with where its signature has no default."""
ALSO: dict[str, tuple[Any, ...]] = {"mult": (2,), "warmup_steps": (STEPS // 10,)}
"""Further values of options, beside those that a signature lists."""
WITH = {"exponential": {"floor": 0.01}, "exp_range": {"gamma": 0.996}}
"""What else an alternative needs to exist, or to be seen in so few steps."""
COLOURS = ("#4c6ef5", "#f76707", "#12a37a", "#e64980", "#8a9a00", "#ae3ec9")
LEFT, TOP, WIDTH, HEIGHT = 34, 8, 600, 150


def variants(entry: Entry) -> list[dict[str, Any]]:
    """The options of each curve: the defaults, then one alternative at a time."""
    hints = typing.get_type_hints(entry.factory, include_extras=True)
    found: list[dict[str, Any]] = [{}]
    for name, value in entry.defaults.items():
        listed = typing.get_args(hints[name]) if typing.get_origin(hints[name]) else ()
        others = listed if isinstance(value, str) else ALSO.get(name, ())
        others = (True,) if value is False else others
        found += [{name: v, **WITH.get(v, {})} for v in others if v != value]
    return found


def rates(entry: Entry, options: dict[str, Any]) -> np.ndarray:
    """The rate of every step of a run, and the one after it."""
    schedule = entry.factory(*given(entry).values(), **options)
    return np.asarray(jax.vmap(schedule)(jnp.arange(STEPS + 1)))


def given(entry: Entry) -> dict[str, Any]:
    """The arguments without a default."""
    parameters = entry.signature.parameters.items()
    return {name: REQUIRED[name] for name, p in parameters if p.default is inspect.Parameter.empty}


def call(entry: Entry, options: dict[str, Any]) -> str:
    """How a curve is made, as code."""
    first = ["norms" if value is NORMS else repr(value) for value in given(entry).values()]
    more = [f"{name}={value!r}" for name, value in options.items()]
    return f"{entry.name}({', '.join([*first, *more])})"


def figure(entry: Entry) -> str:
    """The curves of one schedule over a run, with what makes each, as HTML."""
    lines, names = [], []
    for options, colour in zip(variants(entry), itertools.cycle(COLOURS), strict=False):
        points = " ".join(
            f"{LEFT + WIDTH * k / STEPS:.1f},{TOP + HEIGHT * (1 - rate):.1f}"
            for k, rate in enumerate(rates(entry, options))
        )
        lines.append(f'<polyline points="{points}" stroke="{colour}"/>')
        code = escape(call(entry, options), quote=False)
        names.append(f'<span style="color: {colour}">&#9632;</span>&nbsp;<code>{code}</code>')
    bottom, right = TOP + HEIGHT, LEFT + WIDTH
    axes = [f'<path d="M{LEFT} {TOP}V{bottom}H{right}"/>']
    for share in (0, 0.25, 0.5, 0.75, 1):
        x, y, step = LEFT + WIDTH * share, TOP + HEIGHT * (1 - share), round(STEPS * share)
        axes.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{share:g}</text>')
        axes.append(f'<text x="{x}" y="{bottom + 16}" text-anchor="middle">{step}</text>')
    return (
        f'<figure class="schedule">\n<svg viewBox="0 0 {right + 16} {bottom + 22}" role="img" '
        f'aria-label="{entry.name}: rates over {STEPS} steps">{"".join(axes + lines)}</svg>\n'
        f"<figcaption>{'<br/>'.join(names)}</figcaption>\n</figure>"
    )
