"""How far optzoo, Optax and four libraries for PyTorch are from the authors' own code.

    python benchmarks/parity.py                  a table of every recorded configuration
    python benchmarks/parity.py --json FILE      the same as JSON
    python benchmarks/parity.py --page           rewrite the table of docs/pages/parity.md

Every library gets the recorded gradients and, by peers.json, the recorded options in its own
words, in float64. D is the largest difference in any number after the last step, relative to how
far that leaf of the reference moved: 1e-12 is rounding, 1e-2 is another rule. Of a schedule it is
the largest difference at any step, relative to its largest rate.
"""

import argparse
import importlib
import json
import sys
from collections import defaultdict
from pathlib import Path
from types import ModuleType

import numpy as np

from optzoo.catalog import between_markers

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "pages" / "parity.md"
LIBRARIES = ("optzoo", "optax", "torch", "pytorch_optimizer", "timm", "heavyball")
PEERS = json.loads(Path(__file__).with_name("peers.json").read_text(encoding="utf-8"))
ROUNDING = 1e-6
"""A larger D is another rule, not another order of the same sums."""
CAPTION = """\
D is the largest difference in any number after the last of 25 to 200 steps, relative to how far
the weights moved, with the recorded gradients and options in float64; in brackets, the recordings
in which a library differs by more than rounding. Of a schedule, D is the largest difference at any
step, relative to its largest rate. The reference is the authors' code or, where none is public or
runs here, NumPy after their text: AdaGO, trust_region, modular_descent, nigt, EG±, gradient
regularisation and flooding; the papers' forms of AdaMod, AMSGrad, OPT-AMSGrad, NAG-GS and GradES by
gradients; Stable-SPAM's mended resets; NovoGrad in TensorFlow, Gravity and optimistic Adam in Keras
and Entropy-SGD in Lua."""

Deviations = dict[str, float]


def golden() -> tuple[ModuleType, ModuleType]:
    """The modules beside the recordings that replay them: in JAX, and in PyTorch."""
    # Recordings name helpers as golden.replay, and record.py imports replay.
    sys.path[:0] = [str(ROOT / "tests" / "golden"), str(ROOT / "tests")]
    try:
        for package in LIBRARIES:
            importlib.import_module(package)
        return importlib.import_module("replay"), importlib.import_module("record")
    except ModuleNotFoundError as error:
        sys.exit(f"{error.name} is missing: pip install 'optzoo[parity]'")


def measure(replay: ModuleType, record: ModuleType) -> dict[str, Deviations]:
    """{configuration: {library: D}}, without those that optzoo changes on purpose."""
    table = {}
    for name, configuration in replay.CONFIGURATIONS.items():
        if "deviates" in configuration or "float64" in configuration:
            continue
        stored = replay.load(name)
        laid_out = replay.laid_out(name)

        def torch_params(peer, stored=stored, configuration=configuration):
            about = {"leaves", "evaluation"} & configuration.keys()
            return record.record({key: configuration[key] for key in about} | peer, stored)[
                "params"
            ]

        def distance(params, arrays):
            parts = replay.deviation(params, arrays["params"], arrays["params0"])
            return max(float(part[-1]) for part in parts.values())

        def jax_params(library, call, laid_out=laid_out, configuration=configuration):
            ours = ("start_state", "after_first", "extra") if library == "optzoo" else ()
            given = {key: configuration.get(key) for key in ours}
            return replay.replay(call, laid_out, "float64", **given)[0]

        calls = {"optzoo": configuration["optzoo"], **PEERS["configurations"].get(name, {})}
        table[name] = {
            library: distance(torch_params(call), stored)
            if "reference" in call
            else distance(jax_params(library, call), laid_out)
            for library, call in calls.items()
        }
        progress(name, table[name])
    for name, entry in replay.SCHEDULES.items():
        ours, want = replay.rates(entry["optzoo"], name)
        peers = {
            library: record.rates(call, len(want))
            if "reference" in call
            else replay.rates(call, name)[0]
            for library, call in PEERS["schedules"].get(name, {}).items()
        }
        table[name] = {
            library: float(np.max(np.abs(got - want)) / want.max())
            for library, got in {"optzoo": ours, **peers}.items()
        }
        progress(name, table[name])
    return table


def progress(name: str, row: Deviations) -> None:
    """A line for who waits: all recordings take minutes."""
    cells = "  ".join(f"{library} {d:.0e}" for library, d in row.items())
    print(f"{name:26}{cells}", file=sys.stderr)


def shown(d: float) -> str:
    """A deviation for a table cell, bold where it is more than rounding."""
    digits = f"{d:.2g}" if d == 0 or d > 0.1 else f"{d:.0e}".replace("e-0", "e-")
    return f"**{digits}**" if d > ROUNDING else digits


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def by_configuration(table: dict[str, Deviations]) -> str:
    """Every configuration; an empty cell where a library has no such rule or option."""
    rows = [
        [f"`{name}`", *(shown(row[lib]) if lib in row else "" for lib in LIBRARIES)]
        for name, row in table.items()
    ]
    return markdown(["configuration", *LIBRARIES], rows)


def by_rule(table: dict[str, Deviations], configurations: dict[str, dict]) -> str:
    """The worst of each rule, how many of its recordings a library misses, and why."""
    rules: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for name, row in table.items():
        rule = configurations[name]["rule"]
        for library, d in row.items():
            rules[rule][library].append(d)

    def cell(values: list[float]) -> str:
        missed = sum(d > ROUNDING for d in values)
        worst = shown(max(values, default=0.0)) if values else "—"
        return f"{worst} ({missed} of {len(values)})" if missed else worst

    rows = [
        [f"`{rule}`", *(cell(row[library]) for library in LIBRARIES), PEERS["why"].get(rule, "")]
        for rule, row in sorted(rules.items())
    ]
    return markdown(["rule", *LIBRARIES, "where they part"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every D")
    parser.add_argument("--page", action="store_true", help="rewrite the documentation's table")
    options = parser.parse_args()
    replay, record = golden()
    table = measure(replay, record)
    print(by_configuration(table))
    if options.json:
        options.json.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    if options.page:
        entries = {**replay.CONFIGURATIONS, **replay.SCHEDULES}
        block = f"{CAPTION}\n\n{by_rule(table, entries)}"
        PAGE.write_text(between_markers(PAGE.read_text("utf-8"), "parity", block), "utf-8")


if __name__ == "__main__":
    main()
