"""What users hand over: it works, or one sentence says before any run why it does not."""

import csv
import dataclasses
import functools
import io
import json
import os
import re
import sqlite3
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optzoo import plugins
from optzoo.compare import Grid, Progress, UserError, run
from optzoo.compare.keep.store import STORE_NAME, Store
from optzoo.compare.show import export, report
from optzoo.compare.show.terminal import ECHO, Reporter
from optzoo.problems import Problem


def adamp(learning_rate=0.1):
    return optax.sgd(learning_rate)


def loss(params, _):
    return jnp.sum(params**2)


BOWL = Problem(lambda key: jnp.ones(2), loss, lambda p, _: {"loss": loss(p, None)}, 3, 0.1)


def compare(optimizers=(adamp,), problems=(BOWL,), **options):
    return run(problems, optimizers, **({"lrs": [0.1], "seeds": 1} | options))


def named(name):
    def rule(learning_rate=0.1):
        return optax.sgd(learning_rate)

    rule.__name__ = name
    return rule


def test_equal_names_get_numbers():
    first = lambda learning_rate: optax.sgd(learning_rate)  # noqa: E731
    second = lambda learning_rate: optax.sign_sgd(learning_rate)  # noqa: E731
    rules = [adamp, "adamp", first, second, functools.partial(adamp), first]
    results = compare(rules, [BOWL, dataclasses.replace(BOWL, steps=4)])
    names = ["adamp", "adamp (2)", "<lambda>", "<lambda> (2)", "adamp (3)"]
    assert results.about["optimizers"] == names
    assert list(results.about["problems"]) == ["problem", "problem (2)"]
    assert len(results.grids) == 2 * len(names)
    losses = results.table[results.table["problem"] == "problem"].set_index("optimizer")
    # Each is what it says: the user's moves otherwise than ours of the same name.
    found = losses["test_loss"]
    assert found["adamp (2)"] == found["<lambda>"] == found["adamp (3)"]
    assert len({found["adamp (2)"], found["adamp"], found["<lambda> (2)"]}) == 3


def with_default(rate):
    def rule(learning_rate=rate):
        return optax.sgd(learning_rate)

    return rule


def broken(params, split):
    def fail():
        raise KeyError("no such file")

    return {"loss": jax.pure_callback(fail, jax.ShapeDtypeStruct((), "float32"))}


def scanned(params, _):
    return jax.lax.scan(lambda c, _: (c[:1], None), params, None, length=2)[0].sum()


