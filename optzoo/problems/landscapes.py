"""Analytic landscapes: no data, no noise (but for one), and minima that are known.

Each is written as its height above its lowest point, so that 0 is the best possible loss.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from optzoo.problems.base import Box, Problem, problem


def landscape(
    height: Callable[[jax.Array], jax.Array],
    start: Sequence[float] | np.ndarray,
    solution: Sequence[float] | np.ndarray,
    *,
    steps: int,
    target: float,
    spread: float = 0.1,
    box: Box | None = None,
    lowest: float = 0.0,
) -> Problem:
    """The problem of descending a function of one vector.

    Args:
      height: vector -> scalar.
      start: where runs start, but for normal noise of scale `spread`.
      solution: a lowest point.
      steps, target, box, lowest: as in `Problem`.
      spread: how far apart the seeds start.
    """
    origin = jnp.asarray(start, jnp.float32)

    def init(key):
        return {"point": origin + spread * jax.random.normal(key, origin.shape)}

    def loss(params, batch):
        return height(params["point"])

    def evaluate(params, split):
        place = dict(zip("xy", params["point"], strict=True)) if box else {}
        return {"loss": height(params["point"])} | place

    best = {"point": jnp.asarray(solution, jnp.float32)}
    return Problem(init, loss, evaluate, steps, target, solution=best, lowest=lowest, box=box)


@problem("landscapes", default=True)
def rosenbrock() -> Problem:
    """Rosenbrock's curved valley in two dimensions, without noise.

    f(x, y) = (1 - x)² + 100 (y - x²)², lowest at (1, 1). Runs start near the classic
    (-1.2, 1). Tells apart who follows a narrow bent valley and who bounces between its walls.
    Source: H. H. Rosenbrock, The Computer Journal 3 (1960).
    """
    return landscape(
        _rosenbrock, (-1.2, 1.0), (1.0, 1.0), steps=2000, target=1e-3, box=(-2.0, 2.0, -1.0, 3.0)
    )


@problem("landscapes")
def rosenbrock_100() -> Problem:
    """Rosenbrock's curved valley in a hundred dimensions.

    The sum of (1 - xᵢ)² + 100 (xᵢ₊₁ - xᵢ²)² over i < 100, lowest at (1, …, 1). The valley bends
    one coordinate after the other, so it tells apart who keeps going for thousands of steps.
    """
    start = np.tile((-1.2, 1.0), 50)
    return landscape(_rosenbrock, start, np.ones(100), steps=5000, target=1.0)


def _rosenbrock(point):
    x, following = point[:-1], point[1:]
    return jnp.sum((1 - x) ** 2 + 100 * (following - x**2) ** 2)


@problem("landscapes")
def beale() -> Problem:
    """Beale's plateaus between steep walls.

    f(x, y) = (1.5 - x + xy)² + (2.25 - x + xy²)² + (2.625 - x + xy³)², lowest at (3, 0.5), here
    from (1, 1.5). Tells apart who crosses flat ground fast after a cliff. Source: E. M. L. Beale,
    On an Iterative Method for Finding a Local Minimum of a Function (1958).
    """

    def height(point):
        x, y = point
        return sum((c - x + x * y**k) ** 2 for k, c in enumerate((1.5, 2.25, 2.625), 1))

    return landscape(
        height, (1.0, 1.5), (3.0, 0.5), steps=2000, target=1e-3, box=(-0.5, 4.5, -1.0, 2.0)
    )


@problem("landscapes")
def rastrigin() -> Problem:
    """Rastrigin's egg box: a bowl full of dents.

    f(x) = Σ xᵢ² + 10 (1 - cos 2πxᵢ) in two dimensions, lowest at 0, here from about (3.4, -2.6).
    Every dent is a local minimum: only large or momentous steps get further in. The target, 1.5,
    lies in the innermost dents. Source: L. A. Rastrigin, Systems of Extremal Control (1974).
    """

    def height(point):
        return jnp.sum(point**2 + 10 * (1 - jnp.cos(2 * jnp.pi * point)))

    return landscape(
        height,
        (3.4, -2.6),
        (0.0, 0.0),
        steps=1000,
        target=1.5,
        spread=0.5,
        box=(-5.1, 5.1, -5.1, 5.1),
    )


@problem("landscapes")
def styblinski_tang() -> Problem:
    """Styblinski and Tang's four basins of different depth.

    f(x) = ½ Σ xᵢ⁴ - 16 xᵢ² + 5 xᵢ in two dimensions, lowest where both are -2.9035, here from
    (0.5, 0.2) beside the central hill. Tells apart who falls into the nearest basin. Source: M. A.
    Styblinski and T.-S. Tang, Neural Networks 3 (1990).
    """
    # Where the derivative 4x³ - 32x + 5 vanishes; the height is then factored, which keeps its
    # digits: x⁴ - 16x² + 5x - f(a) = (x - a)² (x² + 2ax + 3a² - 16).
    a = float(np.roots([4, 0, -32, 5]).real.min())

    def height(point):
        return jnp.sum((point - a) ** 2 * (point**2 + 2 * a * point + 3 * a**2 - 16)) / 2

    return landscape(
        height, (0.5, 0.2), (a, a), steps=500, target=1e-3, spread=0.3, box=(-5.0, 5.0, -5.0, 5.0)
    )


@problem("landscapes")
def himmelblau() -> Problem:
    """Himmelblau's four equal minima.

    f(x, y) = (x² + y - 11)² + (x + y² - 7)², which is 0 at (3, 2) and at three other points, here
    from the hill at (-0.27, -0.92) between them. Tells apart who leaves a hilltop quickly and then
    settles. Source: D. M. Himmelblau, Applied Nonlinear Programming (1972).
    """

    def height(point):
        x, y = point
        return (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2

    return landscape(
        height, (-0.27, -0.92), (3.0, 2.0), steps=500, target=1e-3, box=(-5.0, 5.0, -5.0, 5.0)
    )


@problem("landscapes")
def saddle() -> Problem:
    """A saddle to get off, with a minimum on either side.

    f(x, y) = x² + ¼ (y² - 1)², lowest at (0, ±1), from (1, 0) with y off the ridge by no more than
    about a thousandth: the gradient that leads away is tiny, and who scales it up is free soon.
    """

    def height(point):
        x, y = point
        return x**2 + (y**2 - 1) ** 2 / 4

    return landscape(
        height,
        (1.0, 0.0),
        (0.0, 1.0),
        steps=300,
        target=1e-3,
        spread=1e-3,
        box=(-1.2, 1.2, -1.6, 1.6),
    )


@problem("landscapes")
def diffgrad_1() -> Problem:
    """The first function of the diffGrad paper: a deep dent and a shallow one.

    f(x) = (x + 0.3)² left of 0 and (x - 0.2)² + 0.05 right of it, from x = -1. The deep minimum
    comes first: tells apart who settles there and who overshoots it. Source: S. R. Dubey et al.,
    arXiv:1909.11015, section IV.
    """

    def height(point):
        return jnp.where(point <= 0, (point + 0.3) ** 2, (point - 0.2) ** 2 + 0.05).sum()

    return landscape(height, (-1.0,), (-0.3,), steps=300, target=1e-4)


@problem("landscapes")
def diffgrad_2() -> Problem:
    """The second function of the diffGrad paper: a steep slope into waves.

    f(x) = -40x - 35.15 left of -0.9 and x³ + x sin 8x + 0.85 right of it, from x = -1, here above
    its lowest value. A gradient forty times larger than those that follow comes first: tells apart
    whose memory of it costs the deep minimum.
    """

    def raw(x, xp):
        return xp.where(x <= -0.9, -40 * x - 35.15, x**3 + x * xp.sin(8 * x) + 0.85)

    grid = np.linspace(-0.9, 1.0, 2_000_001)
    best = grid[raw(grid, np).argmin()]
    bottom = float(raw(best, np))

    def height(point):
        return jnp.maximum(raw(point, jnp) - bottom, 0).sum()

    return landscape(height, (-1.0,), (best,), steps=300, target=1e-4, spread=0.02)


@problem("landscapes")
def diffgrad_3() -> Problem:
    """The third function of the diffGrad paper: a sharp minimum between two traps.

    f(x) = x² left of -0.5, 0.75 + x up to -0.4, ⅞|x| between ±0.4, and the mirror image on the
    right; from x = -1. Tells apart who gets over the wall at -0.4 and then stops on a kink.
    """

    def height(point):
        x = jnp.abs(point)
        return jnp.where(x > 0.5, x**2, jnp.where(x > 0.4, 0.75 - x, 0.875 * x)).sum()

    return landscape(height, (-1.0,), (0.0,), steps=300, target=1e-2)


@problem("landscapes")
def reddi() -> Problem:
    """Reddi, Kale and Kumar's rare large gradients, which lead Adam astray.

    The slope is 1010 in one of 101 steps and -10 in the others, as in the paper; the bowl
    5 (x + 1)² takes the place of the paper's walls and leads, on average, to -1, while what comes
    most often leads back to 0, where runs start. Tells apart who averages squares for long
    enough, or none at all. Source: arXiv:1904.09237, section 3.
    """
    often, rare, one_in = -10.0, 1010.0, 101
    # What the slopes have beyond their mean is the noise.
    mean = (rare + (one_in - 1) * often) / one_in

    def evaluate(params, split):
        return {"loss": 5 * ((params["point"] + 1) ** 2).sum()}

    def loss(params, key):
        slope = jnp.where(jax.random.randint(key, (), 0, one_in) == 0, rare, often) - mean
        return evaluate(params, "train")["loss"] + (slope * params["point"]).sum()

    def init(key):
        return {"point": 0.1 * jax.random.normal(key, (1,))}

    solution = {"point": -jnp.ones(1)}
    return Problem(init, loss, evaluate, steps=3000, target=1.0, solution=solution)
