"""Small problems with noise: bowls, real data of scikit-learn's, products of matrices."""

from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optzoo.problems.base import Problem, problem


@problem("stochastic", default=True)
def quadratic() -> Problem:
    """A noisy quadratic bowl a thousand times steeper one way than another.

    f(W) = ½ ⟨W - M, A (W - M) B⟩ for a 16 x 16 matrix W, with rotated A and B of condition
    number 32 each; the gradient noise has the shape of the curvature, as in least squares, and the
    loss reported is the one without noise. Tells apart who averages noise away and who copes with
    bad conditioning that no single coordinate shows.
    """
    size, noise = 16, 0.3
    rng = np.random.default_rng(0)

    def curvature():
        rotation, _ = np.linalg.qr(rng.normal(size=(size, size)))
        roots = np.sqrt(np.geomspace(1, 1 / 32, size))
        return (rotation * roots) @ rotation.T

    left, right = (jnp.asarray(curvature(), jnp.float32) for _ in range(2))
    minimum = jnp.asarray(rng.normal(size=(size, size)), jnp.float32)

    def init(key):
        return {"kernel": jax.random.normal(key, (size, size), jnp.float32)}

    def loss(params, key):
        tilted = left @ (params["kernel"] - minimum) @ right
        return jnp.sum(tilted * (tilted / 2 + noise * jax.random.normal(key, tilted.shape)))

    def evaluate(params, split):
        return {"loss": jnp.sum((left @ (params["kernel"] - minimum) @ right) ** 2) / 2}

    solution = {"kernel": minimum}
    return Problem(init, loss, evaluate, steps=1000, target=0.1, solution=solution)


@problem("stochastic")
def quadratic_aligned() -> Problem:
    """A noisy bowl whose steepness, from 1 to 10⁻⁴, lies along the coordinates.

    f(x) = ½ Σ aᵢ (xᵢ - mᵢ)² in 64 dimensions with gradient noise of the size √aᵢ / 10. The
    counterpart of `quadratic`: here each coordinate's own scale is all there is to know, so it
    tells apart who finds one.
    """
    size, noise = 64, 0.1
    steepness = jnp.asarray(np.geomspace(1, 1e-4, size), jnp.float32)
    minimum = jnp.asarray(np.random.default_rng(0).normal(size=size), jnp.float32)

    def init(key):
        return {"point": minimum + 3 * jax.random.normal(key, (size,))}

    def evaluate(params, split):
        return {"loss": jnp.sum(steepness * (params["point"] - minimum) ** 2) / 2}

    def loss(params, key):
        kicks = noise * jnp.sqrt(steepness) * jax.random.normal(key, (size,))
        return evaluate(params, "train")["loss"] + jnp.sum(kicks * params["point"])

    solution = {"point": minimum}
    return Problem(init, loss, evaluate, steps=1000, target=0.03, solution=solution)


Rows = tuple[jax.Array, jax.Array]


def _splits(inputs: np.ndarray, outputs: np.ndarray) -> tuple[Rows, dict[str, Rows]]:
    """Training rows, and the other two fifths as validation and test; inputs standardised."""
    order = np.random.default_rng(0).permutation(len(outputs))
    inputs, outputs = inputs[order], outputs[order]
    fifth = len(order) // 5
    training = slice(2 * fifth, None)
    inputs = (inputs - inputs[training].mean(0)) / inputs[training].std(0)

    def rows(part):
        return jnp.asarray(inputs[part], jnp.float32), jnp.asarray(outputs[part], jnp.float32)

    held_out = {"validation": rows(slice(fifth)), "test": rows(slice(fifth, 2 * fifth))}
    return rows(training), held_out


def _linear(width: int, rows, held_out, error, *, steps: int, target: float) -> Problem:
    """A linear model on real data; `error(scores, outputs)` -> scalar."""
    inputs, outputs = rows

    def init(key):
        return {"kernel": 0.1 * jax.random.normal(key, (width, 1)), "bias": jnp.zeros(1)}

    def batch(key):
        which = jax.random.randint(key, (16,), 0, len(outputs))
        return inputs[which], outputs[which]

    def scores(params, batch):
        return (batch[0] @ params["kernel"] + params["bias"][None])[:, 0]

    def criterion(scores, batch):
        return error(scores, batch[1])

    def loss(params, batch):
        return criterion(scores(params, batch), batch)

    def evaluate(params, split):
        return {"loss": loss(params, held_out[split])}

    return Problem(
        init, loss, evaluate, steps, target, batch=batch, outputs=scores, criterion=criterion
    )


