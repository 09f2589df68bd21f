"""How a claim is measured and judged: the same for every paper.

Runs go through `optzoo.compare`: learning rates are chosen by the validation loss, from grids of
the same size for every rule, and what is reported comes from the test split unless it says
otherwise. What a paper claims is measured as an effect, how many times better than the rival, so
that all claims stand on one axis; what is of interest beside that is a finding of our own. Each is
an estimate over seeds with its 95 % interval, and the interval alone decides.
"""

import argparse
import dataclasses
import inspect
import json
import math
import platform
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy import stats

import optzoo
from optzoo.compare import Results, run
from optzoo.compare.runner import Progress

HOLDS, FAILS, UNDECIDED = "holds here", "does not hold here", "undecided at this scale"
FIGURES = Path(__file__).parents[1] / "figures"
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Budget:
    """How much of the full experiment to run.

    Attributes:
      share: of its steps; below 1 the result is a smoke test and no evidence.
    """

    share: float = 1.0

    def steps(self, full: int) -> int:
        """Steps of a run that takes `full` of them in the full experiment."""
        return max(8, round(full * self.share))

    def seeds(self, full: int) -> int:
        """Seeds of runs that are repeated `full` times in the full experiment."""
        return full if self.share >= 1 else 2


@dataclass(frozen=True)
class Finding:
    """One number that the claim predicts something about.

    Attributes:
      text: what was measured, and what the paper leads one to expect of it.
      value: the estimate.
      low: lower end of its 95 % interval.
      high: upper end of its 95 % interval.
      verdict: one of `HOLDS`, `FAILS`, `UNDECIDED`.
      form: how the three numbers are written.
      least: of a claim, the effect that it needs, where 1 is no effect; None for a finding that is
        none, on which no verdict rests.
      means: of a claim, the two numbers that are compared, in words.
      paper: of a claim, the lowest and the highest effect that the paper reports, if it has a
        number.
    """

    text: str
    value: float
    low: float
    high: float
    verdict: str
    form: str
    least: float | None = None
    means: str = ""
    paper: Sequence[float] | None = None

    @property
    def statement(self) -> str:
        """What was measured, with what is expected of a claim."""
        if self.least is None:
            return self.text
        means = f" ({self.means})" if self.means else ""
        numbers = " to ".join(f"{number:.3g}" for number in dict.fromkeys(self.paper or ()))
        paper = f"; paper: {numbers}" if numbers else ""
        return f"{self.text}{means}, expected above {self.least:.3g}{paper}"

    @property
    def numbers(self) -> str:
        """The estimate and its interval."""
        value, low, high = (format(number, self.form) for number in self._three)
        return value if low == high else f"{value} ({low} to {high})"

    @property
    def _three(self) -> tuple[float, float, float]:
        return self.value, self.low, self.high


def measured(
    text: str,
    samples: Sequence[float] | np.ndarray,
    *,
    above: float | None = None,
    below: float | None = None,
    ratio: bool = False,
    form: str = ".3g",
) -> Finding:
    """A finding of our own, from one sample a seed; with both bounds, it must lie between them.

    Args:
      text: what was measured and what is expected.
      samples: shape (seeds,), paired differences or ratios where two rules are compared. A single
        one, or equal ones, are taken as exact.
      above: the mean is expected above this.
      below: the mean is expected below this.
      ratio: whether to take the geometric mean, as befits ratios.
      form: how the numbers are written.
    """
    values = np.asarray(samples, float)
    if not np.isfinite(values).all() or (ratio and (values <= 0).any()):
        return Finding(text, math.nan, math.nan, math.nan, UNDECIDED, form)
    value, low, high = interval(np.log(values) if ratio else values, ratio=ratio)
    floor = -math.inf if above is None else above
    ceiling = math.inf if below is None else below
    if floor < low and high < ceiling:
        verdict = HOLDS
    elif high <= floor or low >= ceiling:
        verdict = FAILS
    else:
        verdict = UNDECIDED
    return Finding(text, value, low, high, verdict, form)


