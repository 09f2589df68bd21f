"""What the benchmarks share: a model, every rule with Optax's counterpart, a step, a table."""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import optzoo

Tree = Any
Row = dict[str, Any]
TOTAL_STEPS = 1000


def model(blocks: int = 6, width: int = 512, vocabulary: int = 8192) -> Tree:
    """The shapes of a transformer's parameters: 23 million of them in 61 leaves."""
    shapes: Tree = {"embedding": (vocabulary, width)}
    for index in range(blocks):
        attention = {name: {"kernel": (width, width)} for name in ("query", "key", "value", "out")}
        shapes[f"block_{index}"] = attention | {
            "norm_1": {"scale": (width,)},
            "norm_2": {"scale": (width,)},
            "up": {"kernel": (width, 4 * width), "bias": (4 * width,)},
            "down": {"kernel": (4 * width, width), "bias": (width,)},
        }
    return jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32),
        shapes,
        is_leaf=lambda node: isinstance(node, tuple),
    )


def numbers(shapes: Tree) -> int:
    """How many numbers a tree holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def filled(shapes: Tree, seed: int, scale: float = 1.0) -> Tree:
    """Normal random numbers in a tree of shapes."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(scale * rng.standard_normal(leaf.shape, np.float32)), shapes
    )


def ours(name: str) -> optax.GradientTransformation:
    """An optimizer of the registry with its defaults."""
    return optzoo.get(name).build(total_steps=TOTAL_STEPS)


def _optax_muon() -> optax.GradientTransformation:
    def dimensions(params):
        labels = optzoo.matrix_labels(params)
        return jax.tree.map(
            lambda label: optax.contrib.MuonDimensionNumbers() if label == "matrix" else None,
            labels,
        )

    return optax.contrib.muon(2e-2, muon_weight_dimension_numbers=dimensions)


def _optax_schedule_free_radam() -> optax.GradientTransformation:
    return optax.contrib.schedule_free(optax.radam(2.5e-3, b1=0.0), 2.5e-3)


COUNTERPARTS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "ademamix": lambda: optax.contrib.ademamix(1e-3),
    "dog": optax.contrib.dog,
    "muon": _optax_muon,
    "novograd": lambda: optax.novograd(1e-3),
    "schedule_free_adamw": lambda: optax.contrib.schedule_free_adamw(),
    "schedule_free_radam": _optax_schedule_free_radam,
    "schedule_free_sgd": lambda: optax.contrib.schedule_free_sgd(),
}
"""Optax's form of a rule, for those that it has."""


LEAF_BY_LEAF = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
"""For the CPU's compiler, which else keeps the temporaries of all leaves at the same time."""


def step(tx: optax.GradientTransformation, compiler_options: Any = None) -> Callable:
    """(parameters, state, gradients) -> (parameters, state), in the memory of its arguments.

    Donated arguments come first and are handed back in their order: JAX pairs donated buffers with
    results of equal shape by order, and another order makes XLA copy each of them.
    """

    def run(params, state, gradients):
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    return jax.jit(run, donate_argnums=(0, 1), compiler_options=compiler_options)


def lowered(tx: optax.GradientTransformation, shapes: Tree, sharding: Any = None) -> Any:
    """`step` traced for parameters of these shapes, where `sharding` puts them."""

    def placed(tree):
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
        )

    state = jax.eval_shape(tx.init, shapes)
    return step(tx).lower(placed(shapes), placed(state), placed(shapes))


def paired(contestants: dict[str, Callable[[], None]], seconds: float) -> dict[str, list[float]]:
    """Seconds of each call, in turn and each first in turn, so that all are disturbed alike.

    Three rounds at least, then more until `seconds` are spent; a first round is not counted.
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for call in contestants.values():
        call()
    end = time.perf_counter() + seconds
    order = list(contestants)
    while len(times[order[0]]) < 3 or time.perf_counter() < end:
        for name in order:
            start = time.perf_counter()
            contestants[name]()
            times[name].append(time.perf_counter() - start)
        order.append(order.pop(0))
    return times


def ratio(times: Sequence[float], others: Sequence[float]) -> float:
    """The median over rounds of one time over the other."""
    return statistics.median(a / b for a, b in zip(times, others, strict=True))


def parser(doc: str) -> argparse.ArgumentParser:
    """A parser with the module's docstring as help, and --json."""
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="write the rows, too")
    return made


def add_rules(made: argparse.ArgumentParser, default: Sequence[str]) -> None:
    """The option --rules: names of the registry."""
    made.add_argument(
        "--rules",
        nargs="+",
        default=list(default),
        choices=list(optzoo.REGISTRY.optimizers),
        metavar="RULE",
        help=f"optimizers to measure; by default {' '.join(default)}",
    )


def report(rows: Sequence[Row], options: argparse.Namespace) -> None:
    """Prints the rows as a Markdown table and, where asked, writes them as JSON."""
    report_parts({"": rows}, options, list(rows))


def report_parts(
    parts: Mapping[str, Sequence[Row]], options: argparse.Namespace, written: Any = None
) -> None:
    """Prints a titled table for each part; writes `written`, or else the parts, as JSON."""
    print(f"{os.cpu_count()} CPU cores, jax {jax.__version__}, optax {optax.__version__}")
    for title, rows in parts.items():
        columns = list(dict.fromkeys(column for row in rows for column in row))
        lines = [columns, ["---"] * len(columns)]
        lines += [[_cell(row.get(column)) for column in columns] for row in rows]
        print(f"\n{title}\n" if title else "")
        print("\n".join("| " + " | ".join(line) + " |" for line in lines))
    if options.json:
        text = json.dumps(written or dict(parts), indent=1)
        options.json.write_text(text + "\n", encoding="utf-8")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
    return str(value)
