"""DoG: no learning rate to choose, and the averaged weights are the ones to evaluate."""

import argparse

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

import optzoo


def main(steps: int) -> None:
    data = load_digits()
    images, labels = jnp.asarray(data.data / 16, jnp.float32), jnp.asarray(data.target)
    test = slice(1500, None)
    tx = optzoo.dog()

    def loss(params, rows):
        scores = images[rows] @ params["kernel"] + params["bias"][None]
        return optax.softmax_cross_entropy_with_integer_labels(scores, labels[rows]).mean()

    @jax.jit
    def step(params, state, key):
        rows = jax.random.choice(key, 1500, (4,))
        updates, state = tx.update(jax.grad(loss)(params, rows), state, params)
        return optax.apply_updates(params, updates), state

    params = {"kernel": jnp.zeros((64, 10)), "bias": jnp.zeros(10)}
    state = tx.init(params)
    for key in jax.random.split(jax.random.key(0), steps):
        params, state = step(params, state, key)
    averaged = optzoo.eval_params(state, params)
    print(f"held-out loss at the last iterate: {loss(params, test):.4f}")
    print(f"held-out loss at the average:      {loss(averaged, test):.4f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=4000)
    main(**vars(parser.parse_args()))
