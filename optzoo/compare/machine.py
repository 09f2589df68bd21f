"""The machine that a comparison runs on: its memory, its processes, its cache of compilations."""

import ctypes
import os
import platform
import signal
import sys
import tempfile
import threading
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from optzoo.compare.errors import UserError
from optzoo.plugins import one_line

# Several programs run at a time, and results, data and the compiler need room besides.
SHARE = 0.2
PROCESSORS = Path("/proc/cpuinfo")
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
AUTOMATIC = "auto"
WORTH_CACHING = 0.2
# Threads of their own send the heartbeats, however busy a process is.
HEARTBEAT_SECONDS = 10
LOG_BYTES = 1 << 20
_LAST_WORD = threading.Lock()


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


@cache
def device() -> str:
    """How many devices of which kind programs run on: times are compared only where it is equal."""
    kind = jax.devices()[0].device_kind
    if kind == "cpu":
        cores = getattr(os, "process_cpu_count", os.cpu_count)()
        kind = f"cpu, {_processor()}, {cores} cores"
    return f"{jax.device_count()} x {kind}"


def _processor() -> str:
    with suppress(OSError):
        for line in PROCESSORS.read_text("utf-8", "replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


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
    # Else a process that is told to end only takes note of it.
    if "jax_enable_preemption_service" in jax.config.values:
        jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            None if automatic else coordinator,
            processes,
            process,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except Exception as error:
        raise UserError(f"cannot join {coordinator!r}: {one_line(error)}") from error
    _end_in_one_line()


def is_joined() -> bool:
    """Whether there are other processes, which wait for this one."""
    return jax.distributed.is_initialized()


def leave(message: str) -> None:
    """Ends this process at once with a line on stderr and exit code 2, whatever others wait for."""
    if not _LAST_WORD.acquire(blocking=False):
        time.sleep(60)  # Another thread is just ending the process.
    print(f"optzoo: {message}", file=sys.stderr, flush=True)
    os._exit(2)


def _end_in_one_line() -> None:
    """Makes the loss of a joined process an orderly end.

    JAX notices it in a thread of its own, writes a C++ stack trace and aborts. What it writes is
    put aside from now on, and the abort, which runs in that thread, calls `leave`.
    """
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)

    def aborted(_: int) -> None:
        with tempfile.NamedTemporaryFile(prefix="optzoo-", suffix=".log", delete=False) as log:
            log.write(os.pread(2, LOG_BYTES, 0))
        leave(f"a joined process has ended or is out of reach; what JAX says is in {log.name}")

    # Python's own handlers run in the main thread, and only after the abort.
    _KEPT.append(ctypes.CFUNCTYPE(None, ctypes.c_int)(aborted))
    ctypes.CDLL(None).signal(int(signal.SIGABRT), _KEPT[-1])


# What C calls must not be collected.
_KEPT: list[object] = []


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
