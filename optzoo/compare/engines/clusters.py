"""Clusters that somebody keeps running."""

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, InvalidStateError
from contextlib import contextmanager, suppress
from typing import Any
from weakref import WeakSet

from optzoo.compare.errors import UserError
from optzoo.plugins import one_line

# Seconds until a scheduler counts as out of reach, and between two looks at it.
PATIENCE, PERIOD = 10, 0.5
LOST = "the scheduler has ended or is out of reach"


@contextmanager
def dask(address: str, *_: object) -> Iterator[Executor]:
    """The workers of a Dask scheduler, "HOST:PORT"; what they have not begun ends with this.

    Raises:
      UserError: if none answers there.
    """
    from distributed import Client

    _reach("a Dask scheduler", address)
    # What ends it is told by its futures.
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    try:
        client = Client(address, timeout=PATIENCE, set_as_default=False)
    except Exception as error:
        raise UserError(f"no Dask scheduler answers at {address}: {one_line(error)}") from error
    with client:
        yield DaskWorkers(client)


class DaskWorkers(Executor):
    """The executor of a Dask client, whose futures wait for ever where the scheduler is lost."""

    def __init__(self, client: Any) -> None:
        # Each call is one of its own, whatever was called before.
        self._client, self._executor = client, client.get_executor(pure=False)
        self._open = WeakSet[Future[Any]]()
        threading.Thread(target=self._watch, daemon=True).start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if self._is_closed():
            raise BrokenExecutor(LOST)
        future = self._executor.submit(fn, *args, **kwargs)
        self._open.add(future)
        return future

    def _watch(self) -> None:
        while not self._is_closed():
            time.sleep(PERIOD)
        for future in list(self._open):
            with suppress(InvalidStateError):
                future.set_exception(BrokenExecutor(LOST))

    def _is_closed(self) -> bool:
        return self._client.status in ("closing", "closed")


@contextmanager
def ray(address: str, *_: object) -> Iterator[Executor]:
    """The nodes of a Ray cluster, "HOST:PORT"; what they do for this ends with it.

    Raises:
      UserError: if none answers there.
    """
    import ray

    _reach("a Ray cluster", address)
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:
        raise UserError(f"no Ray cluster answers at {address}: {one_line(error)}") from error
    try:
        yield RayTasks(ray)
    finally:
        ray.shutdown()


class RayTasks(Executor):
    """Ray's tasks as futures, each with a GPU to itself where the cluster has any."""

    def __init__(self, ray: Any) -> None:
        gpus = min(1, ray.cluster_resources().get("GPU", 0))
        self._options = {"num_cpus": 1, "num_gpus": gpus, "max_retries": 0}
        self._remote = ray.remote

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return self._remote(**self._options)(fn).remote(*args, **kwargs).future()


def _reach(what: str, address: str) -> None:
    """Tries an address, since what connects there takes its time, and tells it at length."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdecimal():
        raise UserError(f"the address of {what} is HOST:PORT, not {address!r}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"nobody answers at {address}: {reason}") from error
