"""Comparisons on executors: what travels, what comes back, and what becomes of what is lost."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ThreadPoolExecutor,
)
from contextlib import contextmanager
from pathlib import Path

import jax.numpy as jnp
import optax
import pytest

from optzoo.compare import UserError, run
from optzoo.compare.engines import slurm, versions
from optzoo.compare.engines.spread import SHARE, TRIES, Failure, batches, spread
from optzoo.compare.engines.start import started
from optzoo.compare.errors import PairFailed
from optzoo.problems import Problem

RUN = ["problem", "optimizer", "learning_rate", "seed"]


def descent(learning_rate=0.1):
    return optax.sgd(learning_rate)


def faster(learning_rate=0.1):
    return optax.sgd(2 * learning_rate)


def loss(params, _):
    return jnp.sum(params**2)


def bowl(name="bowl", steps=4):
    def evaluate(params, split):
        return {"loss": loss(params, None)}

    return Problem(lambda key: jnp.ones(2), loss, evaluate, steps, 0.1, name=name)


def compare(executor=None, optimizers=(descent, faster), problems=(bowl,), **options):
    return run(problems, optimizers, **({"seeds": 2} | options), executor=executor)


def numbers(results):
    """All that does not depend on who computes, in the same order."""
    return results.frame.drop(columns=["seconds", "device"]).sort_values(RUN, ignore_index=True)


class Scripted(Executor):
    """Does what a script says with one call after the other, and keeps what it was asked."""

    def __init__(self, *script):
        self.script, self.asked = list(script), []

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        self.asked.append(future)
        does = self.script.pop(0) if self.script else "compute"
        if does == "compute":
            future.set_result(fn(*args, **kwargs))
        elif does == "lose":
            future.set_exception(BrokenExecutor("gone"))
        elif does == "cancel":
            future.cancel()
            future.set_running_or_notify_cancel()
        return future


def squared(number):
    if number < 0:
        raise ArithmeticError(f"{number} is negative")
    return number**2


def spread_out(executor, units, costs=None, expected=None):
    return spread(executor, squared, units, costs or [1.0] * len(units), expected or {})


def test_the_costliest_units_go_first_and_small_ones_together():
    small = SHARE / 4
    assert batches([small, 1.0, small, 5.0, small]) == [[3], [1], [0, 2, 4]]
    assert batches([small] * 3 + [1.0]) == [[3], [0, 1, 2]]
    assert batches([1.0] * 3) == [[0], [1], [2]]


def test_what_is_lost_is_given_out_again_and_holds_nothing_up():
    executor = Scripted("lose", "compute", "cancel")
    assert sorted(spread_out(executor, [1, 2, 3])) == [(1, 1), (2, 4), (3, 9)]
    assert len(executor.asked) == 5


def test_units_of_a_lost_batch_go_alone():
    executor = Scripted("compute", "lose")
    found = spread_out(executor, [1, 2, 3], [SHARE / 4, SHARE / 4, 1.0])
    assert sorted(found) == [(1, 1), (2, 4), (3, 9)] and len(executor.asked) == 4


def test_what_always_fails_is_told_after_some_tries():
    executor = Scripted()
    found = dict(spread_out(executor, [-1, 2]))
    assert found == {-1: Failure("ArithmeticError: -1 is negative"), 2: 4}
    assert len(executor.asked) == TRIES + 1


def test_stopped_early_it_cancels_what_waits():
    executor = Scripted("compute", "wait", "wait")
    results = spread_out(executor, [1, 2, 3])
    next(results)
    results.close()
    assert [future.cancelled() for future in executor.asked] == [False, True, True]


def test_an_executor_that_is_shut_down_is_told():
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(
        UserError, match="take no more: RuntimeError: cannot schedule .*; what is finished is kept"
    ):
        list(spread_out(executor, [1]))


def test_a_worker_with_other_code_is_refused_with_both_versions(tmp_path, monkeypatch):
    (tmp_path / "changing.py").write_text("def rule(learning_rate): ...")
    monkeypatch.syspath_prepend(str(tmp_path))
    expected = versions.versions(["changing:rule"])
    assert {"optzoo", "jax", "changing:rule"} <= set(expected)
    (tmp_path / "changing.py").write_text("def rule(learning_rate): return None")
    versions._version.cache_clear()
    words = r"worker on .* \(process \d+\) has changing:rule \(source \w+\), and this comparison"
    with pytest.raises(UserError, match=words) as told:
        list(spread_out(Scripted(), [1], expected=expected))
    assert expected["changing:rule"] in str(told.value) and "\n" not in str(told.value)


def test_an_executor_gives_what_this_process_gives_and_resumes(tmp_path):
    seen = []
    alone = compare(problems=[bowl(), bowl("longer", 6)])
    with ThreadPoolExecutor(2) as executor:
        for _ in range(2):
            shared = compare(
                executor,
                problems=[bowl(), bowl("longer", 6)],
                out=tmp_path,
                progress=seen.append,
            )
    assert numbers(shared).equals(numbers(alone))
    runs = len(alone.frame) // 4
    assert [(one.computed, one.reused) for one in seen] == [(runs, 0)] * 4 + [(0, runs)] * 4
    assert shared.about["workers"] == "ThreadPoolExecutor" and not alone.about["workers"]
    # What a worker computed, this process finds.
    compare(problems=[bowl()], out=tmp_path, progress=seen.append)
    assert [(one.computed, one.reused) for one in seen[8:]] == [(0, runs)] * 2


def test_norms_that_were_recorded_reach_the_workers(tmp_path):
    rules = ["sgd", "sgd+refined"]
    options = {"problems": ["saddle"], "lrs": [0.01], "steps": 5, "out": tmp_path}
    with ThreadPoolExecutor(1) as executor:
        compare(executor, ["sgd"], record=["norms"], **options)
        shared = compare(executor, rules, **options)
    assert numbers(shared).equals(numbers(compare(None, rules, **options | {"out": tmp_path})))


def test_rules_under_every_schedule_travel():
    schedules = ["constant", "cosine", "cyclical(period=5)"]
    options = {
        "problems": ["saddle"],
        "lrs": [0.01],
        "steps": 5,
        "schedules": schedules,
        "seeds": 1,
    }
    with ThreadPoolExecutor(1) as executor:
        shared = compare(executor, ["sgd"], **options)
    assert len(shared.grids) == 3
    assert numbers(shared).equals(numbers(compare(None, ["sgd"], **options)))


def test_a_pair_that_fails_on_every_worker_is_told_and_the_rest_goes_on():
    here = threading.get_ident()

    def failing(learning_rate=0.1):
        if threading.get_ident() != here:
            raise ArithmeticError("not here")
        return optax.sgd(learning_rate)

    # A closure travels only by what pickles closures.
    pytest.importorskip("cloudpickle")
    with ThreadPoolExecutor(1) as executor:
        words = f"failing on bowl failed {TRIES} times: .*ArithmeticError: not here"
        with pytest.warns(PairFailed, match=words) as told:
            results = compare(executor, [failing, descent], lrs=[0.1])
        assert len(told) == 1 and list(results.grids) == [("bowl", "descent")]
        with pytest.raises(UserError, match="all workers failed: .*not here"):
            compare(executor, [failing], lrs=[0.1])


DEADLY = """
import os
from pathlib import Path
import jax.numpy as jnp
import optax
from optzoo.problems import Problem

