"""Clusters that somebody keeps running."""

import socket
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

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
