"""Slurm's jobs, begun by submitit."""

import ast
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, wait as wait_for
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from weakref import WeakSet

from optzoo.compare.errors import UserError
from optzoo.plugins import one_line

# Seconds between two looks at the jobs; what is submitted between them becomes one array.
PERIOD = 0.5
# Minutes, for one: submitit's five are soon over.
DEFAULTS = {"time": 60, "job_name": "optzoo"}


@contextmanager
def slurm(place: str, options: Sequence[str], folder: Path) -> Iterator[Executor]:
    """Jobs of this machine's Slurm, which are cancelled where this ends before them.

    Args:
      place: nothing.
      options: those of `sbatch`, as "name=value".
      folder: for what jobs take and give; all machines must see it.

    Raises:
      UserError: if there is no Slurm here, or it has no such option.
    """
    import submitit

    if place:
        raise UserError(f"--on slurm takes its options by --slurm, not {place!r}")
    try:
        submitter = submitit.SlurmExecutor(folder)
        submitter.update_parameters(**DEFAULTS | dict(map(_option, options)))
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"--on slurm: {one_line(error)}") from error
    with jobs(submitter) as executor:
        yield executor


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--slurm takes name=value, not {text!r}")
    try:
        return name.replace("-", "_"), ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return name.replace("-", "_"), value


@contextmanager
def jobs(submitter: Any) -> Iterator[Executor]:
    """An executor that submits by an executor of submitit, which is none of Python's.

    It cancels the jobs that this ends before.
    """
    executor = SlurmJobs(submitter)
    try:
        yield executor
    finally:
        executor.shutdown(wait=False)


class SlurmJobs(Executor):
    """Jobs as futures."""

    def __init__(self, submitter: Any) -> None:
        self._submitter = submitter
        self._waiting = SimpleQueue[tuple[Future[Any], _Call]]()
        self._open = WeakSet[Future[Any]]()
        self._begun = dict[Future[Any], Any]()
        self._ended = threading.Event()
        self._minder = threading.Thread(target=self._mind, daemon=True)
        self._minder.start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = Future[Any]()
        self._open.add(future)
        self._waiting.put((future, _Call(fn, args, kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Ends after what is submitted; cancels it where that is not waited for."""
        if wait and not cancel_futures:
            wait_for(self._open)
        self._ended.set()
        self._minder.join()

    def _mind(self) -> None:
        while not self._ended.wait(PERIOD):
            self._begin()
            for future, job in list(self._begun.items()):
                if future.cancelled() or _is_over(job):
                    del self._begun[future]
                    _settle(future, job)
        for job in self._begun.values():
            job.cancel(check=False)

    def _begin(self) -> None:
        """Submits what waits, as one array."""
        batch = []
        while not self._waiting.empty():
            future, call = self._waiting.get()
            if not future.cancelled():
                batch.append((future, call))
            else:
                future.set_running_or_notify_cancel()
        if not batch:
            return
        try:
            with self._submitter.batch():
                begun = [(future, self._submitter.submit(call)) for future, call in batch]
        except Exception as error:
            for future, _ in batch:
                if future.set_running_or_notify_cancel():
                    future.set_exception(error)
        else:
            self._begun.update(begun)


def _is_over(job: Any) -> bool:
    try:
        return job.done()
    except Exception:
        return True  # Its result says why.


def _settle(future: Future[Any], job: Any) -> None:
    if not future.set_running_or_notify_cancel():
        job.cancel(check=False)
        return
    try:
        future.set_result(job.result())
    except Exception as error:
        future.set_exception(error)


@dataclass(frozen=True)
class _Call:
    """A call that submitit queues again if Slurm takes its node away or its time is over."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    options: dict[str, Any]

    def __call__(self) -> Any:
        return self.function(*self.arguments, **self.options)

    def checkpoint(self) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)
