"""The conformance kit over this registry and over Optax's own optimizers, as a matrix.

    python benchmarks/conformance.py                  everything, an hour on a laptop
    python benchmarks/conformance.py --only optzoo    these names anew, the others as stored
    python benchmarks/conformance.py --draw           nothing anew; page and picture again

Writes docs/conformance.json, and conformance.md and conformance.png into docs/pages/. Both sides
are tried alike: no trait is claimed for anyone, and every failure stands in conformance.md with the
line that shows it. Integers of Optax's factories count as static, as its documentation has it; ours
are traced.
"""

import argparse
import contextlib
import dataclasses
import inspect
import json
import multiprocessing
import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import jax
import optax

import optzoo
from optzoo.registry import Trait
from optzoo.testing import (
    DoesNotApply,
    Report,
    Row,
    Subject,
    Traits,
    conformance_checks,
    distributed,
)
from optzoo.testing.checks import processes
from optzoo.testing.checks.processes import two_processes
from optzoo.testing.mesh import DEVICES
from optzoo.testing.report import SYMBOLS

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
STORE = DOCS / "conformance.json"
PAGES = DOCS / "pages"
MODULES = {"optax": optax, "optax.contrib": optax.contrib}
LEARNING_RATE = 1e-3
CHECKS = [check for check in conformance_checks if check is not two_processes]
PATIENCE = 120
"""Seconds after which a check counts as one that never returns."""

ARGUMENTS: dict[str, dict[str, Any]] = {
    "optax.contrib.mechanize": {"base_optimizer": optax.sgd(0.1)},
    "optax.contrib.schedule_free": {"base_optimizer": optax.sgd(0.1), "learning_rate": 0.1},
    "optax.polyak_sgd": {},
}
"""What is no learning rate, for the rules that need it or lack a learning rate."""
EXTRA: dict[str, dict[str, Any]] = {
    "optax.contrib.momo": {"value": 1.0},
    "optax.contrib.momo_adam": {"value": 1.0},
    "optax.contrib.sophia": {"obj_fn": lambda params: optax.tree.norm(params, squared=True)},
    "optax.polyak_sgd": {"value": 1.0},
}
"""What `update` needs besides gradients, state and parameters."""
OTHER_INTERFACE = {"optax.contrib.dpsgd", "optax.lbfgs"}
"""Per-example gradients; a line search."""


def names() -> list[str]:
    """Our optimizers, then Optax's: public factories that take a learning rate."""
    found = [f"optzoo.{name}" for name in optzoo.REGISTRY.optimizers]
    for prefix, module in MODULES.items():
        for name in dir(module):
            full, factory = f"{prefix}.{name}", getattr(module, name)
            if full in OTHER_INTERFACE or name.startswith(("_", "scale_by_")):
                continue
            if full in ARGUMENTS or _takes_a_learning_rate(factory):
                found.append(full)
    return found


def _takes_a_learning_rate(factory: Any) -> bool:
    if not (inspect.isfunction(factory) or isinstance(factory, partial)):
        return False
    return "learning_rate" in inspect.signature(factory).parameters


def subject(name: str) -> Subject:
    """What the kit examines under a name."""
    prefix, _, attribute = name.rpartition(".")
    if prefix == "optzoo":
        entry = optzoo.REGISTRY[attribute]
        scheduled = Trait.SCHEDULED in entry.traits
        factory = partial(entry.factory, total_steps=2000) if scheduled else entry.factory
        return Subject(factory, eval_params=optzoo.eval_params, name=name)
    factory = getattr(MODULES[prefix], attribute)
    parameters = inspect.signature(factory).parameters
    arguments = dict(ARGUMENTS.get(name, {}))
    rate = parameters.get("learning_rate")
    if rate is not None and rate.default is rate.empty:
        arguments.setdefault("learning_rate", LEARNING_RATE)
    integers = tuple(n for n, p in parameters.items() if type(p.default) is int)
    return Subject(
        partial(factory, **arguments) if arguments else factory,
        traits=Traits(static=integers),
        extra_args=EXTRA.get(name),
        name=name,
    )


def examine(name: str) -> list[Row]:
    """The rows of one optimizer's report, but for those that need processes of their own.

    Each row comes from a child process, so that a check which never returns is a row, too.
    """
    context = multiprocessing.get_context("spawn")
    rows: list[Row] = []
    while len(rows) < len(CHECKS):
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=_send_rows, args=(name, len(rows), sender))
        child.start()
        sender.close()
        while len(rows) < len(CHECKS):
            check = CHECKS[len(rows)]
            if not receiver.poll(PATIENCE):
                rows.append(
                    Row(check.name, "failed", f"runs longer than {PATIENCE} s", check.example)
                )
                break
            try:
                rows.append(receiver.recv())
            except EOFError:
                rows.append(Row(check.name, "failed", "the process dies", check.example))
                break
        child.kill()
        child.join()
    return rows


def _send_rows(name: str, start: int, sender: Connection) -> None:
    jax.config.update("jax_num_cpu_devices", DEVICES)
    one = subject(name)
    for check in CHECKS[start:]:
        sender.send(check.row(one))


