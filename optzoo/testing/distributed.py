"""Training in two processes on this machine.

`python -m optzoo.testing.distributed` is one of the two; `run_together` starts both.
"""

import json
import pickle
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from optzoo.plugins import load, one_line

Target = tuple[str, Mapping[str, Any]]
PROCESSES = 2


class Outcome(NamedTuple):
    """The parameters after training a factory's product, or why there are none."""

    params: Any
    error: str


def is_plain(arguments: Mapping[str, Any]) -> bool:
    """Whether arguments survive being written as JSON."""
    return all(isinstance(value, int | float | str | bool | None) for value in arguments.values())


def run_together(targets: Sequence[Target], timeout: float = 600) -> list[Outcome]:
    """Trains each target in two joined processes of four CPU devices each.

    Args:
      targets: "package.module:factory" and its arguments, each.
      timeout: seconds after which the processes are given up.

    Returns:
      One outcome a target.

    Raises:
      RuntimeError: where the processes could not be joined.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result"
        command = [sys.executable, "-m", "optzoo.testing.distributed", str(port), str(result)]
        workers = [
            subprocess.Popen(
                [*command, str(index), json.dumps(targets)],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for index in range(PROCESSES)
        ]
        try:
            output = [worker.communicate(timeout=timeout)[0] for worker in workers]
        finally:
            for worker in workers:
                worker.kill()
        if any(worker.returncode for worker in workers):
            raise RuntimeError(f"the joined processes failed: {output[0].strip()[-400:]}")
        return [Outcome(*outcome) for outcome in pickle.loads(result.read_bytes())]


def _work(port: str, result: str, index: str, targets: str) -> None:
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 4)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", PROCESSES, int(index))
    outcomes = [_outcome(name, arguments) for name, arguments in json.loads(targets)]
    if index == "0":
        Path(result).write_bytes(pickle.dumps(outcomes))
    jax.distributed.shutdown()


def _outcome(name: str, arguments: Mapping[str, Any]) -> tuple[Any, str]:
    from optzoo.testing import mesh
    from optzoo.testing.subject import Subject

    try:
        subject = Subject(lambda: load(name)(**arguments))
        host_params, host_gradients = mesh.host_trees()
        devices = mesh.make_mesh(jax.sharding.AxisType.Auto)
        params = mesh.placed(host_params, devices)
        state = jax.jit(subject.tx.init)(params)

        @jax.jit
        def step(gradients, state, params):
            updates, state = subject.update(gradients, state, params)
            return state, jax.tree.map(lambda p, u: p + u, params, updates)

        for gradients in host_gradients:
            state, params = step(mesh.placed(gradients, devices), state, params)
        everywhere = jax.sharding.NamedSharding(devices, jax.sharding.PartitionSpec())
        gathered = jax.jit(lambda tree: tree, out_shardings=everywhere)(params)
        return jax.tree.map(np.asarray, gathered), ""
    except Exception as error:
        return None, one_line(error)


if __name__ == "__main__":
    _work(*sys.argv[1:])
