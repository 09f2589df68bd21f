"""Shows what all claims' scripts found: writes their README.md."""

import argparse
import hashlib
import subprocess
import sys
from pathlib import Path

from PIL import Image
from shared import drawing
from shared.protocol import FIGURES, Finding, Record

HERE = Path(__file__).parent
PAGE, PICTURE = HERE / "README.md", HERE / "claims.png"
SCRIPTS = sorted(path for path in HERE.glob("*.py") if path != Path(__file__))
COMMAND = "python examples/claims/page.py"

INTRODUCTION = f"""# What each paper claims, checked

Each script repeats what the abstract of a paper claims at a scale of minutes on two CPU cores. The
protocol stood before the results, and where a first run led to a change, it says so: every rule
gets equally many learning rates, the validation loss chooses among them, and the test split
reports. A claim is measured as an effect, how many times better than the rival, where 1 is no
effect. It *holds here* where its whole 95 % interval (Student's t over seeds) lies above what the
claim needs, *does not hold here* where all of it lies below, and is *undecided at this scale*
otherwise. The verdict on a paper rests on its claims, in bold, alone; the other findings are our
own questions. What does not hold here may hold at the paper's scale: each protocol says what that
was.

In the figures, lines are medians over the seeds and bands span all of them. Processor time is what
both cores spend together, compilation included: two idle ones take half of it and a little more.

```sh
{COMMAND} --run   # runs all scripts, and writes this page
{COMMAND}         # writes it from the recorded results
```

The scripts need the extra `compare`."""


def section(stem: str, record: Record) -> str:
    """A claim with its verdict, findings, figure and protocol."""
    paper, url, year = record.paper
    rows = "\n".join(
        f"| {one.statement if one.least is None else f'**{one.statement}**'} "
        f"| {one.numbers} | {one.verdict} |"
        for one in record.findings
    )
    return (
        f"## {stem}\n\n{record.title}: **{record.verdict}**. Paper: [{paper}]({url}), "
        f"{year}.\n\n"
        f"| finding | mean (95 % interval) | verdict |\n|---|---|---|\n{rows}\n\n"
        f"![{record.title}](figures/{stem}.png)\n\n{record.protocol}\n\n"
        f"`python examples/claims/{stem}.py`: {record.seconds:.0f} s of processor time on "
        f"{record.machine}."
    )


def summary(records: dict[str, Record]) -> str:
    """The picture of all claims, and the verdicts with what they lead to."""
    lines = [
        f"| [{record.title}](#{stem}) | {record.verdict} | {record.seconds:.0f} s |"
        for stem, record in records.items()
    ]
    picture = f"![All claims, by verdict and effect]({PICTURE.name})\n"
    head = "| what the paper claims | verdict | processor time |\n|---|---|---:|"
    total = f"| all of them | | {sum(record.seconds for record in records.values()):.0f} s |"
    return "\n".join([picture, head, *lines, total])


def rows(records: dict[str, Record]) -> list[tuple[str, Finding]]:
    """Every claim with the script that measures it."""
    return [(s, one) for s, r in records.items() for one in r.findings if one.least is not None]


def digest(records: dict[str, Record]) -> str:
    """What the picture shows, as it says of itself."""
    shown = [(s, one.text, one.value, one.low, one.high, one.verdict) for s, one in rows(records)]
    return hashlib.sha256(repr(shown).encode()).hexdigest()


def shown(picture: Path = PICTURE) -> str:
    """The digest of the results that a picture was drawn from."""
    with Image.open(picture) as image:
        return image.info["Comment"]


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
    figure = drawing.effects(rows(records))
    figure.savefig(PICTURE, dpi=110, metadata={"Comment": digest(records)})
    PAGE.write_text("\n\n".join([INTRODUCTION, summary(records), *sections]) + "\n", "utf-8")


if __name__ == "__main__":
    main()
