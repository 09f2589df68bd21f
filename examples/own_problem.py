"""A problem of one's own for `optzoo compare`: separate two spirals with a small network.

From this folder, `optzoo compare --problems own_problem:spirals --optimizers muon,adamw+cosine`
does the same with a report.
"""

import argparse

import jax
import jax.numpy as jnp
import optax

from optzoo.compare import run
from optzoo.problems import Problem


def spirals() -> Problem:
    def points(key, count=128):
        turn = 3 * jnp.sqrt(jax.random.uniform(key, (count, 1)))
        side = jnp.where(jnp.arange(count)[:, None] % 2 == 0, 1.0, -1.0)
        return side * turn * jnp.concatenate([jnp.cos(2 * turn), jnp.sin(2 * turn)], 1), side

    def init(key):
        keys, sizes = jax.random.split(key, 3), (2, 32, 32, 1)
        shapes = zip(keys, sizes[:-1], sizes[1:], strict=True)
        return {
            f"layer_{i}": jax.random.normal(k, (m, n)) / m**0.5
            for i, (k, m, n) in enumerate(shapes)
        }

    def loss(params, batch):
        x, side = batch
        for i in range(2):
            x = jnp.tanh(x @ params[f"layer_{i}"])
        return optax.sigmoid_binary_cross_entropy(x @ params["layer_2"], (side + 1) / 2).mean()

    held_out = {"validation": points(jax.random.key(1)), "test": points(jax.random.key(2))}
    return Problem(
        init,
        loss,
        lambda params, split: {"loss": loss(params, held_out[split])},
        steps=500,
        target=0.1,
        batch=points,
    )


def main(steps: int) -> None:
    results = run([spirals], ["muon", "adamp", "schedule_free_adamw"], steps=steps, seeds=2)
    for row in results.ranking.merge(results.table, on="optimizer").itertuples():
        print(f"{row.optimizer:<20} test loss {row.test_loss:.4f} at rate {row.learning_rate:g}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=500)
    main(**vars(parser.parse_args()))
