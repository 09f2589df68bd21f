"""What `import optzoo` costs beside `import optax`, on which it stands.

    python benchmarks/import_time.py

Fresh interpreters in turn; the least processor time of each, as a busy machine only adds to it.
"""

import argparse
import os
import subprocess
import sys

LIBRARIES = ("optax", "optzoo")
COMPILED = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
"""Where this is set, each import compiles files anew that an installation compiles once."""


def seconds(library: str) -> float:
    """Processor time of an interpreter that imports a library and ends."""
    before = os.times()
    subprocess.run([sys.executable, "-c", f"import {library}"], check=True, env=COMPILED)
    after = os.times()
    children = (after.children_user, after.children_system)
    return sum(children) - before.children_user - before.children_system


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
    taken: dict[str, list[float]] = {library: [] for library in LIBRARIES}
    for _ in range(options.rounds):
        for library in LIBRARIES:
            taken[library].append(seconds(library))
    least = {library: min(times) for library, times in taken.items()}
    print("| import | modules | seconds | beside optax |", "|---|---:|---:|---:|", sep="\n")
    for library in LIBRARIES:
        share = least[library] / least["optax"] - 1
        print(f"| {library} | {modules(library)} | {least[library]:.3f} | {share:+.1%} |")


if __name__ == "__main__":
    main()
