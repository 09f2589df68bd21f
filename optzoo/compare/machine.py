"""The machine that a comparison runs on: its memory, its processes, its cache of compilations."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from optzoo.compare.errors import UserError
from optzoo.plugins import one_line

# Several programs run at a time, and results, data and the compiler need room besides.
SHARE = 0.2
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
AUTOMATIC = "auto"
WORTH_CACHING = 0.2


def available() -> float:
    """Bytes that one program may take on each device of this process."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return SHARE * stats["bytes_limit"]
    return SHARE * _host() / jax.local_device_count()


def _host() -> float:
    """The machine's memory, or what a container grants of it."""
    size = float("inf")
    with suppress(AttributeError, ValueError, OSError):
        size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError):
        size = min(size, int(CGROUP_LIMIT.read_text()))
    return size


def join(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Joins the other processes of a comparison; does nothing without a coordinator.

    Args:
      coordinator: "host:port" of the first process, or "auto" where JAX finds the cluster itself.
      processes: how many there are; needless with "auto".
      process: which of them this one is; needless with "auto".

    Raises:
      UserError: if they cannot be joined.
    """
    if coordinator is None:
        if processes is not None or process is not None:
            raise UserError("--processes and --process need --coordinator")
        return
    automatic = coordinator == AUTOMATIC
    if not automatic and (processes is None or process is None):
        raise UserError("--coordinator host:port needs --processes and --process")
    try:
        jax.distributed.initialize(None if automatic else coordinator, processes, process)
    except Exception as error:
        raise UserError(f"cannot join {coordinator!r}: {one_line(error)}") from error


def agree(values: np.ndarray) -> np.ndarray:
    """The first process's array, in every process.

    What a process measures by itself (time, memory, its store) must pass through here before it
    decides on a common program: processes that run different programs wait for each other forever.
    """
    if jax.process_count() == 1:
        return values
    return np.asarray(multihost_utils.broadcast_one_to_all(values))


def leads() -> bool:
    """Whether this is the process that keeps the store and talks to the user."""
    return jax.process_index() == 0


def cache_compilations() -> None:
    """Keeps compiled programs between runs, where JAX_COMPILATION_CACHE_DIR or the user's cache is.

    A folder that cannot be written costs nothing but the time saved.
    """
    if jax.config.values["jax_compilation_cache_dir"]:
        return
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "optzoo" / "xla"
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            jax.config.update("jax_compilation_cache_dir", str(folder))
            jax.config.update("jax_persistent_cache_min_compile_time_secs", WORTH_CACHING)


def compiler_options() -> dict[str, Any]:
    """On CPUs LLVM's costly passes take longer than they save in runs this short."""
    least = jax.config.values["jax_disable_most_optimizations"]
    return {} if least or jax.default_backend() != "cpu" else {"xla_backend_optimization_level": 1}