def claimed(
    text: str,
    samples: Sequence[float] | np.ndarray,
    *,
    least: float = 1.0,
    means: str = "",
    paper: Sequence[float] | None = None,
) -> Finding:
    """A claim of the paper's abstract, which the verdict rests on.

    Args:
      text: what is compared, and whose over whose; short, for the picture of all claims.
      samples: how many times better than the rival, shape (seeds,); above 1 speaks for the paper.
      least: the effect that the claim needs, below 1 where it is to be no worse than the rival.
      means: the two numbers that are compared, in words.
      paper: the lowest and the highest effect that the paper reports, if it has a number.
    """
    finding = measured(text, samples, above=least, ratio=True)
    return dataclasses.replace(finding, least=least, means=means, paper=paper)


@dataclass(frozen=True)
class Trend:
    """Effects against the logarithm of a size, as a straight line for each seed.

    Attributes:
      sizes: shape (sizes,).
      effects: shape (seeds, sizes).
    """

    sizes: np.ndarray
    effects: np.ndarray

    @property
    def growth(self) -> np.ndarray:
        """What a tenfold size multiplies the effect by, shape (seeds,)."""
        return np.exp(self._lines[0])

    def at(self, sizes: Sequence[float] | np.ndarray) -> np.ndarray:
        """The line at other sizes: estimate and interval, shape (3, sizes)."""
        slopes, shifts = self._lines
        places = np.log10(sizes) - np.log10(self.sizes).mean()
        return np.asarray([interval(shifts + slopes * place, ratio=True) for place in places]).T

    def grows(self, step: str) -> Finding:
        """Whether effects grow with the size; `step` says in words what a tenfold one is."""
        pairs = zip(self.sizes, np.exp(np.log(self.effects).mean(axis=0)), strict=True)
        effects = ", ".join(f"{effect:.2f} at {size:.0f}" for size, effect in pairs)
        return measured(
            f"what {step} multiplies the effect by, above 1 if it grows ({effects})",
            self.growth,
            above=1,
            ratio=True,
        )

    @property
    def _lines(self) -> tuple[np.ndarray, np.ndarray]:
        places = np.log10(self.sizes)
        slopes, shifts = np.polyfit(places - places.mean(), np.log(self.effects).T, 1)
        return slopes, shifts


def interval(samples: np.ndarray, *, ratio: bool = False) -> tuple[float, float, float]:
    """The mean with its 95 % interval (Student's t); samples of a ratio are its logarithms."""
    mean, half = samples.mean(), 0.0
    if len(samples) > 1:
        quantile = stats.t.ppf((1 + CONFIDENCE) / 2, len(samples) - 1)
        half = quantile * samples.std(ddof=1) / len(samples) ** 0.5
    three = np.asarray([mean, mean - half, mean + half])
    value, low, high = (float(number) for number in (np.exp(three) if ratio else three))
    return value, low, high


def overall(findings: Iterable[Finding]) -> str:
    """The verdict on a paper: it holds if all its claims do, and fails if one does."""
    verdicts = {finding.verdict for finding in findings if finding.least is not None}
    if FAILS in verdicts:
        return FAILS
    return UNDECIDED if UNDECIDED in verdicts else HOLDS


def compare(problems: Iterable[Any], optimizers: Iterable[Any], **options: Any) -> Results:
    """`optzoo.compare.run` that tells on stderr how far it is."""
    problems = [problems] if not isinstance(problems, list | tuple) else problems

    def tell(progress: Progress) -> None:
        print(f"[{progress.done}/{progress.total}] {progress.label}", file=sys.stderr)

    return run(problems, optimizers, progress=tell, **options)


def best_rate(results: Results, problem: str, optimizer: str) -> float:
    """The learning rate with the best validation loss."""
    table = results.table.set_index(["problem", "optimizer"])
    return float(table.loc[(problem, optimizer), "learning_rate"])


def curves(
    results: Results,
    problem: str,
    optimizer: str,
    metric: str = "loss",
    *,
    rate: float | None = None,
) -> np.ndarray:
    """A metric of the validation split at every checkpoint, shape (seeds, checkpoints).

    Args:
      results: of `compare`.
      problem, optimizer: their names.
      metric: an entry of what the problem's `evaluate` or `observe` returns.
      rate: the learning rate. Default: the one with the best validation loss.
    """
    rate = best_rate(results, problem, optimizer) if rate is None else rate
    runs = [one for one in results.grids[problem, optimizer].runs if one.rate == rate]
    return np.asarray([one.curves[metric] for one in sorted(runs, key=lambda one: one.seed)])


