"""Finding what users name on the command line."""

import importlib
import sys
from pathlib import Path
from typing import Any


def load(target: str) -> Any:
    """What "package.module:attribute" names, looked for in the current folder too.

    Raises:
      ValueError: where the target is malformed, or importing it fails for whatever reason.
    """
    module, _, attributes = target.partition(":")
    if not module or not attributes:
        raise ValueError(f"expected package.module:name; got {target!r}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = importlib.import_module(module)
        for attribute in attributes.split("."):
            found = getattr(found, attribute)
    except Exception as error:
        raise ValueError(f"{target!r} cannot be loaded: {one_line(error)}") from error
    return found


def one_line(error: BaseException) -> str:
    """The kind of an error and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
