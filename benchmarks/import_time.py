"""What `import optzoo` costs beside `import optax`, on which it stands.

    python benchmarks/import_time.py

Fresh interpreters in turn; the least processor time of each, as a busy machine only adds to it.
Once as it is, and once without Python's collector of cycles: up to Python 3.13 whichever import
happens to cross its threshold pays for a walk through all that JAX has made.
"""

import argparse
import itertools
import os
import resource
import subprocess
import sys

LIBRARIES = ("optax", "optzoo")
COLLECTING = {"seconds": "", "without the collector": "import gc; gc.disable(); "}
COMPILED = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
"""Where this is set, each import compiles files anew that an installation compiles once."""


def seconds(before_it: str, library: str) -> float:
    """Processor time of an interpreter that does what comes before, imports a library and ends."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", f"{before_it}import {library}"], check=True, env=COMPILED)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def modules(library: str) -> int:
    """How many modules the import leaves behind."""
    program = f"import sys, {library}; print(len(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    return int(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20, help="imports of each")
    options = parser.parse_args()
    cases = list(itertools.product(COLLECTING.values(), LIBRARIES))
    taken: dict[tuple[str, str], list[float]] = {case: [] for case in cases}
    for _ in range(options.rounds):
        for case in cases:
            taken[case].append(seconds(*case))
    print(f"| import | modules | {' | '.join(COLLECTING)} |", "|---|---:|---:|---:|", sep="\n")
    for library in LIBRARIES:
        cells = []
        for before_it in COLLECTING.values():
            least, optax = (min(taken[before_it, name]) for name in (library, "optax"))
            cells.append(f"{least:.3f} ({least / optax - 1:+.1%})")
        print(f"| {library} | {modules(library)} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