MISTAKES = {
    "zero": ({"optimizers": [with_default(0.0)]}, "default learning_rate must be .*, not 0"),
    "nan": ({"optimizers": [with_default(np.nan)]}, "default learning_rate must be .*, not nan"),
    "negative": ({"optimizers": [with_default(-1)]}, "default learning_rate must be .*, not -1"),
    "half a seed": ({"seeds": 1.5}, "seeds must be a whole number, not 1.5"),
    "steps": ({"steps": "9"}, "steps must be a whole number, not '9'"),
    "decay": ({"weight_decay": "1"}, "weight decay must be a number from 0 up, not '1'"),
    "rates": ({"lrs": ["1"]}, "must be positive numbers, not '1'"),
    "near": ({"lrs": [0.1, 0.10001]}, "0.1 and 0.10001 must differ in their first three digits"),
    "null": ({"out": "a\0b"}, "cannot write to .*null"),
}
FAULTY = {
    "target": ({"target": None}, "target must be a number, not None"),
    "no number": ({"target": float("nan")}, "target must be a number, not nan"),
    "steps": ({"steps": 2.5}, "steps must be a whole number, not 2.5"),
    "box": ({"box": (0, 1)}, r"box must be four numbers, not \(0, 1\)"),
    "no heights": ({"box": (0, 1, 0, 1)}, "cannot be traced"),
    "callback": ({"evaluate": broken}, "cannot be evaluated: .*KeyError: 'no such file'$"),
    "shapes": ({"loss": scanned}, r"has type float32\[2\] but .* has type float32\[1\]"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_told_before_anything_runs(mistake):
    options, words = MISTAKES[mistake]
    with pytest.raises(UserError, match=words):
        compare(**options, progress=lambda _: pytest.fail("something ran"))


@pytest.mark.parametrize("fault", FAULTY)
def test_faulty_problems_are_told_before_anything_runs(fault):
    changes, words = FAULTY[fault]
    with pytest.raises(UserError, match=words) as told:
        compare(problems=[dataclasses.replace(BOWL, **changes)])
    assert "\n" not in str(told.value)


def test_multiples_must_lie_apart_far_enough_to_stay_apart_when_rounded():
    with pytest.raises(UserError, match="1.0 and 1.001 must differ by 2% at least"):
        Grid.parse("x1,x1.001")
    grid = Grid.parse("x1,x1.02,x1.05")
    for default in np.geomspace(1e-3, 1e-2, 200):
        rates = grid.rates(float(default))
        assert len({*rates, *grid.beyond(rates, rates[-1])}) == 6


def test_numbers_of_numpy_are_numbers():
    task = dataclasses.replace(BOWL, target=np.float32(0.1), steps=np.int64(3))
    assert compare(problems=[task], seeds=np.int32(1)).about["seeds"] == 1


def test_a_deleted_working_directory_is_one_line(tmp_path):
    # After the imports: jaxlib 0.12 cannot be imported there.
    code = "import os, sys; from optzoo.cli import main; os.rmdir(os.getcwd()); main(sys.argv[1:])"
    for options in (["--optimizers", "mine:rule"], ["--optimizers", "sgd"]):
        folder = tmp_path / "gone"
        folder.mkdir()
        command = [sys.executable, "-c", code, "compare", "--problems", "saddle", *options]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        assert "No such file or directory" in done.stderr


def test_folders_whose_names_are_no_text(tmp_path, capsys):
    from optzoo.cli import main

    folder = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    command = f"compare --problems saddle --optimizers sgd --lrs 0.1 --steps 2 --out {folder}"
    with pytest.raises(SystemExit) as ended:
        main(command.split())
    assert not ended.value.code
    assert "\\udcff/report.html" in capsys.readouterr().out
    assert os.listdir(folder)


def test_names_are_harmless_in_the_page_and_in_spreadsheets(tmp_path):
    names = ["<!--<script>", "=1+1", "@a", "-b", "+c", "plain"]
    results = compare([named(name) for name in names])
    page, table = report.write(results, tmp_path)
    text = page.read_text("utf-8")
    embedded = re.search(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', text, re.S)
    assert "<" not in embedded[1] and "<!--<script>" in json.dumps(json.loads(embedded[1]))
    rows = {row["optimizer"] for row in csv.DictReader(io.StringIO(table.read_text("utf-8")))}
    assert rows == {"<!--<script>", "'=1+1", "'@a", "'-b", "'+c", "plain"}
    assert set(results.frame["optimizer"]) == set(names)
    export.write(results, csv=tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == table.read_bytes()


def test_the_progress_line_fits_narrow_terminals(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Reporter() as reporter:
        reporter(Progress(12, 180, "schedule_free_adamw on rosenbrock", 1, 0, 75.0))
    plain = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", screen.getvalue())
    lines = [line for line in re.split(r"[\r\n]+", plain) if "12/180" in line]
    assert lines
    assert all("1 min 15 s left" in line and len(line) <= 40 - ECHO for line in lines)


def test_stores_that_cannot_be_used_are_closed(tmp_path, monkeypatch):
    connect, opened = sqlite3.connect, []
    monkeypatch.setattr(
        sqlite3, "connect", lambda *a, **k: opened.append(connect(*a, **k)) or opened[-1]
    )
    path = tmp_path / STORE_NAME
    path.write_bytes(b"no database " * 400)
    with pytest.raises(UserError):
        Store(path)
    path.unlink()
    connect(path).execute("PRAGMA user_version = 99").connection.close()
    with pytest.raises(UserError):
        Store(path)
    assert len(opened) == 2
    for database in opened:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            database.execute("SELECT 1")


def test_errors_are_one_line_with_the_reason():
    error = TypeError("sizes differ:\n\n  one is 3\n  one is 4")
    assert plugins.one_line(error) == "TypeError: sizes differ: one is 3 one is 4"
    assert plugins.one_line(ValueError()) == "ValueError"
    long = plugins.one_line(ValueError("word " * 1000))
    assert len(long) <= plugins.LONGEST and long.endswith(" …")
