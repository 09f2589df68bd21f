"""Where the processor time of the tests goes: by file, by check or test, and by optimizer.

    python benchmarks/test_cost.py                    the default run, in one process
    python benchmarks/test_cost.py -k "muon or dog"   whatever else pytest understands

Prints Markdown. Nothing is taken from JAX's persistent cache, and child processes count. What is
shared is charged to the test that needed it first; the tests of all optimizers in one process, as
on eight devices, stand in the table of files.
"""

import collections
import os
import sys
import time
from pathlib import Path

os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)

import pytest  # noqa: E402

import optzoo  # noqa: E402
from optzoo.registry import Entry  # noqa: E402

LONGEST = 30


def clock() -> float:
    """Processor time of this process and of the children that have ended, in seconds."""
    return sum(os.times()[:4])


class Meter:
    """Adds up what each test took, under every heading."""

    def __init__(self):
        self.seconds = {title: collections.Counter() for title in ("file", "test", "optimizer")}
        self.tests = {title: collections.Counter() for title in self.seconds}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        start = clock()
        result = yield
        taken = clock() - start
        values = [*getattr(item, "callspec", _Nothing).params.values()]
        names = {value.name if isinstance(value, Entry) else str(value) for value in values}
        check = next((str(v) for v in values if type(v).__name__ == "Check"), item.originalname)
        rule = next(iter(sorted(names & set(optzoo.REGISTRY))), "none of them")
        for title, key in zip(self.seconds, (item.path.name, check, rule), strict=True):
            self.seconds[title][key] += taken
            self.tests[title][key] += 1
        return result


class _Nothing:
    params: dict = {}


def table(title: str, seconds: collections.Counter, tests: collections.Counter) -> str:
    rows = [
        f"| {key} | {tests[key]} | {taken:.1f} |" for key, taken in seconds.most_common(LONGEST)
    ]
    return "\n".join([f"| {title} | tests | seconds |", "|---|---:|---:|", *rows])


def main() -> int:
    meter, start, begun = Meter(), clock(), time.perf_counter()
    os.chdir(Path(__file__).parents[1])
    code = pytest.main(sys.argv[1:], plugins=[meter])
    for title, seconds in meter.seconds.items():
        print("", table(title, seconds, meter.tests[title]), sep="\n")
    wall = time.perf_counter() - begun
    print(f"\nIn all {clock() - start:.0f} s of processor time, {wall:.0f} s by the clock.")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
