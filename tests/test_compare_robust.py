"""Stops, crowds and full disks: at most the running cell is lost, and one sentence says why."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import jax
import jax.numpy as jnp
import optax
import pytest

from optzoo.compare import Results, UserError, machine, run
from optzoo.compare.keep.folder import LOCK_NAME
from optzoo.compare.keep.store import STORE_NAME, Run, Store
from optzoo.compare.plan.tuners import Trial
from optzoo.problems import Problem

PROGRAM = "from optzoo.cli import main; main()"
SAME = "compare --problems saddle --steps 5 --seeds 2 --out out"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


def descent(learning_rate=0.1):
    return optax.sgd(learning_rate)


def bowl(steepness=1.0):
    def loss(params, _):
        return steepness * jnp.sum(params**2)

    return Problem(
        lambda key: jnp.ones(2), loss, lambda p, _: {"loss": loss(p, None)}, 4, 0.1, name="bowl"
    )


def start(command, folder, **options):
    arguments = [sys.executable, "-c", PROGRAM, *command.split()]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(arguments, cwd=folder, **pipes, **options)


def free_address():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def is_sound(folder):
    with closing(sqlite3.connect(folder / "out" / STORE_NAME)) as database:
        return database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_ctrl_c_keeps_what_is_finished(tmp_path):
    # All optimizers: with a few, the comparison may be over before the signal arrives.
    # A shell's background jobs ignore it, and so would the process: one that handles it passes
    # on the default instead, without the fork that a function before exec would need.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = start(SAME, tmp_path)
    signal.signal(signal.SIGINT, inherited)
    assert process.stderr.readline().startswith("[1/")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "optzoo: stopped; run it again to resume"
    assert "Traceback" not in errors and is_sound(tmp_path)
    assert len(Results.load(tmp_path / "out").frame) >= 10


def test_a_second_comparison_in_a_folder_is_told_so_at_once(tmp_path):
    first = start(SAME, tmp_path)
    assert first.stderr.readline().startswith("[1/")
    with pytest.raises(UserError, match="another comparison is at work in .*out: wait for it"):
        run([bowl()], [descent], out=tmp_path / "out", progress=lambda _: pytest.fail("it ran"))
    first.kill()
    first.communicate()
    # A lock does not outlive its holder, whose file does.
    assert (tmp_path / "out" / LOCK_NAME).exists()
    assert len(run([bowl()], [descent], lrs=[0.1], seeds=1, out=tmp_path / "out").frame) == 1
    assert not (tmp_path / "out" / LOCK_NAME).exists() and is_sound(tmp_path)


def test_joined_processes_share_the_runs(tmp_path):
    joined = f"{SAME} --optimizers sgd,lion --coordinator {free_address()} --processes 2 --process"
    alone = start(f"{SAME} --optimizers sgd,lion".replace("out out", "out alone"), tmp_path)
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    processes = [start(f"{joined} {index}", tmp_path, env=environment) for index in range(2)]
    outcomes = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outcomes
    assert outcomes[0][0].rstrip().endswith("out") and "sgd" not in outcomes[1][0]
    alone.communicate(timeout=60)
    both, one = (Results.load(tmp_path / name).frame for name in ("out", "alone"))
    assert both["learning_rate"].equals(one["learning_rate"])
    assert (abs(both["test_loss"] - one["test_loss"]) < 1e-6).all()
    assert Results.load(tmp_path / "out").devices[0].startswith("2 x cpu")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--processes 2", "need --coordinator"),
        ("--coordinator 127.0.0.1:1", "needs --processes and --process"),
    ],
)
def test_processes_need_to_know_each_other(options, words, tmp_path):
    process = start(f"{SAME} {options}", tmp_path)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2 and words in errors and errors.count("\n") == 1


JOINED = """
import sys, time
from optzoo.compare import machine
machine.join(sys.argv[1], 2, int(sys.argv[2]))
print("joined", flush=True)
time.sleep(100)
"""


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_the_other_in_one_line(killed, tmp_path):
    address = free_address()
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "TMPDIR": str(tmp_path)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    commands = [[sys.executable, "-c", JOINED, address, str(index)] for index in range(2)]
    processes = [subprocess.Popen(one, env=environment, **pipes) for one in commands]
    assert [process.stdout.readline() for process in processes] == ["joined\n"] * 2
    processes[killed].kill()
    _, errors = processes[1 - killed].communicate(timeout=30)
    processes[killed].communicate()
    assert processes[1 - killed].returncode == 2
    assert errors.startswith("optzoo: a joined process has ended") and errors.count("\n") == 1
    (log,) = tmp_path.iterdir()
    assert str(log) in errors and log.read_text()


def test_a_process_killed_at_work_ends_the_other(tmp_path):
    joined = f"{SAME} --coordinator {free_address()} --processes 2 --process"
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    leader, other = [start(f"{joined} {index}", tmp_path, env=environment) for index in range(2)]
    assert leader.stderr.readline().startswith("[1/")
    other.terminate()
    _, errors = leader.communicate(timeout=30)
    other.communicate()
    assert leader.returncode == 2 and other.returncode == -signal.SIGTERM
    assert errors.splitlines()[-1].startswith("optzoo: ")
    assert errors.count("optzoo: ") == 1 and "Traceback" not in errors


@pytest.mark.parametrize("workers", [0, 1])
def test_a_full_disk_loses_nothing(tmp_path, monkeypatch, workers):
    executor = ThreadPoolExecutor(workers) if workers else None
    run([bowl()], [descent], lrs=[0.1], out=tmp_path)
    connect = sqlite3.connect

    def full(*arguments, **options):
        database = connect(*arguments, **options)
        pages = database.execute("PRAGMA page_count").fetchone()[0]
        database.execute(f"PRAGMA max_page_count = {pages}")
        return database

    monkeypatch.setattr(sqlite3, "connect", full)
    with pytest.raises(UserError, match="full; what it holds is safe") as caught:
        rates = [10.0**-n for n in range(60)]
        run([bowl()], [descent], lrs=rates, out=tmp_path, executor=executor)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert Results.load(tmp_path).frame["learning_rate"].tolist() == [0.1] * 3
    seen = []
    run([bowl()], [descent], lrs=[0.1, 0.2], out=tmp_path, progress=seen.append)
    assert (seen[0].computed, seen[0].reused) == (3, 3)


def test_a_folder_that_fills_up_while_the_report_is_written(tmp_path, monkeypatch):
    from optzoo.compare.show import report

    results = run([bowl()], [descent], lrs=[0.1], out=tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="No space left on device; the results are safe"):
        report.write(results, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {STORE_NAME}


def test_stores_of_other_versions_are_left_alone(tmp_path):
    path = tmp_path / STORE_NAME
    for version, age in ((1, "an older"), (99, "a newer")):
        with closing(sqlite3.connect(path)) as database:
            database.execute(f"PRAGMA user_version = {version}")
        before = path.read_bytes()
        with pytest.raises(UserError, match=f"written by {age} version.*another folder"):
            run([bowl()], [descent], out=tmp_path)
        assert path.read_bytes() == before


def test_a_damaged_store_is_told_and_kept(tmp_path):
    run([bowl()], [descent], lrs=[0.1], out=tmp_path)
    path = tmp_path / STORE_NAME
    damaged = path.read_bytes()[:5000] + b"\xff" * 3000
    path.write_bytes(damaged)
    with pytest.raises(UserError, match="cannot use"):
        run([bowl()], [descent], lrs=[0.1], out=tmp_path)
    assert path.read_bytes()[:5000] == damaged[:5000]


def test_steps_that_a_stop_left_untimed_are_timed_by_the_next(tmp_path):
    def stop(progress):
        raise KeyboardInterrupt

    def timed():
        with closing(sqlite3.connect(tmp_path / STORE_NAME)) as database:
            return database.execute("SELECT count(*) FROM cost").fetchone()[0]

    with pytest.raises(KeyboardInterrupt):
        run([bowl()], [descent], lrs=[0.1], out=tmp_path, progress=stop)
    assert timed() == 0
    seen = []
    run([bowl()], [descent], lrs=[0.1], out=tmp_path, progress=seen.append)
    assert seen[0].computed == 0 and timed() == 1


def test_a_changed_problem_costs_only_its_own_cells(tmp_path):
    flat = bowl()
    other = Problem(**(vars(bowl()) | {"name": "other", "steps": 5}))
    run([flat, other], [descent], lrs=[0.1], out=tmp_path)
    seen = []
    run([bowl(2.0), other], [descent], lrs=[0.1], out=tmp_path, progress=seen.append)
    assert {p.label: p.computed for p in seen} == {"descent on bowl": 3, "descent on other": 0}


def test_each_process_keeps_to_its_own_comparison(tmp_path):
    from optzoo.compare.keep.store import Chosen

    path = tmp_path / STORE_NAME
    with Store(path) as first, Store(path) as second:
        for store, name in ((first, "a"), (second, "b")):
            store.begin({"name": name})
        for store, name in ((second, "b"), (first, "a")):
            store.save(name, [Run(0.1, 0, {}, {})])
            store.choose(Chosen("p", name, name, 0.1, [Trial(0.1)], 0.0, 1))
        assert first.comparison()[0] == {"name": "a"}
        assert [grid.optimizer for grid in second.comparison()[1]] == ["b"]
    with Store(path) as later:
        assert later.comparison()[0] == {"name": "b"}


def test_runs_are_shared_among_devices(tmp_path):
    command = f"{SAME} --optimizers sgd,lion"
    results = {}
    for count in (1, 4):
        flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={count}"}
        folder = tmp_path / str(count)
        folder.mkdir()
        process = start(command, folder, env=os.environ | flags)
        process.communicate(timeout=120)
        results[count] = Results.load(folder / "out")
    assert results[4].devices[0].startswith("4 x cpu")
    losses = [found.frame["test_loss"].to_numpy() for found in results.values()]
    assert abs(losses[0] - losses[1]).max() < 1e-6


def test_compilations_are_kept_where_the_user_wants(tmp_path, monkeypatch):
    def folder():
        return jax.config.values["jax_compilation_cache_dir"]

    monkeypatch.setattr(machine, "WORTH_CACHING", 1e9)
    seconds = jax.config.values["jax_persistent_cache_min_compile_time_secs"]
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        (tmp_path / "file").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        machine.cache_compilations()
        assert folder() is None
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        machine.cache_compilations()
        assert folder() == str(tmp_path / "optzoo" / "xla")
        jax.config.update("jax_compilation_cache_dir", "chosen")
        machine.cache_compilations()
        assert folder() == "chosen"
    finally:
        jax.config.update("jax_compilation_cache_dir", None)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", seconds)
