"""Whether another process runs the same code."""

import hashlib
import os
import socket
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

from optzoo import plugins
from optzoo.compare.errors import UserError

# These compile what runs; all else that counts is seen in the source.
COMPILERS = ("jax", "jaxlib")


class OtherVersion(UserError):
    """A worker would have computed something else."""


def versions(targets: Iterable[str] = ()) -> dict[str, str]:
    """The versions of optzoo, of JAX and of the code that each "package.module:name" belongs to."""
    return {name: _version(name) for name in ("optzoo", *COMPILERS, *targets)}


def check(expected: Mapping[str, str]) -> None:
    """Compares this process's versions with those of the process that gives out the work.

    Raises:
      OtherVersion: where one is not the same.
    """
    for name, wanted in expected.items():
        found = _version(name)
        if found != wanted:
            place = f"the worker on {socket.gethostname()} (process {os.getpid()})"
            raise OtherVersion(f"{place} has {name} {found}, and this comparison {name} {wanted}")


@cache
def _version(name: str) -> str:
    if name in COMPILERS:
        return metadata.version(name)
    module, _, attribute = name.partition(":")
    if attribute:
        plugins.load(name)
    top = module.partition(".")[0]
    # The top of a namespace has no file, nor has what was made on the fly.
    files = [getattr(sys.modules[name], "__file__", None) for name in (top, module)]
    digest = hashlib.sha256()
    for path in _sources(next(filter(None, files), None)):
        digest.update(path.read_bytes())
    version = getattr(sys.modules[top], "__version__", "")
    return f"{version} (source {digest.hexdigest()[:8]})".strip()


def _sources(file: str | None) -> list[Path]:
    if file is None:
        return []
    path = Path(file)
    return sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]
