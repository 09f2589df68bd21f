"""Strictness for every test, and what makes thousands of compilations bearable."""

import os
from pathlib import Path

# Tests compile far more than they run: LLVM's passes cost more than they save. XLA's own passes,
# which fuse and rearrange, stay. By the environment, so that child processes do as this one does.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import hypothesis  # noqa: E402
import jax  # noqa: E402
from xdist.scheduler import LoadScopeScheduling  # noqa: E402

import optzoo  # noqa: E402

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Compilation makes the first example of a property far slower than the others.
hypothesis.settings.register_profile("optzoo", deadline=None, max_examples=50, derandomize=True)
hypothesis.settings.load_profile("optzoo")

# Every program holds mappings of memory, of which Linux allows a process 65,530.
TESTS_BETWEEN_CLEARINGS = 1000
_run = 0


def pytest_xdist_make_scheduler(config, log):
    """With `-n`, the tests of one rule in one file share a worker, and with it what it traced."""
    return ByRule(config, log) if config.getvalue("dist") == "loadscope" else None


class ByRule(LoadScopeScheduling):
    """Whole files, apart from the tests of single rules; what needs many devices by function."""

    def _split_scope(self, nodeid):
        function, _, parameters = nodeid.partition("[")
        file = function.partition("::")[0]
        if Path(file).stem == "test_sharding":
            return function
        rules = [part for part in parameters.strip("]").split("-") if part in optzoo.REGISTRY]
        return "::".join([file, *rules[:1]])


def pytest_runtest_teardown():
    """Lets compiled programs go from time to time."""
    global _run
    _run += 1
    if _run % TESTS_BETWEEN_CLEARINGS == 0:
        jax.clear_caches()