def checkpoints(results: Results, problem: str) -> np.ndarray:
    """The steps that the points of `curves` belong to."""
    return np.asarray(results.about["problems"][problem]["checkpoints"])


def final(
    results: Results,
    problem: str,
    optimizer: str,
    metric: str = "test_loss",
    *,
    rate: float | None = None,
) -> np.ndarray:
    """A column of `Results.frame`, one value a seed, at the best or the given learning rate."""
    rate = best_rate(results, problem, optimizer) if rate is None else rate
    frame = results.frame
    chosen = frame[
        (frame["problem"] == problem)
        & (frame["optimizer"] == optimizer)
        & (frame["learning_rate"] == rate)
    ]
    return chosen.sort_values("seed")[metric].to_numpy(float)


@dataclass(frozen=True)
class Record:
    """What a script found, as the page shows it.

    Attributes:
      rule: the optimizer's name in the registry.
      title: the claim in a sentence.
      protocol: how it was measured, in paragraphs.
      findings: what was measured.
      verdict: on the claim.
      seconds: of processor time that the script took.
      machine: where.
      share: of the full experiment.
      source: title, address and year of a paper other than the rule's own that makes the claim.
    """

    rule: str
    title: str
    protocol: str
    findings: list[Finding]
    verdict: str
    seconds: float
    machine: str
    share: float
    source: Sequence[str] | None = None

    @property
    def paper(self) -> Sequence[str]:
        """Title, address and year of the paper that makes the claim."""
        entry = optzoo.REGISTRY[self.rule]
        return self.source or (entry.title, entry.url, str(entry.year))

    @classmethod
    def load(cls, path: Path) -> "Record":
        """Reads what `main` wrote."""
        fields = json.loads(path.read_text("utf-8"))
        findings = [Finding(**finding) for finding in fields.pop("findings")]
        return cls(**fields, findings=findings)

    def save(self, path: Path) -> None:
        """Writes it as JSON."""
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n", "utf-8")


def told(docstring: str) -> tuple[str, str]:
    """A script's claim, which its docstring begins with, and its protocol."""
    title, _, protocol = inspect.cleandoc(docstring).partition("\n\n")
    return " ".join(title.split()).rstrip("."), protocol


Experiment = Callable[[Budget], tuple[list[Finding], Any]]


def main(rule: str, experiment: Experiment, *, source: Sequence[str] | None = None) -> None:
    """Runs a claim's experiment from the command line; writes its figure and its record.

    Args:
      rule: the optimizer's name in the registry, which leads to the paper.
      experiment: budget -> findings and a Matplotlib figure. The docstring of its module is the
        claim, a sentence, and the protocol.
      source: as in `Record`.
    """
    module = inspect.getmodule(experiment)
    title, protocol = told(module.__doc__)
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--share", type=float, default=1.0, help="of the steps, to try it out")
    parser.add_argument("--out", type=Path, default=FIGURES, help="folder for figure and record")
    options = parser.parse_args()
    if not 0 < options.share <= 1:
        parser.error(f"--share must be above 0 and at most 1, not {options.share:g}")
    options.out.mkdir(parents=True, exist_ok=True)

    start = time.process_time()
    findings, figure = experiment(Budget(options.share))
    stem = options.out / Path(module.__file__).stem
    figure.savefig(stem.with_suffix(".png"), dpi=110)
    seconds = time.process_time() - start
    record = Record(
        rule=rule,
        title=title,
        protocol=protocol,
        findings=findings,
        verdict=overall(findings),
        seconds=seconds,
        machine=f"{jax.device_count()} x {jax.devices()[0].device_kind}, {platform.machine()}",
        share=options.share,
        source=source,
    )
    record.save(stem.with_suffix(".json"))

    paper, url, year = record.paper
    print(f"{title}\n{paper} ({year}), {url}\n")
    for finding in findings:
        print(f"  {finding.verdict}: {finding.statement}: {finding.numbers}")
    print(f"\nVerdict: {record.verdict}")
    if options.share < 1:
        print(f"(a trial with {options.share:g} of the steps and two seeds, no evidence)")
    print(f"{seconds:.0f} s of processor time, {stem.with_suffix('.png')}")
