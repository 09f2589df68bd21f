"""The folder of a comparison, for one comparison at a time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from optzoo.compare.errors import UserError

LOCK_NAME = "results.lock"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Makes a folder if need be, and keeps other comparisons out of it.

    The system lets go of the lock when this process ends, however it ends; where there are no such
    locks, nobody is kept out.

    Raises:
      UserError: if nothing can be written there, or another comparison is at work.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _locked(folder / LOCK_NAME)
    except BlockingIOError as error:
        raise UserError(
            f"another comparison is at work in {folder}: wait for it, or use another folder"
        ) from error
    except (OSError, ValueError) as error:
        # A name with a null character is a ValueError.
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot write to {folder}: {reason}") from error
    try:
        yield
    finally:
        (folder / LOCK_NAME).unlink(missing_ok=True)
        os.close(file)


def _locked(path: Path) -> int:
    """An open file that nobody else has locked under this name."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(file)
            # Else its last holder has just removed it, and a third one may hold its successor.
            if path.exists() and os.path.samestat(path.stat(), os.fstat(file)):
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _lock(file: int) -> None:
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return  # A file system without locks.
