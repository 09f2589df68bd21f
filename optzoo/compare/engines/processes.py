"""Processes of this machine, which end with the one that began them."""

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, BinaryIO, cast

from optzoo.compare import machine


class Processes(ThreadPoolExecutor):
    """An executor of so many processes; the end of one costs no more than its own call.

    Args:
      count: how many.
    """

    def __init__(self, count: int) -> None:
        # Each thread waits for one process.
        super().__init__(count)
        self._idle, self._all = list[_Process](), list[_Process]()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return super().submit(self._call, fn, args, kwargs)

    def _call(self, *call: Any) -> Any:
        process = self._idle.pop() if self._idle else self._started()
        result = process.call(pickle.dumps(call))
        self._idle.append(process)
        if isinstance(result, BaseException):
            raise result
        return result

    def _started(self) -> "_Process":
        self._all.append(_Process())
        return self._all[-1]

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Ends the processes: after what is submitted, or at once where that is not waited for."""
        super().shutdown(wait, cancel_futures=cancel_futures or not wait)
        for process in self._all:
            process.kill()


class _Process:
    """Another Python, which answers one call after the other."""

    def __init__(self) -> None:
        path = [entry or os.getcwd() for entry in sys.path]
        program = f"import sys; sys.path[:] = {path}; from {__name__} import serve; serve()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # The first one would take most of a GPU for itself.
            env={"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} | os.environ,
            # A terminal's Ctrl-C is for whoever began it.
            start_new_session=True,
        )
        self._calls = cast(BinaryIO, self._process.stdin)
        self._answers = cast(BinaryIO, self._process.stdout)

    def call(self, content: bytes) -> Any:
        """The function's result, or the exception that it raised.

        Raises:
          BrokenExecutor: if the process ends before it answers.
        """
        try:
            pickle.dump(content, self._calls)
            self._calls.flush()
            return pickle.load(self._answers)
        # A pipe that another thread has closed is a ValueError.
        except (EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
            self.kill()
            code = self._process.returncode
            ended = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
            raise BrokenExecutor(f"its process {ended}") from error

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._calls, self._answers):
            # What is still to be sent is for nobody.
            with suppress(OSError):
                pipe.close()


def serve() -> None:
    """Answers the calls on standard input on standard output, until there is nobody to ask."""
    calls, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    # What an optimizer or a problem prints must not get between the answers.
    os.dup2(2, 1)
    machine.cache_compilations()
    waiting = SimpleQueue[bytes]()

    def read() -> None:
        try:
            while True:
                waiting.put(pickle.load(calls))
        finally:
            # In the middle of whatever it computes.
            os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        answers.write(_answer(waiting.get()))
        answers.flush()


def _answer(content: bytes) -> bytes:
    try:
        function, arguments, options = pickle.loads(content)
        return pickle.dumps(function(*arguments, **options))
    except Exception as error:
        return pickle.dumps(error)
