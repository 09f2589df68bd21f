"""Optax's own tests over this registry: what its optimizers must keep, ours keep, too.

    python benchmarks/peer_suites.py PATH                a checkout of google-deepmind/optax
    python benchmarks/peer_suites.py PATH --only adamp   these rules alone, and nothing written

Fetches nothing and changes nothing in the checkout: its test files are read, and the lists of
optimizers in them replaced before the tests are made of them. Both the rules and the tests import
the Optax of the checkout. Where a test wants a rule to find a minimum, it may find it at any of a
few learning rates, because Optax's lists give each rule a rate of its own; and arguments that
choose the program are static under `inject_hyperparams`, as those that Optax's tests list by name.
Writes docs/pages/peer_suites.md.
"""

import argparse
import ast
import inspect
import logging
import multiprocessing
import re
import subprocess
import sys
import types
import typing
import unittest
import warnings
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

PAGE = Path(__file__).resolve().parents[1] / "docs" / "pages" / "peer_suites.md"
RATES = (None, 1.0, 0.1, 0.01, 0.001)
"""The rule's own default first."""
GIVEN = {"total_steps": 30_000, "window": 16}
"""Where a rule takes them: what it requires, and what would take hours at its default."""
WHY = (
    (
        "adabound",
        "test_optimizers1",
        "final_lr, at which every rate of it ends, is 0.1 by default: too much for "
        "curvatures of 1000. At 1e-3 it finds the minimum.",
    ),
    (
        "entropy_sgd",
        "test_optimizers1",
        "inner_learning_rate is 0.1 by default: too much for curvatures of 1000. At 1e-4 it "
        "finds the minimum.",
    ),
    (
        "ranger21",
        "test_optimizers1",
        "The adaptive clipping of gradients lets parameters that start at 0 hardly move. "
        "Without it (agc_clip=1e9) it finds the minimum.",
    ),
    (
        "ranger21",
        "test_optimizers[23]",
        "Centralised gradients keep the means of a matrix. Where convolutions alone are "
        "centralised, and nothing is clipped or decays, it finds the minimum.",
    ),
    (
        "scion",
        "test_optimizers[123]",
        "Constrained to balls of radius 1, outside of which these minima lie.",
    ),
    (
        "ademamix",
        "inject",
        "float32, in which `inject_hyperparams` keeps numbers, holds b3 = 0.9999 so that 1 "
        "− b3 is wrong by 2e-4.",
    ),
    (
        "schedule_free_adamw",
        "inject",
        "float32, in which `inject_hyperparams` keeps numbers, holds b2 = 0.999 so that 1 − "
        "b2 is wrong by 5e-5. Optax's schedule_free_adamw gives both numbers, too.",
    ),
    (
        "entropy_sgd",
        "inject",
        "The test compares states by NumPy, which refuses random keys; that of "
        "alias_test.py, which unwraps them first, passes.",
    ),
    (
        "mfac",
        "inject",
        "The plain number 0 of momentum keeps no buffer, as its docstring says; injected it "
        "is an array, which keeps one.",
    ),
    (
        "dog|entropy_sgd|ldog|ranger21|schedule_free_.*",
        "abstract",
        "They start from the parameters' values, which shapes do not have; the error names "
        "what to call instead.",
    ),
    (
        "psgd",
        "stability[45]",
        "Not for complex parameters, which it refuses by name.",
    ),
)
"""Why a test does not hold: regular expressions of its rules and of its name, and the reason."""


class Suite(NamedTuple):
    """A test file of Optax, and which of its tests concern every optimizer."""

    path: str
    tests: str = "."
    many_rates: str = "$^"


SUITES = (
    Suite("optax/contrib/_common_test.py", many_rates="test_optimizers[0-9]"),
    Suite("optax/_src/alias_test.py", "stability|extra_args|inject"),
    Suite("optax/_src/sharding_test.py", "init|state"),
    Suite("optax/contrib/_sharding_test.py"),
)


