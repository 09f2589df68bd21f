"""The orthogonalisers alone: time, operations and error, by shape, condition and coefficients.

    python benchmarks/orthogonalize.py                       three tables
    python benchmarks/orthogonalize.py --plot errors.png     and the error against iterations

`step by step` is the iteration as published, on X; ours multiplies steps out on the Gram matrix
where that is less work. Errors are relative to the published iteration in float64.
"""

import statistics
from functools import partial

import common
import jax
import jax.numpy as jnp
import numpy as np

from optzoo import primitives

SCHEDULES = {
    "KELLER_JORDAN": lambda steps: primitives.KELLER_JORDAN * steps,
    "DION": lambda steps: (primitives.DION + primitives.DION[-1:] * steps)[:steps],
    "polar_express": primitives.polar_express,
}


def published(x, coefficients):
    """The iteration as published, in the dtype of x."""
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (jnp.linalg.norm(x, axis=(-2, -1), keepdims=True) + 1e-7)
    for a, b, c in coefficients:
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


def matrix(rows: int, columns: int, values: np.ndarray, seed: int = 0) -> np.ndarray:
    """A matrix with these singular values, rounded to float32."""
    rng = np.random.default_rng(seed)
    left = np.linalg.qr(rng.standard_normal((rows, rows)))[0]
    right = np.linalg.qr(rng.standard_normal((columns, rows)))[0]
    return (left * values @ right.T).astype(np.float32)


def spectra(n: int) -> dict[str, np.ndarray]:
    """Singular values: well and ill conditioned, few, and none."""
    conditions = {f"condition 1e{k}": np.logspace(0, -k, n) for k in (0, 2, 4, 8)}
    quarter = np.where(np.arange(n) < n // 4, 1.0, 0.0)
    return conditions | {"quarter of the rank": quarter, "zero": np.zeros(n)}


def blocking(run, x):
    """Waits for the result."""
    jax.block_until_ready(run(x))


def times(shapes, seconds: float) -> list[common.Row]:
    """Time and operations by shape."""
    rows = []
    for shape in shapes:
        x = jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)
        candidates = {
            "ours": primitives.newton_schulz(),
            "step by step": lambda x: published(x, SCHEDULES["KELLER_JORDAN"](5)),
        }
        runs = {name: jax.jit(fn).lower(x).compile() for name, fn in candidates.items()}
        calls = {name: partial(blocking, run, x) for name, run in runs.items()}
        spent = common.paired(calls, seconds)
        flops = {name: run.cost_analysis()["flops"] for name, run in runs.items()}
        rows.append(
            {
                "shape": "×".join(map(str, shape)),
                "ours ms": 1e3 * statistics.median(spent["ours"]),
                "step by step ms": 1e3 * statistics.median(spent["step by step"]),
                "times faster": common.ratio(spent["step by step"], spent["ours"]),
                "operations saved": 1 - flops["ours"] / flops["step by step"],
            }
        )
    return rows


def deviations(rows_: int, columns: int) -> list[common.Row]:
    """How far float32 and bfloat16 are from float64, by condition."""
    rows = []
    for spectrum, values in spectra(rows_).items():
        x = matrix(rows_, columns, values)
        row: common.Row = {"matrix": f"{rows_}×{columns}, {spectrum}"}
        for name, schedule in SCHEDULES.items():
            coefficients = schedule(5)
            with jax.enable_x64(True):
                reference = np.asarray(published(jnp.asarray(x, jnp.float64), coefficients))
            whole = max(float(np.linalg.norm(reference)), 1e-30)
            ours = {
                "float32": primitives.newton_schulz(coefficients=coefficients),
                "bfloat16": primitives.newton_schulz(coefficients=coefficients, dtype="bfloat16"),
                "float32 as published": lambda x, c=coefficients: published(x, c),
            }
            for kind, fn in ours.items():
                row[f"{name} {kind}"] = (
                    float(np.linalg.norm(fn(jnp.asarray(x)) - reference)) / whole
                )
        rows.append(row)
    return rows


def errors(n: int, most: int) -> list[common.Row]:
    """The mean distance of singular values from 1 after so many iterations, of a normal matrix."""
    x = jnp.asarray(np.random.default_rng(0).standard_normal((n, 2 * n)), jnp.float32)
    square = x[:, :n]
    rows = []
    for steps in range(1, most + 1):
        row: common.Row = {"iterations": steps}
        for name, schedule in SCHEDULES.items():
            for label, matrix_ in (("square", square), ("1:2", x)):
                out = primitives.newton_schulz(steps, coefficients=schedule(steps))(matrix_)
                values = np.linalg.svd(np.asarray(out), compute_uv=False)
                row[f"{name} {label}"] = float(np.sqrt(np.mean((values - 1) ** 2)))
        rows.append(row)
    return rows


def plot(rows: list[common.Row], path: str) -> None:
    """Orthogonality error against iterations."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    steps = [row["iterations"] for row in rows]
    for panel, label in zip(axes, ("square", "1:2"), strict=True):
        for name, marker in zip(SCHEDULES, "osD", strict=True):
            values = [row[f"{name} {label}"] for row in rows]
            panel.semilogy(steps, values, marker=marker, markersize=5, label=name)
        panel.set_title("square matrix" if label == "square" else "twice as wide as high")
        panel.set_xlabel("iterations")
        panel.set_xticks(steps)
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("root mean square of σ − 1")
    axes[1].legend(frameon=False)
    figure.suptitle("Orthogonality error of a normal random matrix, float32")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=2, help="a shape; 2 by default")
    parser.add_argument("--most", type=int, default=8, help="iterations to try; 8 by default")
    parser.add_argument("--plot", metavar="PNG", help="draw the errors")
    options = parser.parse_args()
    shapes = [(6, 256, 256), (6, 256, 384), (6, 256, 1024), (6, 1024, 256), (512, 2048)]
    parts = {
        "time by shape": times(shapes, options.seconds),
        "deviation by condition": deviations(128, 512),
        "error by iterations": errors(256, options.most),
    }
    if options.plot:
        plot(parts["error by iterations"], options.plot)
    common.report_parts(parts, options)


if __name__ == "__main__":
    main()
