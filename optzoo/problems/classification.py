"""Classification of real data that ships with scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optzoo.problems.base import Problem, problem


@problem
def digits() -> Problem:
    """A small network reads handwritten digits.

    The 1797 images of 8 x 8 pixels in `sklearn.datasets.load_digits`, shuffled once and split into
    1197 for training and 300 each for validation and test; a perceptron with two hidden layers,
    batches of 64. Tells apart who trains an ordinary network fast and who overfits least.
    """
    from flax import linen as nn
    from sklearn.datasets import load_digits

    width, batch_size, held_out = 32, 64, 300
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    images = jnp.asarray(data.data[order] / 16, jnp.float32)
    labels = jnp.asarray(data.target[order], jnp.int32)
    splits = {
        "validation": (images[:held_out], labels[:held_out]),
        "test": (images[held_out : 2 * held_out], labels[held_out : 2 * held_out]),
    }
    train_images, train_labels = images[2 * held_out :], labels[2 * held_out :]
    model = nn.Sequential([nn.Dense(width), nn.relu, nn.Dense(width), nn.relu, nn.Dense(10)])

    def init(key):
        return model.init(key, images[:1])["params"]

    def batch(key):
        rows = jax.random.randint(key, (batch_size,), 0, len(train_labels))
        return train_images[rows], train_labels[rows]

    def cross_entropy(logits, labels):
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def loss(params, batch):
        inputs, labels = batch
        return cross_entropy(model.apply({"params": params}, inputs), labels)

    def evaluate(params, split):
        inputs, labels = splits[split]
        logits = model.apply({"params": params}, inputs)
        right = logits.argmax(-1) == labels
        return {"loss": cross_entropy(logits, labels), "accuracy": right.astype(jnp.float32).mean()}

    return Problem(init, loss, evaluate, steps=400, target=0.15, batch=batch)
