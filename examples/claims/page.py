"""Shows what all claims' scripts found: writes their README.md."""

import argparse
import subprocess
import sys
from pathlib import Path

from shared.protocol import FIGURES, Record

import optzoo

HERE = Path(__file__).parent
PAGE = HERE / "README.md"
SCRIPTS = sorted(path for path in HERE.glob("*.py") if path != Path(__file__))
COMMAND = "python examples/claims/page.py"

INTRODUCTION = f"""# What each paper claims, checked

Each script repeats the central claim of a paper at a scale of minutes on two CPU cores. The
protocol stood before the results, and where a first run led to a change, it says so: every rule
gets equally many learning rates, the validation loss chooses among them, and the test split
reports. A finding *holds here* where its whole 95 % interval (Student's t over seeds) lies on the
side that the claim says, *does not hold here* where all of it lies on the other, and is *undecided
at this scale* otherwise; the verdict on a claim rests on the findings in bold. What does not hold
here may hold at the paper's scale: each protocol says what that was.

In the figures, lines are medians over the seeds and bands span all of them. The run times were
taken with nothing else on the two cores.

```sh
{COMMAND} --run   # runs all scripts, and writes this page
{COMMAND}         # writes it from the recorded results
```

The scripts need the extra `compare`."""


def section(stem: str, record: Record) -> str:
    """A claim with its verdict, findings, figure and protocol."""
    entry = optzoo.REGISTRY[record.rule]
    rows = "\n".join(
        f"| {'**' if one.central else ''}{one.text}{'**' if one.central else ''} "
        f"| {one.numbers} | {one.verdict} |"
        for one in record.findings
    )
    return (
        f"## {stem}\n\n{record.title}: **{record.verdict}**. Paper: [{entry.title}]({entry.url}), "
        f"{entry.year}.\n\n"
        f"| finding | mean (95 % interval) | verdict |\n|---|---|---|\n{rows}\n\n"
        f"![{record.title}](figures/{stem}.png)\n\n{record.protocol}\n\n"
        f"`python examples/claims/{stem}.py`: {record.seconds:.0f} s on {record.machine}."
    )


def summary(records: dict[str, Record]) -> str:
    """The table of verdicts."""
    rows = [
        f"| [{record.title}](#{stem}) | {record.verdict} | {record.seconds:.0f} s |"
        for stem, record in records.items()
    ]
    return "\n".join(["| claim | verdict | run time |", "|---|---|---:|", *rows])


def load(folder: Path = FIGURES) -> dict[str, Record]:
    """The recorded results, by script."""
    return {path.stem: Record.load(folder / f"{path.stem}.json") for path in SCRIPTS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", action="store_true", help="run all scripts first")
    if parser.parse_args().run:
        for script in SCRIPTS:
            subprocess.run([sys.executable, script], check=True)
    records = load()
    sections = [section(stem, record) for stem, record in records.items()]
    PAGE.write_text("\n\n".join([INTRODUCTION, summary(records), *sections]) + "\n", "utf-8")


if __name__ == "__main__":
    main()
