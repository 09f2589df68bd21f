"""A convolutional network in flax nnx on scikit-learn's digits, trained by Muon."""

import argparse

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from sklearn.datasets import load_digits

import optzoo


class CNN(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.conv_in = nnx.Conv(1, 16, kernel_size=(3, 3), rngs=rngs)
        self.conv = nnx.Conv(16, 32, kernel_size=(3, 3), strides=2, rngs=rngs)
        self.head = nnx.Linear(512, 10, rngs=rngs)

    def __call__(self, images):
        x = nnx.relu(self.conv_in(images))
        x = nnx.relu(self.conv(x))
        return self.head(x.reshape(len(x), -1))


def loss_fn(model, images, labels):
    scores = model(images)
    return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()


@nnx.jit
def train_step(model, optimizer, images, labels):
    loss, grads = nnx.value_and_grad(loss_fn)(model, images, labels)
    optimizer.update(model, grads)
    return loss


def main(steps: int) -> None:
    data = load_digits()
    images, labels = jnp.asarray(data.images / 16, jnp.float32)[..., None], jnp.asarray(data.target)
    model = CNN(nnx.Rngs(0))
    tx = optzoo.muon()
    print(optzoo.describe(tx, nnx.state(model, nnx.Param)))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    keys = jax.random.split(jax.random.key(1), steps)
    for key in keys:
        batch = jax.random.choice(key, 1500, (128,))
        loss = train_step(model, optimizer, images[batch], labels[batch])
    correct = jnp.mean(jnp.argmax(model(images[1500:]), axis=1) == labels[1500:])
    print(f"last loss {loss:.3f}, accuracy on held-out digits {correct:.1%}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    main(**vars(parser.parse_args()))
