"""The plain Optax loop: any optimizer of the zoo on a two-layer network, nothing but JAX."""

import argparse
from functools import partial

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

import optzoo


def init(key):
    first, second = jax.random.split(key)
    return {
        "hidden": {"kernel": jax.random.normal(first, (64, 64)) / 8, "bias": jnp.zeros(64)},
        "head": {"kernel": jax.random.normal(second, (64, 10)) / 8, "bias": jnp.zeros(10)},
    }


def logits(params, images):
    hidden = jax.nn.relu(images @ params["hidden"]["kernel"] + params["hidden"]["bias"][None])
    return hidden @ params["head"]["kernel"] + params["head"]["bias"][None]


def main(optimizer: str, steps: int) -> None:
    data = load_digits()
    images, labels = jnp.asarray(data.data / 16, jnp.float32), jnp.asarray(data.target)
    tx = optzoo.get(optimizer).build(total_steps=steps)

    def loss(params):
        scores = logits(params, images)
        return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state):
        value, grads = jax.value_and_grad(loss)(params)
        # Most rules need no more than gradients; the others find here what they ask for.
        updates, state = tx.update(grads, state, params, value=value, grad=grads, value_fn=loss)
        return optax.apply_updates(params, updates), state

    params = init(jax.random.key(0))
    print(f"{optimizer}: loss {loss(params):.3f}", end=" ")
    state = tx.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    params = optzoo.eval_params(state, params)
    correct = jnp.mean(jnp.argmax(logits(params, images), axis=1) == labels)
    print(f"-> {loss(params):.3f}, accuracy {correct:.1%}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--optimizer", default="schedule_free_adamw", choices=list(optzoo.REGISTRY.optimizers)
    )
    parser.add_argument("--steps", type=int, default=300)
    main(**vars(parser.parse_args()))
