"""Analytic problems: their minima are known and they need no data."""

import jax
import jax.numpy as jnp
import numpy as np

from optzoo.problems.base import Problem, problem


@problem
def rosenbrock() -> Problem:
    """Rosenbrock's curved valley in two dimensions, without noise.

    f(x, y) = (1 - x)² + 100 (y - x²)², lowest at (1, 1). Runs start near the classic
    (-1.2, 1). Tells apart who follows a narrow bent valley and who bounces between its walls.
    """

    def init(key):
        return {"point": jnp.array([-1.2, 1.0]) + 0.1 * jax.random.normal(key, (2,))}

    def loss(params, batch):
        x, y = params["point"]
        return (1 - x) ** 2 + 100 * (y - x**2) ** 2

    def evaluate(params, split):
        return {"loss": loss(params, None)}

    return Problem(init, loss, evaluate, steps=2000, target=1e-3)


@problem
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

    return Problem(init, loss, evaluate, steps=1000, target=0.1)
