"""A hyper-parameter sweep in one compiled program: vmap over learning rates, decays and seeds."""

import argparse

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_wine

import optzoo


def main(steps: int, seeds: int) -> None:
    data = load_wine()
    inputs = jnp.asarray((data.data - data.data.mean(0)) / data.data.std(0), jnp.float32)
    labels = jnp.asarray(data.target)

    def loss(params, rows):
        scores = jax.nn.tanh(inputs[rows] @ params["hidden"]) @ params["out"]
        return optax.softmax_cross_entropy_with_integer_labels(scores, labels[rows]).mean()

    def train(learning_rate, weight_decay, seed):
        # Hyper-parameters are ordinary traced numbers here, and so vmap maps over them.
        tx = optzoo.ademamix(learning_rate, weight_decay=weight_decay, alpha_warmup=steps)
        start, batches = jax.random.split(jax.random.key(seed))
        hidden, out = jax.random.split(start)
        params = {
            "hidden": jax.random.normal(hidden, (inputs.shape[1], 32)) / 4,
            "out": jax.random.normal(out, (32, 3)) / 6,
        }

        def step(carry, key):
            params, state = carry
            rows = jax.random.choice(key, 120, (32,))
            updates, state = tx.update(jax.grad(loss)(params, rows), state, params)
            return (optax.apply_updates(params, updates), state), None

        carry = params, tx.init(params)
        (params, _), _ = jax.lax.scan(step, carry, jax.random.split(batches, steps))
        return loss(params, jnp.arange(len(labels)))

    rates, decays = jnp.logspace(-4, -1, 7), jnp.array([0.0, 0.1])
    over_seeds = jax.vmap(train, in_axes=(None, None, 0))
    over_decays = jax.vmap(over_seeds, in_axes=(None, 0, None))
    grid = jax.jit(jax.vmap(over_decays, in_axes=(0, None, None)))
    losses = grid(rates, decays, jnp.arange(seeds)).mean(axis=2)
    print("learning rate   " + "   ".join(f"decay {decay:g}" for decay in decays))
    for rate, row in zip(rates, losses, strict=True):
        print(f"{rate:<13.2g}   " + "   ".join(f"{value:<7.4f}" for value in row))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=4)
    main(**vars(parser.parse_args()))
