"""Finding what users name on the command line."""

import importlib
import sys
import textwrap
from pathlib import Path
from typing import Any

# JAX says first what it expects, and only then which shapes it got.
LONGEST = 400


def load(target: str) -> Any:
    """What "package.module:attribute" names, looked for in the current folder too.

    Raises:
      ValueError: where the target is malformed, or importing it fails for whatever reason.
    """
    module, _, attributes = target.partition(":")
    if not module or not attributes:
        raise ValueError(f"expected package.module:name; got {target!r}")
    try:
        # The current folder may have been deleted.
        here = str(Path.cwd())
        if here not in sys.path:
            sys.path.insert(0, here)
        found = importlib.import_module(module)
        for attribute in attributes.split("."):
            found = getattr(found, attribute)
    except Exception as error:
        raise ValueError(f"{target!r} cannot be loaded: {one_line(error)}") from error
    return found


def one_line(error: BaseException) -> str:
    """The kind of an error and its message, cut where it is long.

    Of a message that holds a traceback, as those of callbacks do, the last line: the reason.
    """
    message = str(error).strip()
    if "Traceback (most recent call last)" in message:
        message = message.splitlines()[-1]
    words = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return textwrap.shorten(words, LONGEST, placeholder=" …")
