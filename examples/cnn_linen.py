"""A convolutional network in flax linen with TrainState on scikit-learn's digits, by AdamP."""

import argparse

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax.training.train_state import TrainState
from sklearn.datasets import load_digits

import optzoo


class CNN(nn.Module):
    @nn.compact
    def __call__(self, images):
        x = nn.relu(nn.Conv(16, (3, 3))(images))
        x = nn.relu(nn.LayerNorm()(nn.Conv(32, (3, 3), strides=2)(x)))
        return nn.Dense(10, name="head")(x.reshape(len(x), -1))


@jax.jit
def train_step(state, images, labels):
    def loss_fn(params):
        scores = state.apply_fn({"params": params}, images)
        return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()

    loss, grads = jax.value_and_grad(loss_fn)(state.params)
    return state.apply_gradients(grads=grads), loss


def main(steps: int) -> None:
    data = load_digits()
    images, labels = jnp.asarray(data.images / 16, jnp.float32)[..., None], jnp.asarray(data.target)
    model = CNN()
    params = model.init(jax.random.key(0), images[:1])["params"]
    tx = optzoo.adamp(3e-3, weight_decay=1e-2)
    state = TrainState.create(apply_fn=model.apply, params=params, tx=tx)
    keys = jax.random.split(jax.random.key(1), steps)
    for key in keys:
        batch = jax.random.choice(key, 1500, (128,))
        state, loss = train_step(state, images[batch], labels[batch])
    params = optzoo.eval_params(state.opt_state, state.params)
    scores = model.apply({"params": params}, images[1500:])
    correct = jnp.mean(jnp.argmax(scores, axis=1) == labels[1500:])
    print(f"last loss {loss:.3f}, accuracy on held-out digits {correct:.1%}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    main(**vars(parser.parse_args()))