class Finding(NamedTuple):
    """One test of one rule; an empty reason where it passes."""

    suite: str
    rule: str
    test: str
    outcome: str
    reason: str = ""


def rule(name: str, rate: float | None) -> Any:
    """The factory of a rule with what it requires, and a rate where one is given."""
    import optzoo

    entry = optzoo.REGISTRY.optimizers[name]
    known = entry.signature.parameters
    given = {} if rate is None else {"learning_rate": rate}
    given |= {name: value for name, value in GIVEN.items() if name in known}
    return partial(entry.factory, **given)


def untraceable(factory: Any) -> list[str]:
    """The arguments that no array may replace, by their annotations."""
    import jax

    hints = typing.get_type_hints(factory)
    del hints["return"]
    return [name for name, hint in hints.items() if jax.Array not in (hint, *typing.get_args(hint))]


def cases(suite: Suite, checkout: Path, name: str, rate: float | None) -> list[unittest.TestCase]:
    """The tests of one file over one rule."""
    path = checkout / suite.path
    body = ast.parse(path.read_text("utf-8"), str(path)).body
    first = next(i for i, node in enumerate(body) if isinstance(node, ast.ClassDef))
    module = types.ModuleType(path.stem)
    sys.modules[path.stem] = module

    def run(nodes: list[ast.stmt]) -> None:
        exec(compile(ast.Module(nodes, []), str(path), "exec"), vars(module))

    run(body[:first])
    _replace_lists(module, name, rule(name, rate))
    run(body[first:])
    loader = unittest.TestLoader()
    tests = [
        test
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, unittest.TestCase)
        for test in loader.loadTestsFromTestCase(kind)
    ]
    return [test for test in tests if re.search(suite.tests, test._testMethodName)]


def _replace_lists(module: types.ModuleType, name: str, factory: Any) -> None:
    entry = {"opt_name": f"optzoo.{name}", "opt_kwargs": {}}
    contributed = entry | {"wrapper_name": None, "wrapper_kwargs": None}
    lists = {
        "OPTIMIZERS": lambda: {name: factory()},
        "_OPTIMIZERS_UNDER_TEST": lambda: (entry,),
        "_MAIN_OPTIMIZERS_UNDER_TEST": lambda: (contributed,),
        "_ALL_OPTIMIZERS_UNDER_TEST": lambda: (contributed,),
        "_get_opt": lambda: lambda test, name: factory,
        "_get_opt_factory": lambda: lambda name: factory,
    }
    known = [key for key in lists if hasattr(module, key)]
    if not known:
        raise ValueError(f"{module.__name__}: no list of optimizers found")
    for key in known:
        setattr(module, key, lists[key]())
    if hasattr(module, "_inject"):
        static = untraceable(factory.func)
        inject = module._inject.inject_hyperparams
        module._inject = types.SimpleNamespace(
            inject_hyperparams=lambda made, names=(): inject(made, [*names, *static])
        )


