"""New rules from old parts: three combinations that no paper has named."""

import argparse

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

import optzoo
from optzoo.primitives import merge_leaves, polynomial_average, split_matrices, take_sign


def grams_over_ademamix(learning_rate):
    """AdEMAMix's step sizes with the present gradient's signs."""
    direction = merge_leaves(take_sign, optzoo.scale_by_ademamix(), optzoo.gradient)
    return optax.chain(direction, optax.scale_by_learning_rate(learning_rate))


def schedule_free_adamp(learning_rate):
    """AdamP without a schedule; its own momentum is off, because Schedule-Free has one."""
    return optzoo.schedule_free(optzoo.adamp(learning_rate, b1=0.0), learning_rate)


def graft(direction, step):
    """The first array's direction with the second one's length."""
    length = jnp.linalg.norm(direction)
    return direction * jnp.where(length > 0, jnp.linalg.norm(step) / length, 0.0)


def muon_with_dog_steps():
    """Muon's direction for matrices with LDoG's step lengths, LDoG for the rest: nothing to tune.

    Without momentum: along a stale direction DoG would let the steps grow.
    """
    directions = split_matrices(
        lambda axes: optzoo.scale_by_muon(momentum=0.0, axes=axes), optzoo.gradient
    )
    steps = merge_leaves(graft, directions, optzoo.scale_by_ldog())
    return polynomial_average(optax.chain(steps, optax.scale(-1.0)))


def main(steps: int) -> None:
    data = load_digits()
    images, labels = jnp.asarray(data.data / 16, jnp.float32), jnp.asarray(data.target)
    first, second, third = jax.random.split(jax.random.key(0), 3)
    start = {
        "dense_0": {"kernel": jax.random.normal(first, (64, 64)) / 8},
        "dense_1": {"kernel": jax.random.normal(second, (64, 64)) / 8},
        "head": {"kernel": jax.random.normal(third, (64, 10)) / 8, "bias": jnp.zeros(10)},
    }

    def loss(params):
        x = jax.nn.relu(images @ params["dense_0"]["kernel"])
        x = jax.nn.relu(x @ params["dense_1"]["kernel"])
        scores = x @ params["head"]["kernel"] + params["head"]["bias"][None]
        return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()

    rules = {
        "Grams over AdEMAMix": grams_over_ademamix(1e-3),
        "Schedule-Free over AdamP": schedule_free_adamp(1e-2),
        "Muon with DoG's steps": muon_with_dog_steps(),
    }
    for name, tx in rules.items():

        @jax.jit
        def step(params, state, tx=tx):
            updates, state = tx.update(jax.grad(loss)(params), state, params)
            return optax.apply_updates(params, updates), state

        params, state = start, tx.init(start)
        for _ in range(steps):
            params, state = step(params, state)
        print(f"{name}: {loss(start):.3f} -> {loss(optzoo.eval_params(state, params)):.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    main(**vars(parser.parse_args()))
