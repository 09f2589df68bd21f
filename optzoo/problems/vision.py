"""Networks on the handwritten digits that ship with scikit-learn."""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optzoo.problems.base import Problem, problem

Split = tuple[jax.Array, jax.Array]
HELD_OUT, REFERENCE = 300, 256


@cache
def digit_splits() -> tuple[Split, dict[str, Split]]:
    """Images (n, 64) in [0, 1] and labels: training, and validation and test by name."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    images = jnp.asarray(data.data[order] / 16, jnp.float32)
    labels = jnp.asarray(data.target[order], jnp.int32)

    def rows(part: slice) -> Split:
        return images[part], labels[part]

    held_out = {
        "validation": rows(slice(HELD_OUT)),
        "test": rows(slice(HELD_OUT, 2 * HELD_OUT)),
    }
    return rows(slice(2 * HELD_OUT, None)), held_out


def _on_digits(
    model: Any,
    report: Callable[[jax.Array, jax.Array, jax.Array], dict[str, jax.Array]],
    *,
    steps: int,
    target: float,
    batch_size: int,
) -> Problem:
    """A network on the digits.

    Where the network normalises by its batch, it is evaluated with the statistics of one fixed
    batch of training images under the very parameters in question, as averaged parameters need.

    Args:
      model: a flax module on images of shape (n, 64); it is told `use_running_average`.
      report: outputs, images, labels -> what `Problem.evaluate` returns.
      steps, target: as in `Problem`.
      batch_size: images a step.
    """
    (images, labels), held_out = digit_splits()

    def init(key):
        return model.init(key, images[:1], use_running_average=False)["params"]

    def batch(key):
        rows = jax.random.randint(key, (batch_size,), 0, len(labels))
        return images[rows], labels[rows]

    def training_outputs(params, inputs):
        collection = {"params": params}
        return model.apply(collection, inputs, use_running_average=False, mutable=["batch_stats"])

    def outputs(params, batch):
        return training_outputs(params, batch[0])[0]

    def criterion(outputs, batch):
        return report(outputs, *batch)["loss"]

    def loss(params, batch):
        return criterion(outputs(params, batch), batch)

    def evaluate(params, split):
        inputs, labels = held_out[split]
        _, statistics = training_outputs(params, images[:REFERENCE])
        variables = {"params": params, **statistics}
        return report(model.apply(variables, inputs, use_running_average=True), inputs, labels)

    return Problem(
        init, loss, evaluate, steps, target, batch=batch, outputs=outputs, criterion=criterion
    )


def _classified(logits: jax.Array, images: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    return {"loss": loss, "accuracy": (logits.argmax(-1) == labels).astype(jnp.float32).mean()}


def _perceptron(width: int, *, normalised: bool) -> Any:
    from flax import linen as nn

    class Perceptron(nn.Module):
        @nn.compact
        def __call__(self, x, use_running_average):
            for i in range(2):
                x = nn.Dense(width, name=f"layers_{2 * i}")(x)
                if normalised:
                    x = nn.BatchNorm(use_running_average, momentum=0.0, name=f"norm_{i}")(x)
                x = nn.relu(x)
            return nn.Dense(10, name="layers_4")(x)

    return Perceptron()


@problem("neural", default=True)
def digits() -> Problem:
    """A small network reads handwritten digits.

    The 1797 images of 8 x 8 pixels in `sklearn.datasets.load_digits`, shuffled once and split into
    1197 for training and 300 each for validation and test; a perceptron with two hidden layers,
    batches of 64. Tells apart who trains an ordinary network fast and who overfits least.
    """
    return digit_reader()


def digit_reader(*, width: int = 32) -> Problem:
    """The problem `digits` with hidden layers of another width."""
    model = _perceptron(width, normalised=False)
    return _on_digits(model, _classified, steps=400, target=0.15, batch_size=64)


@problem("neural")
def digits_norm() -> Problem:
    """The network of `digits` with batch normalisation.

    The scale of each weight no longer matters, only its direction does, so the effective step
    shrinks as weights grow: tells apart who keeps that in hand.
    """
    model = _perceptron(32, normalised=True)
    return _on_digits(model, _classified, steps=400, target=0.15, batch_size=64)


def _convolutional(*, normalised: bool) -> Any:
    from flax import linen as nn

    class Convolution(nn.Module):
        """A 3 x 3 convolution as one product of matrices.

        A convolution with another kernel for every run is a grouped one, which XLA does very
        slowly on CPUs.
        """

        features: int
        stride: int

        @nn.compact
        def __call__(self, x):
            shape = (3, 3, x.shape[-1], self.features)
            kernel = self.param("kernel", nn.initializers.he_normal(), shape)
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            height, width = x.shape[1:3]
            x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
            windows = [
                x[:, i : i + height : self.stride, j : j + width : self.stride]
                for i in range(3)
                for j in range(3)
            ]
            flat = kernel.reshape(-1, self.features)
            return jnp.concatenate(windows, axis=-1) @ flat + bias[None, None, None]

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x, use_running_average):
            x = x.reshape(-1, 8, 8, 1)
            for i, (features, stride) in enumerate(((12, 1), (24, 2))):
                x = Convolution(features, stride, name=f"conv_{i}")(x)
                if normalised:
                    x = nn.BatchNorm(use_running_average, momentum=0.0, name=f"norm_{i}")(x)
                x = nn.relu(x)
            return nn.Dense(10, name="head")(x.reshape(len(x), -1))

    return Network()


@problem("neural")
def cnn() -> Problem:
    """A small convolutional network reads handwritten digits.

    Two 3 x 3 convolutions with 12 and 24 channels and a linear head on the data of `digits`,
    batches of 32. Kernels are shared over places, so their gradients are sums of very many terms:
    tells apart who weighs kernels and head against each other.
    """
    model = _convolutional(normalised=False)
    return _on_digits(model, _classified, steps=200, target=0.15, batch_size=32)


@problem("neural")
def cnn_norm() -> Problem:
    """The convolutional network of `cnn` with batch normalisation.

    Its kernels are scale-invariant, as those of most image models are: tells apart who keeps the
    step in proportion to the growing weights.
    """
    model = _convolutional(normalised=True)
    return _on_digits(model, _classified, steps=200, target=0.15, batch_size=32)


@problem("neural")
def autoencoder() -> Problem:
    """An autoencoder squeezes handwritten digits through eight numbers.

    64-32-8-32-64 units with tanh on the data of `digits`, batches of 64; the loss is the mean
    squared error over the variance of the pixels. Deep, narrow in the middle, and badly
    conditioned: the classic test of second-order ideas (Hinton and Salakhutdinov, Science 2006).
    """
    from flax import linen as nn

    class Autoencoder(nn.Module):
        @nn.compact
        def __call__(self, x, use_running_average):
            for i, width in enumerate((32, 8, 32)):
                x = nn.tanh(nn.Dense(width, name=f"layers_{i}")(x))
            return nn.Dense(64, name="layers_3")(x)

    (training, _), _ = digit_splits()
    variance = float(training.var(axis=0).mean())

    def report(outputs, images, labels):
        return {"loss": jnp.mean((outputs - images) ** 2) / variance}

    return _on_digits(Autoencoder(), report, steps=600, target=0.35, batch_size=64)


@problem("neural")
def scale_invariant() -> Problem:
    """A network whose hidden weights count by their direction alone.

    The network of `digits` with every unit's weights divided by their norm and a gain for each
    unit. Gradients are then at right angles to weights, and plain momentum lets the norms grow,
    which shrinks the steps: the case that AdamP and SGDP were made for (arXiv:2006.08217).
    """
    from flax import linen as nn

    class Normalized(nn.Module):
        features: int

        @nn.compact
        def __call__(self, x):
            shape = (x.shape[-1], self.features)
            kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
            gain = self.param("scale", nn.initializers.ones, (self.features,))
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            length = jnp.sqrt(jnp.sum(kernel**2, axis=0, keepdims=True) + 1e-12)
            return x @ (kernel / length) * gain[None] + bias[None]

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x, use_running_average):
            for i in range(2):
                x = nn.relu(Normalized(32, name=f"layers_{i}")(x))
            return nn.Dense(10, name="head")(x)

    return _on_digits(Network(), _classified, steps=400, target=0.15, batch_size=64)


@problem("neural")
def vit() -> Problem:
    """A tiny vision transformer reads handwritten digits.

    The images of `digits` as sixteen tokens of 2 x 2 pixels, one block of attention with two heads,
    width 24, batches of 32. Tells apart who trains attention on images, where plain SGD is slow.
    """
    from flax import linen as nn

    from optzoo.problems.sequences import block

    width = 24

    class Transformer(nn.Module):
        @nn.compact
        def __call__(self, x, use_running_average):
            x = x.reshape(-1, 4, 2, 4, 2).swapaxes(2, 3).reshape(-1, 16, 4)
            normal = nn.initializers.normal(0.02)
            places = self.param("position_embedding", normal, (16, width))
            x = block(nn.Dense(width, name="patches")(x) + places[None], heads=2, mask=None)
            return nn.Dense(10, name="head")(nn.LayerNorm(name="norm_3")(x).mean(axis=1))

    return _on_digits(Transformer(), _classified, steps=300, target=0.3, batch_size=32)
