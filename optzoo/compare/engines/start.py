"""From what the command line says to an executor."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from optzoo.compare.engines import clusters
from optzoo.compare.engines.processes import Processes
from optzoo.compare.engines.slurm import slurm
from optzoo.compare.errors import UserError
from optzoo.registry import named


@contextmanager
def started(on: str, options: Sequence[str], folder: Path) -> Iterator[Executor]:
    """The executor that `on` says; what it has begun ends with it.

    Args:
      on: "processes:COUNT", "dask:HOST:PORT", "ray:HOST:PORT" or "slurm".
      options: what else Slurm is told, as "name=value".
      folder: where Slurm's jobs may leave what they take, give and print.

    Raises:
      UserError: if there is no such engine, its package is missing, or it cannot be reached.
    """
    name, _, place = on.partition(":")
    try:
        engine = named("engine", name, ENGINES)
    except ValueError as error:
        raise UserError(str(error)) from error
    if options and name != "slurm":
        raise UserError(f"--slurm needs --on slurm, not --on {on}")
    with ExitStack() as stack:
        try:
            executor = stack.enter_context(engine(place, options, folder))
        except ImportError as error:
            needs = f"--on {name} needs {error.name}: pip install 'optzoo[{name}]'"
            raise UserError(needs) from error
        yield executor


@contextmanager
def _processes(count: str, *_: object) -> Iterator[Executor]:
    if not count.isdecimal() or int(count) < 1:
        raise UserError(f"--on processes:COUNT needs a whole number from 1 up, not {count!r}")
    executor = Processes(int(count))
    try:
        yield executor
    finally:
        executor.shutdown(wait=False)


ENGINES: dict[str, Callable[..., AbstractContextManager[Executor]]] = {
    "processes": _processes,
    "dask": clusters.dask,
    "ray": clusters.ray,
    "slurm": slurm,
}
