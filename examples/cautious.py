"""A rule of one's own in a few lines: cautious AdamW, from the parts that the zoo is made of."""

import argparse

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

from optzoo.primitives import adam, gradient, merge_leaves


def cautious_adamw(learning_rate=1e-3, *, b1=0.9, b2=0.999, weight_decay=0.0):
    """AdamW that moves only the entries whose step agrees in sign with the present gradient."""

    def agreeing(step, g):
        agrees = (step * g > 0).astype(step.dtype)
        return step * agrees * (agrees.size / (agrees.sum() + 1))

    return optax.chain(
        merge_leaves(agreeing, adam(b1, b2), gradient),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(learning_rate),
    )


def main(steps: int) -> None:
    data = load_digits()
    images, labels = jnp.asarray(data.data / 16, jnp.float32), jnp.asarray(data.target)
    first, second = jax.random.split(jax.random.key(0))
    start = {
        "hidden": jax.random.normal(first, (64, 64)) / 8,
        "head": jax.random.normal(second, (64, 10)) / 8,
    }

    def loss(params):
        scores = jax.nn.relu(images @ params["hidden"]) @ params["head"]
        return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()

    for factory in (optax.adamw, cautious_adamw):
        tx = factory(1e-3)

        def step(carry, _, tx=tx):
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        carry = start, tx.init(start)
        (params, _), _ = jax.jit(lambda c, step=step: jax.lax.scan(step, c, length=steps))(carry)
        print(f"{factory.__name__}: {loss(start):.3f} -> {loss(params):.4f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=500)
    main(**vars(parser.parse_args()))
