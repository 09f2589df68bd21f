"""The command `optzoo`."""

import itertools
import logging
import os
import shlex
import shutil
import sys
import textwrap
import webbrowser
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

EXTRA = {"flax", "matplotlib", "pandas", "plotly", "rich", "sklearn", "typer"}


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line; mistakes end in one line on stderr and exit code 2.

    Args:
      arguments: what follows `optzoo`. Default: the process's own.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        app = _app(shlex.join(["optzoo", *arguments]))
        sys.exit(app(arguments or ["--help"], prog_name="optzoo", standalone_mode=False))
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in EXTRA:
            raise
        _fail(f"this needs {missing}: pip install 'optzoo[compare]'")
    except Exception as error:
        # Typer's own complaints about the command line, whatever version raises them.
        if not hasattr(error, "format_message"):
            raise
        _fail(error.format_message())


def _fail(message: str) -> None:
    print(f"optzoo: {message}", file=sys.stderr)
    sys.exit(2)


def _app(command: str) -> Any:
    """The commands; built on demand, since Typer belongs to the extra `compare`."""
    import typer

    app = typer.Typer(
        help="Optimizers for JAX that follow their papers: look them up, compare them.",
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    out_default = Path("optzoo-results")

    @app.command("compare")
    def compare(
        optimizers: Annotated[
            str | None,
            typer.Option(
                help="Comma-separated names, families, package.module:factory or what these "
                "compose, such as 'schedule_free(adamp),lookahead(muon, period=10),adamw+cosine'; "
                "or all.  [default: the rules of the ten papers that optzoo began with, and the "
                "baselines]"
            ),
        ] = None,
        problems: Annotated[
            str | None,
            typer.Option(
                help="Comma-separated names, groups or package.module:problem; see `optzoo list "
                "--problems`.  [default: four quick ones]"
            ),
        ] = None,
        everything: Annotated[
            bool, typer.Option("--all", help="All problems but the large ones.")
        ] = False,
        lrs: Annotated[
            str | None,
            typer.Option(
                help="Comma-separated learning rates (0.001,0.01), or multiples of each rule's own "
                "default (x0.1,x1,x10).  [default: x0.1,x0.316,x1,x3.16,x10]. A grid of multiples "
                "grows on the side where the best is the outermost, up to three times."
            ),
        ] = None,
        tuner: Annotated[
            str,
            typer.Option(
                help="grid: those learning rates. random:32: so many settings of learning rate, "
                "weight decay, b1, b2 and what else a rule has ranges for. tpe:32: as many, chosen "
                "by Optuna."
            ),
        ] = "grid",
        schedule: Annotated[
            str,
            typer.Option(
                help="Comma-separated schedules, such as constant,cosine,cyclical(period=50); a "
                "rule that owns its schedule keeps it."
            ),
        ] = "constant",
        weight_decay: Annotated[
            float | None,
            typer.Option(help="Held for every rule that has it.  [default: each rule's own]"),
        ] = None,
        seeds: Annotated[int, typer.Option(help="Seeds for every learning rate.")] = 3,
        steps: Annotated[
            int | None,
            typer.Option(
                help="Gradients of a run: its steps, half as many where one costs two.  "
                "[default: the problem's own]"
            ),
        ] = None,
        record: Annotated[
            str,
            typer.Option(
                help="norms: also keep the norms of every step's gradient, from which a later "
                "command with the same --out makes the schedule of RULE+refined."
            ),
        ] = "",
        until: Annotated[
            float | None,
            typer.Option(
                help="Also find the fewest steps that bring every rule's mean test loss below this "
                "loss. Rules that plan to their end are run for each length tried."
            ),
        ] = None,
        confidence: Annotated[
            float, typer.Option(help="Of each one-sided test for --until.")
        ] = 0.95,
        test_seeds: Annotated[
            int, typer.Option(help="Seeds that test for --until, beside those of --seeds.")
        ] = 8,
        out: Annotated[
            Path, typer.Option(help="Folder for the results; a repeated command resumes there.")
        ] = out_default,
        on: Annotated[
            str | None,
            typer.Option(
                help="Where to run: processes:COUNT of this machine, the workers of "
                "dask:HOST:PORT or ray:HOST:PORT, or slurm.  [default: this process, on all its "
                "devices]"
            ),
        ] = None,
        slurm: Annotated[
            list[str] | None,
            typer.Option(
                help="With --on slurm, an option of sbatch as name=value, such as partition=gpu, "
                "gpus_per_node=1, time=60 or array_parallelism=20; as often as need be."
            ),
        ] = None,
        coordinator: Annotated[
            str | None,
            typer.Option(
                help="Share the runs among processes that all got this command: the first one's "
                "host:port, with --processes and --process; or auto on SLURM, MPI and TPU pods."
            ),
        ] = None,
        processes: Annotated[int | None, typer.Option(help="How many processes.")] = None,
        process: Annotated[int | None, typer.Option(help="Which of them, from 0.")] = None,
    ) -> None:
        """Compare optimizers on problems, and write a report."""
        import jax

        from optzoo import compose
        from optzoo.compare import Grid, UserError, machine, run
        from optzoo.compare.engines.start import started
        from optzoo.compare.show import report, terminal

        try:
            machine.join(coordinator, processes, process)
            machine.cache_compilations()
            # A callback's error is told in one line; JAX would print its traceback besides.
            logging.getLogger("jax._src.callback").setLevel(logging.CRITICAL)
            if slurm and not on:
                raise UserError("--slurm needs --on slurm")
            if on:
                # The accelerators are the workers'.
                jax.config.update("jax_platforms", "cpu")
            with (
                started(on, slurm or [], out / "jobs") if on else nullcontext() as executor,
                terminal.Reporter(machine.leads()) as reporter,
            ):
                results = run(
                    ["all"] if everything else _split(problems),
                    None if optimizers is None else compose.split(optimizers),
                    lrs=None if lrs is None else Grid.parse(lrs),
                    tuner=tuner,
                    schedules=compose.split(schedule),
                    weight_decay=weight_decay,
                    seeds=seeds,
                    steps=steps,
                    record=_split(record) or [],
                    until=until,
                    confidence=confidence,
                    test_seeds=test_seeds,
                    out=out,
                    executor=executor,
                    command=command,
                    progress=reporter,
                )
            if not machine.leads():
                return
            written = report.write(results, out)
        except UserError as error:
            if machine.is_joined():
                machine.leave(str(error))
            _fail(str(error))
        except KeyboardInterrupt:
            # On a terminal the ^C that it has echoed stands at the beginning of the line.
            start = "\r" if sys.stderr.isatty() else ""
            print(f"{start}optzoo: stopped; run it again to resume", file=sys.stderr, flush=True)
            # What still computes is not waited for: the store holds whatever is finished.
            os._exit(130)
        terminal.show_results(results)
        print(*map(_printable, (*written, out)), sep="\n")
        sys.exit(int(reporter.failed))

    @app.command("merge")
    def merge_command(
        first: Annotated[Path, typer.Argument(help="The output folder of a comparison.")],
        second: Annotated[Path, typer.Argument(help="Another one.")],
        out: Annotated[
            Path, typer.Option("--out", "-o", help="A new folder, for the runs of both.")
        ],
    ) -> None:
        """Join the results of two comparisons, and write their report."""
        from optzoo.compare import Results, UserError
        from optzoo.compare.keep import folder, merge
        from optzoo.compare.show import report

        try:
            with folder.held(out):
                merge.merge(first, second, out)
                paths = report.write(Results.load(out), out)
        except UserError as error:
            _fail(str(error))
        print(*map(_printable, (*paths, out)), sep="\n")

    @app.command("report")
    def report_command(
        folder: Annotated[Path, typer.Argument(help="The output folder of a comparison.")],
        other: Annotated[
            Path | None, typer.Argument(help="Another one, to be shown in the same report.")
        ] = None,
        csv: Annotated[Path | None, typer.Option(help="Also write all runs to this file.")] = None,
        parquet: Annotated[
            Path | None, typer.Option(help="The same as Parquet (needs pyarrow).")
        ] = None,
        json: Annotated[Path | None, typer.Option(help="The same as JSON records.")] = None,
        png: Annotated[
            Path | None, typer.Option(help="Also draw every chart as a PNG into this folder.")
        ] = None,
        show: Annotated[
            bool, typer.Option("--open", help="Also open the report in the web browser.")
        ] = False,
    ) -> None:
        """Write the report of stored results again, or of two together."""
        from optzoo.compare import Results, UserError
        from optzoo.compare.show import export, report

        try:
            results = Results.load(folder)
            if other is None:
                paths = report.write(results, folder)
            else:
                page, results = report.write_both(results, Results.load(other), folder, other)
                paths = [page]
            paths += export.write(results, csv=csv, parquet=parquet, json=json, png=png)
        except UserError as error:
            _fail(str(error))
        print(*map(_printable, (*paths, folder)), sep="\n")
        if show and not webbrowser.open(paths[0].resolve().as_uri()):
            _fail(f"no web browser is found to open {_printable(paths[0])}")

    @app.command("list")
    def list_command(
        family: Annotated[str | None, typer.Option(help="One family only.")] = None,
        kind: Annotated[
            str | None, typer.Option(help="One kind only: optimizer, wrapper or schedule.")
        ] = None,
        problems: Annotated[
            bool, typer.Option("--problems", help="The problems to compare on instead.")
        ] = False,
    ) -> None:
        """List optimizers, wrappers and schedules by family; or problems."""
        from optzoo import catalog
        from optzoo.registry import KINDS, REGISTRY, named

        if problems:
            print(_problems(_width()))
            return
        try:
            chosen = REGISTRY if family is None else REGISTRY.family(family)
            if kind is not None:
                chosen = chosen.of(kind=named("kind", kind, dict(zip(KINDS, KINDS, strict=True))))
        except ValueError as error:
            _fail(str(error))
        print(catalog.listing(chosen, _width()))

    @app.command("show")
    def show(
        name: Annotated[str, typer.Argument(help="The name of an optimizer, wrapper, schedule.")],
        params: Annotated[
            str | None,
            typer.Option(
                help="package.module:name of a parameter tree, or of a function that makes one: "
                "also show what the optimizer does with each leaf."
            ),
        ] = None,
    ) -> None:
        """Show one entry's rule, defaults, memory, family and paper."""
        from optzoo import catalog

        try:
            leaves = None if params is None else catalog.described(name, params)
            print(catalog.card(name, _width()))
            if leaves is not None:
                print("\nParameters", leaves, sep="\n")
        except ValueError as error:
            _fail(str(error))

    @app.command("check")
    def check(
        target: Annotated[
            str, typer.Argument(help="package.module:name of a factory or a transformation.")
        ],
        arguments: Annotated[
            list[str] | None, typer.Argument(help="Arguments of the factory, as name=value.")
        ] = None,
    ) -> None:
        """Try a transformation on what real training asks of it."""
        from optzoo import testing

        try:
            code = testing.main(target, *(arguments or []))
        except ValueError as error:
            _fail(str(error))
        sys.exit(code)

    return app


def _problems(width: int) -> str:
    """The problems by group, as text for a terminal that is `width` columns wide."""
    from optzoo.problems import PROBLEMS

    width = max(30, min(width, 100))
    column = max(map(len, PROBLEMS)) + 4
    blocks = []
    for group, members in itertools.groupby(PROBLEMS.values(), key=lambda one: one.group):
        lines = [group]
        for one in members:
            name = f"  {one.name}"
            indent = " " * column
            if width < 2 * column:
                # Where there is little room, what a problem is stands below its name.
                lines.append(name)
                name, indent = "", " " * 4
            lines.append(
                textwrap.fill(
                    one.summary,
                    width,
                    initial_indent=name.ljust(len(indent)),
                    subsequent_indent=indent,
                )
            )
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _width() -> int:
    return shutil.get_terminal_size((100, 24)).columns


def _printable(path: Path) -> str:
    """A path, with escapes for the bytes of a name that are no text."""
    return str(path).encode("utf-8", "backslashreplace").decode("utf-8")


def _split(text: str | None) -> list[str] | None:
    if text is None:
        return None
    return list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
