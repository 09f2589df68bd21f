"""Clusters that somebody keeps running."""

import logging
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import Any

from optzoo.compare.errors import UserError
from optzoo.plugins import one_line

# Seconds until a scheduler counts as out of reach.
PATIENCE = 10


@contextmanager
def dask(address: str, *_: object) -> Iterator[Executor]:
    """The workers of a Dask scheduler, "HOST:PORT"; what they have not begun ends with this.

    Raises:
      UserError: if none answers there.
    """
    from distributed import Client

    _reach("a Dask scheduler", address)
    try:
        client = Client(address, timeout=PATIENCE, set_as_default=False)
    except Exception as error:
        raise UserError(f"no Dask scheduler answers at {address}: {one_line(error)}") from error
    with client:
        # Each call is one of its own, whatever was called before.
        yield client.get_executor(pure=False)


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
        yield _Tasks(ray)
    finally:
        ray.shutdown()


class _Tasks(Executor):
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