@problem("stochastic")
def logistic() -> Problem:
    """Logistic regression: which tumours are malignant.

    The 569 cases of the Wisconsin breast-cancer data with 30 measurements each
    (`sklearn.datasets.load_breast_cancer`), 3 : 1 : 1 for training, validation and test, batches of
    16. Convex, with strongly correlated inputs: tells apart who gets the plain things right.
    """
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    rows, held_out = _splits(data.data, data.target)

    def error(scores, outputs):
        return optax.sigmoid_binary_cross_entropy(scores, outputs).mean()

    return _linear(30, rows, held_out, error, steps=500, target=0.1)


@problem("stochastic")
def least_squares() -> Problem:
    """Least squares: how a patient's diabetes proceeds.

    The 442 patients of `sklearn.datasets.load_diabetes` with ten measurements each, outputs scaled
    to unit variance, 3 : 1 : 1 for training, validation and test, batches of 16. Much of the
    outcome cannot be predicted, so it tells apart who averages that noise away; the target is what
    the exact least-squares fit of the training rows reaches, and a twentieth.
    """
    from sklearn.datasets import load_diabetes

    data = load_diabetes()
    rows, held_out = _splits(data.data, (data.target - data.target.mean()) / data.target.std())

    def error(scores, outputs):
        return jnp.mean((scores - outputs) ** 2)

    def with_ones(inputs):
        return np.column_stack([inputs, np.ones(len(inputs))])

    fit, *_ = np.linalg.lstsq(with_ones(rows[0]), np.asarray(rows[1]), rcond=None)
    inputs, outputs = held_out["validation"]
    exact = float(np.mean((with_ones(inputs) @ fit - outputs) ** 2))
    return _linear(10, rows, held_out, error, steps=500, target=1.05 * exact)


@problem("stochastic")
def sensing() -> Problem:
    """An over-parameterised factorisation finds a matrix of rank two from random measurements.

    f(U, V) = mean of (⟨A, U Vᵀ⟩ - ⟨A, M⟩)² over 16 fresh Gaussian A a step; M is 20 x 20 of rank 2,
    the factors have ten columns. The loss reported is the expected one, ‖U Vᵀ - M‖² / ‖M‖². Tells
    apart who finds the low rank and who fills all ten columns with noise. After Gunasekar et al.,
    arXiv:1705.09280.
    """
    size, rank, width, count = 20, 2, 10, 16
    left, right = np.random.default_rng(0).normal(size=(2, size, rank)).astype(np.float32)
    matrix = left @ right.T
    matrix = matrix / np.linalg.norm(matrix)
    truth = jnp.asarray(matrix)

    def init(key):
        factors = 0.1 * jax.random.normal(key, (2, size, width))
        return {"left": factors[0], "right": factors[1]}

    def error(params):
        return params["left"] @ params["right"].T - truth

    def loss(params, key):
        measured = jnp.tensordot(jax.random.normal(key, (count, size, size)), error(params), 2)
        return jnp.mean(measured**2)

    def evaluate(params, split):
        return {"loss": jnp.sum(error(params) ** 2)}

    u, s, v = np.linalg.svd(matrix)
    roots = np.sqrt(s[:width])
    solution = {
        "left": jnp.asarray(u[:, :width] * roots),
        "right": jnp.asarray(v[:width].T * roots),
    }
    return Problem(init, loss, evaluate, steps=1000, target=1e-2, solution=solution)


@problem("stochastic")
def deep_linear() -> Problem:
    """Four linear layers in a row learn one matrix.

    f = ½ mean ‖W₄ W₃ W₂ W₁ x - M x‖² over 32 fresh normal x a step, layers of 12 x 12, M with
    singular values from 1 to 0.1; reported is the expected loss. No more expressive than one
    layer, but with plateaus at small weights that strong directions leave first: tells apart who
    moves weak directions too. After Saxe, McClelland and Ganguli, arXiv:1312.6120.
    """
    size, depth, count = 12, 4, 32
    rng = np.random.default_rng(0)
    u, _ = np.linalg.qr(rng.normal(size=(size, size)))
    v, _ = np.linalg.qr(rng.normal(size=(size, size)))
    matrix = jnp.asarray(u * np.geomspace(1, 0.1, size) @ v.T, jnp.float32)

    def init(key):
        weights = jax.random.normal(key, (depth, size, size)) * 0.5 / size**0.5
        return {f"layer_{i}": {"kernel": weights[i]} for i in range(depth)}

    def error(params):
        kernels = [params[f"layer_{i}"]["kernel"] for i in range(depth)]
        return reduce(jnp.matmul, kernels) - matrix

    def loss(params, key):
        inputs = jax.random.normal(key, (count, size))
        return jnp.sum((inputs @ error(params)) ** 2) / (2 * count)

    def evaluate(params, split):
        return {"loss": jnp.sum(error(params) ** 2) / 2}

    kernels = [matrix, *[jnp.eye(size)] * (depth - 1)]
    solution = {f"layer_{i}": {"kernel": kernel} for i, kernel in enumerate(kernels)}
    return Problem(init, loss, evaluate, steps=1000, target=1e-2, solution=solution)
