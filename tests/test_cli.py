import os
import signal
import subprocess
import sys
import textwrap

import jax
import pytest
from rich.console import Console

from optzoo import REGISTRY, cli
from optzoo.compare import Results
from optzoo.compare.show import terminal
from optzoo.problems import PROBLEMS

TINY = "compare --problems rosenbrock --optimizers sgd --steps 4 --seeds 2".split()
PROGRAM = "from optzoo.cli import main; main()"


def call(*arguments):
    """The exit code of `optzoo ARGUMENTS`."""
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    return stop.value.code or 0


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setattr(sys, "path", sys.path.copy())
    yield
    jax.config.update("jax_compilation_cache_dir", None)


def test_compare_writes_everything_and_says_where_last(tmp_path, capsys):
    out = tmp_path / "new" / "out"
    assert call(*TINY, "--out", out) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == str(out)
    assert {p.name for p in out.iterdir()} == {"report.html", "results.csv", "results.sqlite"}
    assert any("sgd" in line for line in lines)
    assert call(*TINY, "--out", out) == 0
    assert "were in the results already" in capsys.readouterr().err


def test_report_is_rebuilt(tmp_path, capsys, monkeypatch):
    call(*TINY, "--out", "out")
    (tmp_path / "out" / "report.html").unlink()
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert call("report", "out") == 0 and not opened
    assert call("report", "out", "--open") == 2
    assert opened == [(tmp_path / "out" / "report.html").as_uri()]
    assert "no web browser" in capsys.readouterr().err
    monkeypatch.setattr("webbrowser.open", lambda address: True)
    assert call("report", "out", "--open") == 0
    assert (tmp_path / "out" / "report.html").exists()
    assert capsys.readouterr().out.splitlines()[-1] == "out"


def test_a_report_of_two_comparisons_and_exports(tmp_path, capsys):
    call(*TINY, "--out", "a")
    call(*TINY, "--out", "b", "--schedule", "constant,cosine", "--weight-decay", "0.1")
    assert "sgd+cosine" in capsys.readouterr().out
    exports = ["--csv", "runs.csv", "--json", "runs.json", "--png", "pictures"]
    assert call("report", "a", "b", *exports) == 0
    written = capsys.readouterr().out.splitlines()
    assert written[:3] == ["a/report-with-b.html", "runs.csv", "runs.json"]
    assert all((tmp_path / path).exists() for path in written)
    assert "sgd+cosine" in (tmp_path / "runs.csv").read_text()
    assert call("report", "a", "missing") == 2
    assert "missing holds no results" in capsys.readouterr().err


def test_two_stores_are_joined(tmp_path, capsys):
    both = [*TINY, "--optimizers", "sgd,lion"]
    call(*both, "--out", "both", "--on", "processes:1")
    call(*TINY, "--out", "a")
    call(*TINY, "--out", "b", "--optimizers", "lion,sgd")
    call(*TINY, "--out", "longer", "--steps", "5")
    capsys.readouterr()
    assert call("merge", "a", "b", "-o", "c/d") == 0
    assert capsys.readouterr().out.splitlines() == ["c/d/report.html", "c/d/results.csv", "c/d"]
    joined, whole = (Results.load(tmp_path / name) for name in ("c/d", "both"))
    key = ["optimizer", "learning_rate", "seed"]
    frames = [one.frame.drop(columns="seconds").sort_values(key) for one in (joined, whole)]
    assert len(frames[0]) and frames[0].equals(frames[1].set_index(frames[0].index))
    assert joined.about["optimizers"] == ["sgd", "lion"]
    # What the joined store holds is not repeated, from whichever part it comes.
    assert call(*both, "--out", "c/d") == 0
    assert "in the results already" in capsys.readouterr().err
    for arguments, words in (
        (["a", "longer", "-o", "e"], "a and longer cannot be merged: rosenbrock has other steps"),
        (["a", "missing", "-o", "e"], "missing holds no results"),
        (["a", "b", "-o", "c/d"], "c/d holds results already"),
    ):
        assert call("merge", *arguments) == 2
        assert words in capsys.readouterr().err and not (tmp_path / "e" / "results.sqlite").exists()


