"""Running all checks, and what they found."""

import ast
import inspect
import shutil
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import chex
import jax
import optax

from optzoo.plugins import load, one_line
from optzoo.testing.check import Check, Outcome, Row, conformance_checks
from optzoo.testing.mesh import DEVICES
from optzoo.testing.subject import Factory, Subject
from optzoo.testing.traits import Traits

SYMBOLS: dict[Outcome, str] = {"passed": "✓", "failed": "✗", "does not apply": "–"}


@dataclass(frozen=True)
class Report:
    """The outcome of every check for one transformation.

    Attributes:
      name: of the transformation.
      rows: one a check, in the order of `conformance_checks`.
    """

    name: str
    rows: tuple[Row, ...]

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return not self.failed

    @property
    def passed(self) -> tuple[Row, ...]:
        return self._with("passed")

    @property
    def failed(self) -> tuple[Row, ...]:
        return self._with("failed")

    @property
    def does_not_apply(self) -> tuple[Row, ...]:
        return self._with("does not apply")

    def _with(self, outcome: Outcome) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.outcome == outcome)

    def table(self, width: int | None = None) -> str:
        """The rows as text for a terminal, `width` columns wide, with a last line that counts."""
        width = width or shutil.get_terminal_size().columns
        indent = max((len(row.check) for row in self.rows), default=0) + 4
        below = width < 2 * indent
        lines = [self.name]
        for row in self.rows:
            head = f"{SYMBOLS[row.outcome]} {row.check}"
            margin = " " * (4 if below else indent)
            texts = [row.message, row.reproduction] if row.reproduction else [row.message]
            folded = [line for text in texts for line in textwrap.wrap(text, width - len(margin))]
            if below or not folded:
                lines.append(head)
            else:
                lines.append(head.ljust(indent) + folded.pop(0))
            lines += [margin + line for line in folded]
        return "\n".join(line.rstrip() for line in [*lines, self.summary()])

    def summary(self) -> str:
        """How many checks passed, failed and do not apply."""
        counts = (self.passed, self.failed, self.does_not_apply)
        return "{} passed, {} failed, {} do not apply".format(*map(len, counts))

    def markdown(self) -> str:
        """One row of a Markdown table: the name and a symbol a check."""
        return f"| {' | '.join([self.name, *(SYMBOLS[row.outcome] for row in self.rows)])} |"


def check_transformation(
    target: optax.GradientTransformation | Factory | Subject,
    *,
    params: chex.ArrayTree | None = None,
    traits: Traits | None = None,
    checks: Iterable[Check] | None = None,
    **options: Any,
) -> Report:
    """Runs every check of the kit on a transformation.

    Args:
      target: the transformation, or a factory that makes it when called without arguments
        (`functools.partial` fills in required ones), which more checks can be tried on.
      params: float32 parameters to try it on; a small dense layer by default.
      traits: what is claimed about it; every claim is verified.
      checks: which checks to run; all by default.
      **options: as for `Subject`: extra_args, eval_params, leaves, name.

    Returns:
      What passed, failed or does not apply.
    """
    if not isinstance(target, Subject):
        target = Subject(target, params=params, traits=traits, **options)
    chosen = conformance_checks if checks is None else checks
    return Report(target.name, tuple(check.row(target) for check in chosen))


def main(target: str, *arguments: str) -> int:
    """Checks "package.module:factory" and prints the report; the command `optzoo check`.

    Call it before JAX is first used, so that it can set up the devices that some checks need.

    Args:
      target: where the factory, or a finished transformation, is found.
      *arguments: "name=value" for the factory; `learning_rate` is 0.001 where it has no default.

    Returns:
      The exit code: 0 where nothing failed, 1 where something did.

    Raises:
      ValueError: for a target that cannot be loaded or built, or a malformed argument.
    """
    jax.config.update("jax_num_cpu_devices", DEVICES)
    found = load(target)
    given = dict(map(_argument, arguments))
    if not isinstance(found, optax.GradientTransformation):
        if not callable(found):
            raise ValueError(f"{target} is neither a factory nor a transformation")
        found = partial(found, **_completed(found, given))
        try:
            found()
        except Exception as error:
            raise ValueError(f"{target} cannot be called: {one_line(error)}") from error
    report = check_transformation(found, name=target)
    print(report.table())
    return 0 if report.ok else 1


def _argument(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"expected name=value; got {text!r}")
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return name, value


def _completed(factory: Any, given: dict[str, Any]) -> dict[str, Any]:
    rate = inspect.signature(factory).parameters.get("learning_rate")
    needed = rate is not None and rate.default is rate.empty
    return {"learning_rate": 1e-3, **given} if needed else given
