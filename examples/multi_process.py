"""Data-parallel training by several processes: two on this machine, or all those of a cluster.

Without --cluster the script starts its own processes, which meet over the loopback interface. With
it (one process a host, under SLURM, on TPU pods or by mpirun) JAX finds the others by itself:

    srun python examples/multi_process.py --cluster
"""

import argparse
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec as P
from sklearn.datasets import load_digits

import optzoo


def train(steps: int) -> None:
    """The same program in every process; each loads only its own share of the data."""
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    everywhere, rows = NamedSharding(mesh, P()), NamedSharding(mesh, P("data"))
    data = load_digits()
    usable = len(data.target) // jax.device_count() * jax.device_count()
    share = np.split(np.arange(usable), jax.process_count())[jax.process_index()]
    images = jax.make_array_from_process_local_data(rows, data.data[share].astype("float32") / 16)
    labels = jax.make_array_from_process_local_data(rows, data.target[share].astype("int32"))
    tx = optzoo.schedule_free_adamw(0.01)

    def init(key):
        params = {"kernel": jax.random.normal(key, (64, 10)) / 8, "bias": jnp.zeros(10)}
        return params, tx.init(params)

    def loss(params, images, labels):
        scores = images @ params["kernel"] + params["bias"][None]
        return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()

    @jax.jit
    def step(params, state, images, labels):
        value, grads = jax.value_and_grad(loss)(params, images, labels)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    params, state = jax.jit(init, out_shardings=everywhere)(jax.random.key(0))
    for _ in range(steps):
        params, state, value = step(params, state, images, labels)
    who = f"process {jax.process_index()} of {jax.process_count()}"
    # The line's end is part of the text: printed on its own, it may come after the others' lines.
    line = f"{who}: {len(share)} of {usable} rows here, loss {value:.4f}\n"
    print(line, end="", flush=True)


def launch(steps: int, processes: int) -> None:
    """Starts the processes of a run on this machine and waits for them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, __file__, "--steps", str(steps), "--processes", str(processes)]
    command += ["--coordinator", address, "--index"]
    running = [subprocess.Popen([*command, str(index)]) for index in range(processes)]
    if any([process.wait() for process in running]):
        sys.exit("a process failed")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Data-parallel training by several processes.")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--cluster", action="store_true", help="the processes are started already")
    parser.add_argument("--coordinator", help="set by the script itself")
    parser.add_argument("--index", type=int, help="set by the script itself")
    options = parser.parse_args()
    if options.cluster:
        jax.distributed.initialize()
    elif options.coordinator:
        jax.config.update("jax_platforms", "cpu")
        jax.distributed.initialize(options.coordinator, options.processes, options.index)
    if options.cluster or options.coordinator:
        train(options.steps)
    else:
        launch(options.steps, options.processes)
