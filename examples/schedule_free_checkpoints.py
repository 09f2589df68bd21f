"""Schedule-Free with Orbax checkpoints: kill it, start it again, and it goes on bit for bit."""

import argparse
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import orbax.checkpoint as ocp
from sklearn.datasets import load_breast_cancer

import optzoo


def main(steps: int, folder: Path, every: int) -> None:
    data = load_breast_cancer()
    inputs = jnp.asarray((data.data - data.data.mean(0)) / data.data.std(0), jnp.float32)
    labels = jnp.asarray(data.target, jnp.float32)
    tx = optzoo.schedule_free_adamw(0.01, warmup_steps=10)

    def loss(params, rows):
        scores = inputs[rows] @ params["kernel"] + params["bias"]
        return optax.sigmoid_binary_cross_entropy(scores, labels[rows]).mean()

    @jax.jit
    def step(params, state, index):
        rows = jax.random.choice(jax.random.key(index), len(labels), (64,))
        updates, state = tx.update(jax.grad(loss)(params, rows), state, params)
        return optax.apply_updates(params, updates), state

    params = {"kernel": jnp.zeros(inputs.shape[1]), "bias": jnp.zeros(())}
    run = {"params": params, "state": tx.init(params)}
    with ocp.CheckpointManager(folder.absolute()) as checkpoints:
        done = checkpoints.latest_step() or 0
        if done:
            # The freshly made run tells Orbax the structure, shapes and dtypes to restore.
            run = checkpoints.restore(done, args=ocp.args.StandardRestore(run))
            print(f"resumed after step {done}", flush=True)
        for index in range(done, steps):
            params, state = step(run["params"], run["state"], index)
            run = {"params": params, "state": state}
            if (index + 1) % every == 0:
                checkpoints.save(index + 1, args=ocp.args.StandardSave(run))
    # The training parameters are not the ones to judge or to ship: these are.
    params = optzoo.eval_params(run["state"], run["params"])
    everything = jnp.arange(len(labels))
    print(f"loss {loss(params, everything)}, sum of parameters {params['kernel'].sum()}")


if __name__ == "__main__":
    default = Path(tempfile.gettempdir()) / "optzoo-schedule-free"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--folder", type=Path, default=default, help="where checkpoints go")
    parser.add_argument("--every", type=int, default=50, help="steps between checkpoints")
    main(**vars(parser.parse_args()))
