"""The best learning rate of a narrow network and of wide ones, with µP and without.

    python benchmarks/rate_transfer.py                                        two tables
    python benchmarks/rate_transfer.py --plot benchmarks/rate_transfer.png    and the losses by rate

The network is that of the problem `digits` in several widths, trained by Adam; the narrowest is the
base model. The first table is about the training loss over the last tenth of a run, the mean over
seeds; the second is the coordinate check, which tells whose activations grow with the width.
"""

from collections.abc import Iterator
from functools import partial

import common
import jax
import jax.numpy as jnp
import numpy as np
import optax

import optzoo
from optzoo.problems.vision import digit_reader
from optzoo.testing import coordinate_check

WIDTHS = (64, 256, 1024)
RATES = 2.0 ** np.arange(-12, -2)
STEPS, SEEDS, CHECKED = 150, 3, 20


class Model:
    """The network in one width: its start, steps and evaluation, in µP or in the usual way."""

    def __init__(self, width: int, scaled: bool) -> None:
        base = jax.eval_shape(digit_reader(width=WIDTHS[0]).init, jax.random.key(0))
        direction = optzoo.primitives.adam()
        if scaled:
            direction = optax.chain(direction, optzoo.scale_by_width(base))
        self.direction, self.problem = direction, digit_reader(width=width)
        self.prepare = partial(optzoo.width_init, base_shapes=base) if scaled else lambda p: p
        self.readout = partial(optzoo.width_readout, base_shapes=base) if scaled else lambda p: p

    def init(self, key: jax.Array) -> tuple[common.Tree, common.Tree]:
        params = self.prepare(self.problem.init(key))
        return params, self.direction.init(params)

    def step(self, carry, rate, batch):
        params, state = carry
        loss, gradient = jax.value_and_grad(lambda p: self.problem.loss(self.readout(p), batch))(
            params
        )
        updates, state = self.direction.update(gradient, state, params)
        params = optax.apply_updates(params, jax.tree.map(lambda u: -rate * u, updates))
        return (params, state), loss

    def loss(self, rate: jax.Array, key: jax.Array) -> jax.Array:
        """The training loss at the end of a run at one rate."""

        def step(carry, index):
            return self.step(carry, rate, self.problem.draw(key, index))

        _, losses = jax.lax.scan(step, self.init(key), jnp.arange(STEPS))
        return jnp.mean(losses[-STEPS // 10 :])

    def activations(self, rate: float) -> Iterator[dict[str, jax.Array]]:
        """The outputs of every layer on one batch, before the first step and after each."""
        key = jax.random.key(0)
        batch, carry, step = self.problem.batch(key), self.init(key), jax.jit(self.step)
        for index in range(CHECKED + 1):
            x, seen = batch[0], {}
            for name, layer in self.readout(carry[0]).items():
                x = seen[name] = jax.nn.relu(x) @ layer["kernel"] + layer["bias"]
            yield seen
            carry, _ = step(carry, rate, self.problem.draw(key, jnp.asarray(index)))


def losses(width: int, scaled: bool) -> np.ndarray:
    """The mean loss at every rate."""
    keys = jax.random.split(jax.random.key(1), SEEDS)
    over_seeds = jax.vmap(Model(width, scaled).loss, in_axes=(None, 0))
    run = jax.jit(lambda rate: jnp.mean(over_seeds(rate, keys)))
    return np.array([run(rate) for rate in jnp.asarray(RATES, jnp.float32)])


def plot(curves: dict[str, dict[int, np.ndarray]], path: str) -> None:
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
    for panel, (name, by_width) in zip(panels, curves.items(), strict=True):
        for width, found in by_width.items():
            (line,) = panel.loglog(RATES, found, label=f"width {width}", base=2)
            best = np.nanargmin(found)
            panel.plot(RATES[best], found[best], "o", color=line.get_color())
        panel.set(title=name, xlabel="learning rate", ylim=(0.005, 3))
        panel.set_yscale("log")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("training loss")
    panels[0].legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--plot", metavar="FILE", help="draw the losses, too")
    options = parser.parse_args()
    curves, rows, checks = {}, [], []
    for name, scaled in (("usual", False), ("µP", True)):
        curves[name] = {width: losses(width, scaled) for width in WIDTHS}
        carried = int(np.nanargmin(curves[name][WIDTHS[0]]))
        for width, found in curves[name].items():
            best = int(np.nanargmin(found))
            rows.append(
                {
                    "parametrisation": name,
                    "width": width,
                    "best rate": f"2^{np.log2(RATES[best]):.0f}",
                    "its loss": round(float(found[best]), 3),
                    f"loss at width {WIDTHS[0]}'s": round(float(found[carried]), 3),
                }
            )
        rate = float(RATES[carried])
        check = coordinate_check(
            lambda width, scaled=scaled, rate=rate: Model(width, scaled).activations(rate), WIDTHS
        )
        checks.append(f"{name}, {check}")
    common.report(rows, options)
    print("", *checks, sep="\n")
    if options.plot:
        plot(curves, options.plot)


if __name__ == "__main__":
    main()
