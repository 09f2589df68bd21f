"""Two processes joined by `jax.distributed`."""

from typing import Any

from optzoo.testing import distributed, mesh
from optzoo.testing.check import DoesNotApply, check
from optzoo.testing.subject import Subject, importable
from optzoo.testing.trees import agree


@check(
    "two processes joined by jax.distributed agree with one",
    "the same sharded step in two processes of four devices each, after jax.distributed.initialize",
)
def two_processes(subject: Subject) -> None:
    agree_with_one(subject, distributed.run_together([target(subject)])[0])


def target(subject: Subject) -> distributed.Target:
    """How two other processes build the same transformation.

    Raises:
      DoesNotApply: where they cannot.
    """
    found = importable(subject.factory)
    if found is None:
        raise DoesNotApply("needs a factory that another process can import by name")
    if subject.extra_args(subject.params, subject.params).keys() - subject.needs.keys():
        raise DoesNotApply("needs extra arguments that another process does not have")
    if not distributed.is_plain(found[1]):
        raise DoesNotApply("needs arguments that another process can be given as text")
    return found


def agree_with_one(subject: Subject, outcome: distributed.Outcome) -> None:
    """Compares what two processes found with this process alone.

    Raises:
      Violation: where they differ, or the processes failed.
    """
    if outcome.error:
        raise RuntimeError(outcome.error)
    expected: Any = subject.run_compiled(*mesh.host_trees()).params
    agree("two processes' parameters", outcome.params, expected, rtol=1e-3)
