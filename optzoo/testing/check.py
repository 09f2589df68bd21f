"""What a check is: a promise, a line that tries it, and a function that finds out."""

import textwrap
import unittest
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NoReturn

import jax

from optzoo.plugins import one_line
from optzoo.testing.subject import Subject

Outcome = Literal["passed", "failed", "does not apply"]


class Violation(AssertionError):
    """A promise that a transformation breaks.

    Attributes:
      sentence: what a user would see.
      reproduction: the smallest code that shows it, given `tx`, `params` and `grads`.
    """

    def __init__(self, sentence: str, reproduction: str = ""):
        super().__init__(sentence)
        self.sentence = sentence
        self.reproduction = reproduction

    def __str__(self) -> str:
        return f"{self.sentence}\n  {self.reproduction}" if self.reproduction else self.sentence


class DoesNotApply(unittest.SkipTest):
    """A check that says nothing about this transformation; pytest shows it as skipped."""


def fail(sentence: str, reproduction: str = "") -> NoReturn:
    """Reports a broken promise; `reproduction` replaces the check's own where it is shorter."""
    raise Violation(sentence, reproduction)


@dataclass(frozen=True)
class Row:
    """What one check found.

    Attributes:
      check: its name.
      outcome: "passed", "failed" or "does not apply".
      message: what a user would see, why it does not apply, or a note; empty otherwise.
      reproduction: code that shows a failure; empty otherwise.
    """

    check: str
    outcome: Outcome
    message: str = ""
    reproduction: str = ""


@dataclass(frozen=True)
class Check:
    """One promise that a sound transformation keeps.

    Attributes:
      name: short and unique.
      promise: what holds where the check passes.
      example: code that tries the promise, given `tx`, `params`, `grads` and maybe `factory`.
      function: raises `Violation` or `DoesNotApply`, or returns a note.
    """

    name: str
    promise: str
    example: str
    function: Callable[[Subject], str | None]

    def __call__(self, target) -> str:
        """Checks a transformation, a factory or a `Subject`; returns a note.

        Raises:
          Violation: where the promise is broken.
          DoesNotApply: where the check says nothing about it.
        """
        subject = target if isinstance(target, Subject) else Subject(target)
        # The kit tries what users run: JAX's own defaults, whatever the caller has tightened.
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            try:
                return self.function(subject) or ""
            except DoesNotApply:
                raise
            except Violation as violation:
                raise Violation(
                    violation.sentence, violation.reproduction or self.example
                ) from violation.__cause__
            except Exception as error:
                raise Violation(
                    f"raises {textwrap.shorten(one_line(error), 160, placeholder='…')}",
                    self.example,
                ) from error

    def row(self, subject: Subject) -> Row:
        """The outcome as a row of a report; raises nothing."""
        try:
            return Row(self.name, "passed", self(subject))
        except DoesNotApply as reason:
            return Row(self.name, "does not apply", str(reason))
        except Violation as violation:
            return Row(self.name, "failed", violation.sentence, violation.reproduction)

    def __str__(self) -> str:
        return self.name


conformance_checks: list[Check] = []
"""Every check, in the order of a report; for `pytest.mark.parametrize`."""


def check(promise: str, example: str) -> Callable[[Callable[[Subject], str | None]], Check]:
    """Adds the function it decorates to `conformance_checks`, under the function's name."""

    def register(function: Callable[[Subject], str | None]) -> Check:
        made = Check(function.__name__, promise, example, function)
        conformance_checks.append(made)
        return made

    return register