def test_results_fit_eighty_columns(capsys):
    rules = "schedule_free_radam,schedule_free_sgd,sgd"
    assert call(*TINY, "--problems", "rosenbrock,rosenbrock_100", "--optimizers", rules) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80


def test_narrow_terminals_show_fewer_columns_and_whole_names(capsys, monkeypatch):
    def lines(width):
        monkeypatch.setattr(terminal, "_console", lambda: Console(width=width))
        terminal.show_results(Results.load("out"))
        shown = capsys.readouterr().out.splitlines()
        assert max(len(line.rstrip()) for line in shown) <= width
        return shown

    rules = "schedule_free_radam,schedule_free_sgd,sgd"
    call(*TINY, "--optimizers", rules, "--out", "out")
    capsys.readouterr()
    narrow, wide = lines(40), lines(80)
    assert narrow[0].split()[:3] == ["optimizer", "rank", "ties"] and "diverged" not in narrow[0]
    assert "diverged" in wide[0] and "A wider terminal" not in wide[-1]
    assert narrow[-1] == "A wider terminal shows more columns."
    assert {line.split()[0] for line in narrow[2:5]} == set(rules.split(","))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--schedule", "cosin"], "unknown schedule"),
        (["--weight-decay", "-1"], "weight decay"),
        (["--problems", "landscape"], "did you mean 'landscapes'"),
        (["--processes", "2"], "--coordinator"),
        (["--on", "proceses:2"], "unknown engine 'proceses': did you mean 'processes'?"),
        (["--on", "processes:0"], "a whole number from 1 up, not '0'"),
        (["--optimizers", "sgdd"], "did you mean 'sgd'"),
        (["--optimizers", ","], "empty"),
        (["--problems", "rosenbrok"], "did you mean 'rosenbrock'"),
        (["--lrs", ","], "empty"),
        (["--lrs", "0.1,0"], "positive"),
        (["--lrs", "x-1"], "positive"),
        (["--seeds", "0"], "seeds"),
        (["--seeds", "many"], "--seeds"),
        (["--steps", "-3"], "steps"),
        (["--nonsense"], "--nonsense"),
        (["--out", "file/out"], "cannot write"),
        (["--optimizers", "no_such_module:rule"], "no_such_module"),
        (["--optimizers", "plugin:missing"], "missing"),
        (["--optimizers", "plugin:number"], "number"),
        (["--optimizers", "plugin:no_rate"], "learning_rate"),
        (["--optimizers", "plugin:fails"], "out of order"),
        (["--optimizers", "broken_plugin:rule"], "one third"),
        (["--problems", "plugin:number"], "not an optzoo Problem"),
        (["--problems", "plugin:fails"], "out of order"),
        (["--problems", "plugin:untraceable"], "cannot be traced"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing_behind(tmp_path, capsys, arguments, words):
    (tmp_path / "file").touch()
    (tmp_path / "broken_plugin.py").write_text("raise RuntimeError('one third\\nof a message')")
    (tmp_path / "plugin.py").write_text(
        textwrap.dedent("""
            from optzoo.problems import Problem
            number = 3
            def no_rate(x): ...
            def fails(learning_rate=0.1): raise RuntimeError("out of order")
            def loss(x, key): return x if x > 0 else -x
            untraceable = Problem(lambda key: 1.0, loss, lambda x, s: {"loss": x}, 1, 0.0)
        """)
    )
    assert call(*TINY, "--out", "out", *arguments) == 2
    output = capsys.readouterr()
    assert output.err.count("\n") == 1 and words in output.err
    assert not (tmp_path / "out").exists()


def test_plugins(tmp_path, capsys):
    (tmp_path / "mine.py").write_text(
        textwrap.dedent("""
            import jax.numpy as jnp
            import optax
            from optzoo.problems import Problem

            def bowl():
                return Problem(
                    init=lambda key: jnp.ones(2),
                    loss=lambda x, batch: jnp.sum(x**2),
                    evaluate=lambda x, split: {"loss": jnp.sum(x**2)},
                    steps=3,
                    target=0.1,
                )

            def rule(learning_rate, *, total_steps):
                return optax.sgd(learning_rate / total_steps)
        """)
    )
    arguments = ["--optimizers", "mine:rule,optax:sgd", "--problems", "mine:bowl", "--lrs", "0.1"]
    assert call("compare", *arguments, "--out", "out") == 0
    assert "mine:rule" in capsys.readouterr().out


def test_an_engine_that_is_not_installed_names_the_command(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert call(*TINY, "--on", "dask:127.0.0.1:1") == 2
    assert "needs distributed: pip install 'optzoo[dask]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("nowhere", "the address of a Dask scheduler is HOST:PORT, not 'nowhere'"),
        ("127.0.0.1:1", "nobody answers at 127.0.0.1:1: Connection refused"),
    ],
)
def test_a_scheduler_out_of_reach_is_told_in_one_line(tmp_path, capsys, address, words):
    pytest.importorskip("distributed", reason="needs Dask: pip install 'optzoo[dask]'")
    assert call(*TINY, "--out", "out", "--on", f"dask:{address}") == 2
    assert capsys.readouterr().err == f"optzoo: {words}\n" and not (tmp_path / "out").exists()


