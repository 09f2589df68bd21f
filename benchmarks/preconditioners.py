"""SOAP against leaf-by-leaf code, and what staggering does to the times of single steps.

    python benchmarks/preconditioners.py                    23 million parameters
    python benchmarks/preconditioners.py --blocks 48 --width 16 --vocabulary 64    481 leaves
    python benchmarks/preconditioners.py --plot staggered.png

The other side is SOAP as its JAX ports have it: a loop over leaves, factors and moments one by
one, the momentum in the parameters' basis, a branch for each leaf. Both take the same steps in one
run, each first in turn; of a period of ten steps one renews the bases and nine do not.
"""

import functools
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

import common
import jax
import jax.numpy as jnp
import numpy as np
import optax

import optzoo

EVERY = 10


class LeafState(NamedTuple):
    """The moments, factors and bases of one leaf."""

    mean: jax.Array
    square: jax.Array
    factors: list[jax.Array]
    bases: list[jax.Array]


def leaf_by_leaf(learning_rate: float = 3e-3, b: float = 0.95) -> optax.GradientTransformation:
    """SOAP without weight decay, in the manner of its ports."""

    def matrices(p):
        return [jnp.zeros((n, n)) for n in p.shape if p.ndim > 1 and n <= 10_000]

    def axes(p):
        return [axis for axis, n in enumerate(p.shape) if p.ndim > 1 and n <= 10_000]

    def init(params):
        def one(p):
            return LeafState(jnp.zeros_like(p), jnp.zeros_like(p), matrices(p), matrices(p))

        return jnp.zeros([], jnp.int32), [one(p) for p in jax.tree.leaves(params)]

    def turn(x, bases, *, back):
        for axis, q in zip(axes(x), bases, strict=True):
            x = jnp.moveaxis(jnp.tensordot(x, q, (axis, int(back))), -1, axis)
        return x

    def first(g, s, count):
        bases = [jnp.linalg.eigh(f)[1][:, ::-1] for f in s.factors]
        return s._replace(bases=bases)

    def later(g, s, count):
        square, bases = s.square, []
        for axis, f, q in zip(axes(g), s.factors, s.bases, strict=True):
            order = jnp.argsort(-jnp.diag(q.T @ f @ q))
            square = jnp.take(square, order, axis)
            bases.append(jnp.linalg.qr(f @ q[:, order])[0])
        return s._replace(square=square, bases=bases)

    def one(count, g, s):
        mean = b * s.mean + (1 - b) * g
        h, m = turn(g, s.bases, back=False), turn(mean, s.bases, back=False)
        square = b * s.square + (1 - b) * h * h
        n = count.astype(jnp.float32)
        size = learning_rate * jnp.sqrt(1 - b**n) / (1 - b ** jnp.maximum(n, 1))
        u = -size * turn(m / (jnp.sqrt(square) + 1e-8), s.bases, back=True)
        u = jnp.where(count == 0, 0.0, u)
        mean, square = (jnp.where(count == 0, 0.0, x) for x in (mean, square))
        factors = [
            b * f + (1 - b) * jnp.tensordot(g, g, ([a for a in range(g.ndim) if a != axis],) * 2)
            for axis, f in zip(axes(g), s.factors, strict=True)
        ]
        s = LeafState(mean, square, factors, s.bases)
        branch = jnp.where(count == 0, 1, jnp.where(count % EVERY == 0, 2, 0))
        return u, jax.lax.switch(branch, [lambda g, s, c: s, first, later], g, s, count)

    def update(updates, state, params=None):
        count, states = state
        leaves, structure = jax.tree.flatten(updates)
        pairs = [one(count, g, s) for g, s in zip(leaves, states, strict=True)]
        out, states = zip(*pairs, strict=True)
        return structure.unflatten(out), (count + 1, list(states))

    return optax.GradientTransformation(init, update)


class Run:
    """A compiled rule that goes on step by step, and the CPU seconds of its compilation."""

    def __init__(self, tx: optax.GradientTransformation, shapes: Any) -> None:
        start = time.process_time()
        self.step = common.lowered(tx, shapes).compile()
        self.seconds = time.process_time() - start
        self.params = common.filled(shapes, 0)
        self.gradients = common.filled(shapes, 1)
        self.state = jax.tree.map(jnp.copy, tx.init(self.params))

    def __call__(self) -> None:
        made = self.step(self.params, self.state, self.gradients)
        self.params, self.state = jax.block_until_ready(made)


def plot(path: Path, times: dict[str, list[float]]) -> None:
    """The times of single steps, with and without staggering."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3), layout="constrained")
    for name, seconds in times.items():
        axes.plot(1e3 * np.asarray(seconds), marker=".", label=name)
    axes.set(xlabel="step", ylabel="ms", ylim=(0, None))
    axes.legend()
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--blocks", type=int, default=6, help="of the model; 6 by default")
    parser.add_argument("--width", type=int, default=512, help="of the model; 512 by default")
    parser.add_argument("--vocabulary", type=int, default=8192, help="8192 by default")
    parser.add_argument("--periods", type=int, default=3, help="of ten steps; 3 by default")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="a picture of single steps")
    options = parser.parse_args()
    shapes = common.model(options.blocks, options.width, options.vocabulary)
    ours = functools.partial(optzoo.soap, weight_decay=0.0, every=EVERY)
    runs = {
        "optzoo": Run(ours(), shapes),
        "optzoo, staggered": Run(ours(stagger=True), shapes),
        "leaf by leaf": Run(leaf_by_leaf(), shapes),
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    order = list(runs)
    for count in range(1 + EVERY * options.periods):
        for name in order:
            start = time.perf_counter()
            runs[name]()
            if count:
                times[name].append(time.perf_counter() - start)
        order.append(order.pop(0))
    rows = []
    for name, run in runs.items():
        periods = np.reshape(times[name], (options.periods, EVERY))
        rows.append(
            {
                "code": name,
                "leaves": len(jax.tree.leaves(shapes)),
                "trace and compile s": run.seconds,
                "median step ms": 1e3 * statistics.median(times[name]),
                "mean step ms": 1e3 * float(np.mean(periods)),
                "slowest over mean": float(np.median(periods.max(1) / periods.mean(1))),
                "median over leaf by leaf": common.ratio(times[name], times["leaf by leaf"]),
                "compilation over leaf by leaf": run.seconds / runs["leaf by leaf"].seconds,
            }
        )
    common.report(rows, options)
    if options.plot:
        plot(options.plot, times)


if __name__ == "__main__":
    main()