HERE = Path(__file__).parent

def rule(learning_rate=0.1):
    me, marks = os.getpid(), HERE / "marks"
    if me != int((HERE / "pid").read_text()) and not (marks / "killed").exists():
        (marks / "killed").touch()
        os.kill(me, 9)
    return optax.sgd(learning_rate)

def bowl():
    def loss(params, _):
        print("no answer")
        return jnp.sum(params**2)
    return Problem(
        lambda key: jnp.ones(2), loss, lambda p, _: {"loss": loss(p, None)}, 4, 0.1, name="bowl"
    )
"""


def deadly(folder, monkeypatch):
    """A plug-in whose rule kills the first worker that builds it, where this process finds it."""
    monkeypatch.syspath_prepend(str(folder))
    (folder / "deadly.py").write_text(DEADLY)
    (folder / "pid").write_text(str(os.getpid()))
    (folder / "marks").mkdir()
    options = {"problems": ["deadly:bowl"], "lrs": [0.1], "seeds": 1}
    return ["deadly:rule", "sgd", "optax:sign_sgd"], options


def test_a_killed_process_loses_nothing(tmp_path, monkeypatch):
    rules, options = deadly(tmp_path, monkeypatch)
    with started("processes:2", [], tmp_path) as executor:
        shared = compare(executor, rules, **options)
        processes = [process._process for process in executor._all]
    assert (tmp_path / "marks" / "killed").exists()
    assert all(process.poll() is not None for process in processes)
    assert numbers(shared).equals(numbers(compare(None, rules, **options)))


@contextmanager
def dask_cluster(workers, folder):
    """The address of a scheduler with so many worker processes, it and them."""
    path = os.pathsep.join([str(folder), *filter(None, sys.path)])
    options = {"env": os.environ | {"PYTHONPATH": path}, "stderr": subprocess.DEVNULL}
    file = folder / "scheduler.json"
    run = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1"]
    scheduler = [*run, "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
    run = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(file)]
    worker = [*run, "--no-nanny", "--nthreads", "1", "--no-dashboard", "--local-directory", folder]
    processes = [subprocess.Popen(scheduler, **options)]
    processes += [subprocess.Popen(worker, **options) for _ in range(workers)]
    try:
        while not file.exists():
            assert processes[0].poll() is None
            time.sleep(0.05)
        yield json.loads(file.read_text())["address"].removeprefix("tcp://"), processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_a_killed_worker_of_dask_loses_nothing(tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="needs Dask: pip install 'optzoo[dask]'")
    rules, options = deadly(tmp_path, monkeypatch)
    with (
        dask_cluster(2, tmp_path) as (address, (scheduler, *workers)),
        started(f"dask:{address}", [], tmp_path) as executor,
    ):
        shared = compare(executor, rules, **options)
        assert [code for worker in workers if (code := worker.poll())] == [-signal.SIGKILL]
        # Nobody waits for ever for what no scheduler has.
        waiting = executor.submit(time.sleep, 100)
        scheduler.kill()
        with pytest.raises((BrokenExecutor, CancelledError)):
            waiting.result(timeout=120)
    assert shared.about["workers"] == "DaskWorkers"
    assert numbers(shared).equals(numbers(compare(None, rules, **options)))


def test_a_killed_worker_of_ray_loses_nothing(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray", reason="needs Ray: pip install 'optzoo[ray]'")
    rules, options = deadly(tmp_path, monkeypatch)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, sys.path)]))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    command += ["--port", str(port), "--num-cpus", "2", "--include-dashboard", "false"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    head = subprocess.Popen(command, **pipes)
    try:
        assert any("Ray runtime started" in line for line in head.stdout)
        with started(f"ray:127.0.0.1:{port}", [], tmp_path) as executor:
            shared = compare(executor, rules, **options)
    finally:
        head.terminate()
        head.communicate(timeout=30)
    assert (tmp_path / "marks" / "killed").exists() and not ray.is_initialized()
    assert numbers(shared).equals(numbers(compare(None, rules, **options)))


def test_a_killed_job_loses_nothing(tmp_path, monkeypatch):
    submitit = pytest.importorskip("submitit", reason="needs submitit: pip install 'optzoo[slurm]'")
    rules, options = deadly(tmp_path, monkeypatch)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, sys.path)]))
    # For a result that a slow file system may be about to show.
    monkeypatch.setattr(submitit.Job, "_results_timeout_s", 0)
    with slurm.jobs(submitit.LocalExecutor(tmp_path / "jobs")) as executor:
        shared = compare(executor, rules, **options)
    assert (tmp_path / "marks" / "killed").exists()
    assert numbers(shared).equals(numbers(compare(None, rules, **options)))


ORPHANS = """
import os, time
from concurrent.futures import wait
from optzoo.compare.engines.start import started
with started("processes:1", [], None) as executor:
    worker = executor.submit(os.getpid).result()
    busy = executor.submit(time.sleep, 100)
    print(worker, flush=True)
    # A signal that comes right before a wait is seen when that is over.
    while not wait([busy], timeout=0.1).done:
        pass
"""


@pytest.mark.parametrize("sent", ["SIGINT", "SIGKILL"])
def test_no_process_outlives_the_one_that_began_it(sent):
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    first = subprocess.Popen([sys.executable, "-c", ORPHANS], **pipes)
    signal.signal(signal.SIGINT, inherited)
    worker = Path("/proc") / first.stdout.readline().strip()
    assert worker.exists()
    first.send_signal(getattr(signal, sent))
    first.communicate(timeout=60)
    ended = time.monotonic() + 60
    while worker.exists() and "Z" not in (worker / "stat").read_text():
        assert time.monotonic() < ended
        time.sleep(0.05)