def measure(chosen: list[str], jobs: int) -> None:
    """Examines optimizers and stores each result as it comes."""
    DOCS.mkdir(exist_ok=True)
    stored = json.loads(STORE.read_text("utf-8")) if STORE.exists() else {}
    joined = together(chosen)
    with ThreadPoolExecutor(jobs) as pool:
        for name, rows in zip(chosen, pool.map(examine, chosen), strict=True):
            stored[name] = [vars(row) for row in (*rows, joined[name])]
            ordered = {known: stored[known] for known in names() if known in stored}
            STORE.write_text(json.dumps(ordered, indent=1, ensure_ascii=False), "utf-8")
            print(f"{name}: {_report(name, stored[name]).summary()}", flush=True)


def together(chosen: list[str]) -> dict[str, Row]:
    """The rows of the check that needs two processes, which are joined once for all."""
    subjects, targets = {name: subject(name) for name in chosen}, {}
    for name, one in subjects.items():
        with contextlib.suppress(DoesNotApply):
            targets[name] = processes.target(one)
    outcomes = dict(zip(targets, distributed.run_together([*targets.values()]), strict=True))

    def found(name):
        if name not in outcomes:
            return two_processes
        compare = partial(processes.agree_with_one, outcome=outcomes[name])
        return dataclasses.replace(two_processes, function=compare)

    return {name: found(name).row(one) for name, one in subjects.items()}


def _report(name: str, rows: list[dict[str, Any]]) -> Report:
    return Report(name, tuple(Row(**row) for row in rows))


def reports() -> list[Report]:
    """What is stored."""
    return [_report(*item) for item in json.loads(STORE.read_text("utf-8")).items()]


def document(found: list[Report]) -> str:
    """The page: totals, every failure with its reproduction, and the whole matrix."""
    checks = [row.check for row in found[0].rows]
    failures = [
        f"| {report.name} | {row.check} | {_text(row.message)} | `{_cell(row.reproduction)}` |"
        for report in found
        for row in report.failed
    ]
    marks = {check: [] for check in checks}
    for report in found:
        for row in report.rows:
            marks[row.check].append(SYMBOLS[row.outcome])
    numbered = [f"{i}. {report.name}" for i, report in enumerate(found, 1)]
    lines = [
        "# Conformance",
        "",
        totals(found),
        "",
        "![matrix](conformance.png)",
        "",
        "Optax's own tests over the same rules: [peer_suites.md](peer_suites.md).",
        "",
        "## Every failure, and the line that shows it",
        "",
        "with `tx` the optimizer, `params` a small float32 tree and `grads` like it",
        "",
        "| optimizer | check | what a user sees | reproduction |",
        "|---|---|---|---|",
        *failures,
        "",
        "## The matrix",
        "",
        *numbered,
        "",
        f"| check | {' | '.join(map(str, range(1, len(found) + 1)))} |",
        f"|---|{'---|' * len(found)}",
        *(f"| {check} | {' | '.join(symbols)} |" for check, symbols in marks.items()),
    ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _text(text: str) -> str:
    """A cell that is not code, where brackets would be references."""
    return _cell(text).replace("[", "\\[")


def totals(found: list[Report]) -> str:
    """One row a library: how many optimizers keep every promise, and how often one fails."""
    lines = [
        f"| {len(found[0].rows)} checks | optimizers | pass all | checks failed | of |",
        "|---|---:|---:|---:|---:|",
    ]
    for library in ("optzoo", *MODULES):
        part = [report for report in found if report.name.rpartition(".")[0] == library]
        failed = sum(len(report.failed) for report in part)
        tried = failed + sum(len(report.passed) for report in part)
        sound = sum(report.ok for report in part)
        lines.append(f"| {library} | {len(part)} | {sound} | {failed} | {tried} |")
    return "\n".join(lines)


def draw(found: list[Report], path: Path) -> None:
    """The matrix as a picture: orange for failures, told apart by lightness and a cross, too."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    colours = {"passed": "#c6dbef", "failed": "#d95f02", "does not apply": "#f7f7f7"}
    checks = [row.check for row in found[0].rows]
    size = (0.19 * len(checks) + 3, 0.19 * len(found) + 2.4)
    figure, axes = plt.subplots(figsize=size, layout="constrained")
    for y, report in enumerate(found):
        for x, row in enumerate(report.rows):
            box = plt.Rectangle((x, y), 0.92, 0.92, color=colours[row.outcome], linewidth=0)
            axes.add_patch(box)
            if row.outcome == "failed":
                axes.text(x + 0.46, y + 0.5, "×", ha="center", va="center", size=8, color="white")
    axes.set(xlim=(0, len(checks)), ylim=(len(found), 0))
    axes.set_xticks([x + 0.46 for x in range(len(checks))], checks, rotation=90, size=7)
    axes.set_yticks(
        [y + 0.46 for y in range(len(found))], [report.name for report in found], size=7
    )
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    for edge in axes.spines.values():
        edge.set_visible(False)
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in colours.values()]
    figure.legend(handles, colours, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    figure.savefig(path, dpi=160)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", help="a regular expression that names begin with")
    parser.add_argument("--draw", action="store_true", help="examine nothing")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    options = parser.parse_args()
    if not options.draw:
        chosen = [name for name in names() if re.match(options.only or "", name)]
        measure(chosen, options.jobs)
    found = reports()
    (PAGES / "conformance.md").write_text(document(found), "utf-8")
    draw(found, PAGES / "conformance.png")
    print(totals(found))


if __name__ == "__main__":
    main()