@pytest.mark.parametrize("missing", ["flax", "pandas", "plotly", "rich", "typer"])
def test_a_missing_extra_names_the_command(missing):
    program = f"import sys; sys.modules[{missing!r}] = None; {PROGRAM}"
    arguments = ["compare", "--problems", "digits", "--steps", "1"]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "pip install 'optzoo[compare]'" in done.stderr


def test_survives_being_killed(tmp_path):
    arguments = [sys.executable, "-c", PROGRAM, *TINY, "--optimizers", "sgd,lion", "--out", "out"]
    first = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert first.stderr.readline().startswith("[1/2]")
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    again = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert "were in the results already" in again.stderr
    assert (tmp_path / "out" / "report.html").exists()


def test_help_loads_nothing_of_the_comparison():
    heavy = {"flax", "pandas", "plotly", "sklearn"}
    program = f"""
import sys
from optzoo.cli import main
try:
    main(["--help"])
finally:
    print({heavy!r} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "compare" in done.stdout and done.stdout.rstrip().endswith("set()")


def test_list_and_show(capsys):
    assert call("list") == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in REGISTRY)
    assert call("list", "--problems") == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in PROBLEMS)
    name = next(iter(REGISTRY))
    assert call("show", name) == 0
    assert name in capsys.readouterr().out
    assert call("show", name + "x") == 2
    assert "did you mean" in capsys.readouterr().err
    assert call("show", REGISTRY[name].family) == 2
    assert "is a family: name one of its members" in capsys.readouterr().err


@pytest.mark.parametrize("width", [40, 80])
def test_the_list_is_by_family_and_fits(capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    assert call("list") == 0
    lines = capsys.readouterr().out.splitlines()
    heads = [line.partition(":")[0] for line in lines if line and line[0] != " "]
    assert {*REGISTRY.families} <= {*heads}
    assert all(len(line) <= width or line.startswith("    https://") for line in lines)
    assert call("list", "--problems") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "landscapes" in lines and max(map(len, lines)) <= width
    assert all(one.summary in " ".join(map(str.strip, lines)) for one in PROBLEMS.values())
    assert call("show", "muon") == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= width or "https://" in line for line in lines)


def test_the_list_can_be_narrowed(capsys):
    assert call("list", "--family", "averaged", "--kind", "wrapper") == 0
    listed = capsys.readouterr().out
    assert "lookahead (wrapper)" in listed and "schedule_free_sgd" not in listed
    for wrong, words in {"--family": "unknown family", "--kind": "unknown kind"}.items():
        assert call("list", wrong, "matrx") == 2
        assert words in capsys.readouterr().err


def test_without_arguments_help_is_shown(capsys):
    assert call() == 0
    assert "compare" in capsys.readouterr().out