def examine(suite: Suite, checkout: Path, names: list[str]) -> list[Finding]:
    """What one test file finds about the rules; runs in a process of its own."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    sys.path.insert(0, str(checkout))
    import jax

    jax.config.update("jax_num_cpu_devices", 8)
    found = []
    for name in names:
        for test in cases(suite, checkout, name, RATES[0]):
            found.append(_tried(suite, name, test))
            if found[-1].outcome == "failed" and re.search(suite.many_rates, found[-1].test):
                method = test._testMethodName
                for rate in RATES[1:]:
                    again = cases(suite, checkout, name, rate)
                    (other,) = (test for test in again if test._testMethodName == method)
                    if (finding := _tried(suite, name, other)).outcome == "passed":
                        found[-1] = finding
                        break
    return found


def _tried(suite: Suite, name: str, test: unittest.TestCase) -> Finding:
    result = unittest.TestResult()
    test.run(result)
    wrong = [*result.errors, *result.failures]
    if wrong:
        outcome, reason = "failed", _reason(wrong[0][1])
    elif result.skipped:
        outcome, reason = "skipped", result.skipped[0][1]
    else:
        outcome, reason = "passed", ""
    return Finding(suite.path, name, test._testMethodName, outcome, reason)


def _reason(trace: str) -> str:
    """The line of a traceback that names the exception, and what follows of it."""
    lines = trace.strip().splitlines()
    start = max(i for i, line in enumerate(lines) if re.match(r"[\w.]+(Error|Exception)\b", line))
    text = " ".join(line.strip() for line in lines[start:] if line.strip())
    return text if len(text) <= 200 else f"{text[:199]}…"


def page(found: list[Finding], version: str) -> str:
    """Counts by file and test, and every failure with its reason."""
    counts: dict[tuple[str, str], Counter] = {}
    for finding in found:
        kind = re.sub(r"(\d+|_" + re.escape(finding.rule) + ")$", "", finding.test)
        counts.setdefault((finding.suite, kind), Counter())[finding.outcome] += 1
    total = Counter(finding.outcome for finding in found)
    outcomes = ("passed", "failed", "skipped")
    failures = [
        f"| {f.rule} | `{f.suite}` {f.test} | {f.reason.replace('|', chr(92) + '|')} | {why(f)} |"
        for f in found
        if f.outcome == "failed"
    ]
    lines = [
        "# Optax's own tests over the zoo",
        "",
        f"Optax's suites at {version}, run over {len({f.rule for f in found})} rules by "
        "`python benchmarks/peer_suites.py PATH_TO_OPTAX_CHECKOUT`.",
        "",
        "| suite | test | passed | failed | skipped |",
        "|---|---|---:|---:|---:|",
        *(
            f"| `{suite}` | {kind} | {' | '.join(str(row[o]) for o in outcomes)} |"
            for (suite, kind), row in counts.items()
        ),
        f"| all | | {' | '.join(str(total[o]) for o in outcomes)} |",
        "",
    ]
    if failures:
        lines += ["| rule | test | error | why |", "|---|---|---|---|", *failures, ""]
    return "\n".join(lines)


def why(finding: Finding) -> str:
    """What is known of a failure; empty where nothing is."""
    reasons = (
        reason
        for rules, test, reason in WHY
        if re.fullmatch(rules, finding.rule) and re.search(test, finding.test)
    )
    return next(reasons, "")


def _version(checkout: Path) -> str:
    text = (checkout / "optax" / "__init__.py").read_text("utf-8")
    version = re.search(r'^__version__ = "(.*)"', text, re.MULTILINE)
    commit = subprocess.run(
        ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
    )
    return " ".join(filter(None, [version and version[1], commit.stdout.strip()]))


def main() -> int:
    parser = argparse.ArgumentParser(description=inspect.getdoc(sys.modules["__main__"]))
    parser.add_argument("checkout", type=Path, help="a checkout of google-deepmind/optax")
    parser.add_argument("--only", help="a regular expression that names begin with")
    options = parser.parse_args()
    if not all((options.checkout / suite.path).exists() for suite in SUITES):
        parser.error(f"{options.checkout} is no checkout of Optax: its tests are not there")
    checkout = options.checkout.resolve()
    sys.path.insert(0, str(checkout))
    import optzoo

    names = [name for name in optzoo.REGISTRY.optimizers if re.match(options.only or "", name)]
    context = multiprocessing.get_context("spawn")
    found = []
    for suite in SUITES:
        # The files set up JAX's devices in different ways.
        with context.Pool(1) as pool:
            found += pool.apply(examine, (suite, checkout, names))
    text = page(found, _version(checkout))
    print(text)
    if not options.only:
        PAGE.write_text(text, "utf-8")
    return int(any(f.outcome == "failed" and not why(f) for f in found))


if __name__ == "__main__":
    sys.exit(main())
