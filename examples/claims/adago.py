"""On function regression AdaGO beats Muon and Adam, depends less on the learning rate, and its
steps shrink by themselves.

The library's problem `regression`: a network with two hidden layers of 32 tanh units fits a smooth
function of eight variables from 32 fresh points a step, noise 0.1, 1000 steps; the loss is the mean
squared error without the noise. All rules run at constant learning rates, Muon also with warm-up
over a tenth of the steps and cosine decay to zero, at the same 21 rates from 0.0003 to 30; the rate
with the best validation loss is reported on the test split, ten seeds.

AdaGO and Muon share all but the step size: momentum 0.95 without Nesterov, no factor of the
matrix's shape, all three weight matrices orthogonalised, biases with Adam at 0.01, which is Adam's
own best rate here. (A first version tied the biases' rate to the matrices', as both rules do by
default. Their best rates lie far apart, so it compared how fast biases learn.) AdaGO's other
settings are gamma = 10, v0 = 10⁻⁶ and eps at a hundredth of the rate. Adam has Optax's defaults.
How far a rule depends on the rate is told by the decades of rates at which its test loss is within
twice that at its best one. A step's size is the root mean square of the singular values of what it
adds to the middle matrix.

The paper compares on a regression of its own, whose function is not public, and on CIFAR-10, which
is too large for here. It tells of better losses; that steps shrink follows from its rule, and that
rates matter less is what it is meant for.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
import optax
from shared import drawing, protocol
from shared.protocol import measured

import optzoo
from optzoo.problems import PROBLEMS

RATES = [float(f"{rate:.3g}") for rate in 10.0 ** np.arange(-3.5, 1.51, 0.25)]
DECADES = 0.25
BIASES = 0.01
SAME = {"include": "kernel", "scale": None, "nesterov": False}


def adago(learning_rate):
    eps = 0.01 * learning_rate
    return optzoo.adago(learning_rate, eps=eps, rest=optax.adam(BIASES), **SAME)


def muon(learning_rate, biases=BIASES):
    return optzoo.muon(learning_rate, rest=optax.adam(biases), **SAME)


def adam(learning_rate):
    return optax.adam(learning_rate)


def muon_scheduled(learning_rate, *, total_steps):
    rates = (optzoo.cosine(rate, total_steps) for rate in (learning_rate, BIASES))
    return muon(*rates)


RULES = (adago, muon, adam, muon_scheduled)
NAMES = ("AdaGO", "Muon", "Adam", "Muon, cosine")


def step_size(before, after, batch):
    step = after["layers_2"]["kernel"] - before["layers_2"]["kernel"]
    return {"step": jnp.linalg.norm(step) / len(step) ** 0.5}


def experiment(budget):
    problem = dataclasses.replace(PROBLEMS["regression"](), observe=step_size)
    results = protocol.compare(
        problem, RULES, lrs=RATES, seeds=budget.seeds(10), steps=budget.steps(problem.steps)
    )

    def losses(rule, rate=None):
        return protocol.final(results, "regression", rule.__name__, rate=rate)

    def decades(rule):
        """How many decades of rates bring each seed within twice the loss at the best one."""
        within = [losses(rule, rate) <= 2 * losses(rule) for rate in RATES]
        return DECADES * np.sum(within, axis=0)

    def steps(rule):
        sizes = protocol.curves(results, "regression", rule.__name__, "step")[:, :-1]
        # The first step of a warm-up is none.
        return np.where(sizes > 0, sizes, np.nan)

    wide = {rule: decades(rule) for rule in RULES}
    shrunk = {rule: steps(rule)[:, -1] / steps(rule)[:, 0] for rule in (adago, muon)}
    findings = []
    for rival, name in zip(RULES[1:], NAMES[1:], strict=True):
        findings.append(
            measured(
                f"test loss at the best rate, AdaGO over {name} ({losses(adago).mean():.2g} and "
                f"{losses(rival).mean():.2g}), expected below 1",
                losses(adago) / losses(rival),
                below=1,
                ratio=True,
                central=rival is not muon_scheduled,
            )
        )
    for rival, name in ((muon, "Muon"), (adam, "Adam")):
        findings.append(
            measured(
                f"decades of rates within twice the best loss, AdaGO minus {name} "
                f"({wide[adago].mean():.2g} and {wide[rival].mean():.2g}), expected above 0",
                wide[adago] - wide[rival],
                above=0,
                form="+.2f",
            )
        )
    findings.append(
        measured(
            f"last step over the first, AdaGO (Muon: {shrunk[muon].mean():.2g}), expected below "
            "a half",
            shrunk[adago],
            below=0.5,
            ratio=True,
        )
    )
    return findings, draw(results, losses, steps)


def draw(results, losses, steps):
    figure, (by_rate, course, sizes, best) = drawing.panels(
        "Learning rates",
        "Course at the best rate",
        "Steps at the best rate",
        "Loss at the best rate",
    )
    marks = protocol.checkpoints(results, "regression")
    for style, (rule, name) in enumerate(zip(RULES, NAMES, strict=True)):
        at_rates = np.stack([losses(rule, rate) for rate in RATES], axis=1)
        at_rates[~np.isfinite(at_rates)] = np.nan
        drawing.line(by_rate, RATES, at_rates, name, style, marker="o")
        curves = protocol.curves(results, "regression", rule.__name__)
        drawing.line(course, marks, curves, name, style)
        drawing.line(sizes, marks[:-1], steps(rule), name, style)
    drawing.bars(best, NAMES, [losses(rule) for rule in RULES], range(len(RULES)))
    loss = "mean squared error, noise left out"
    drawing.describe_axes(by_rate, "learning rate", loss, log_x=True, log_y=True)
    by_rate.set_ylim(top=10)
    drawing.describe_axes(course, "steps", loss, log_y=True)
    drawing.describe_axes(sizes, "steps", "size of a hidden matrix's step", log_y=True)
    drawing.describe_axes(best, loss, "")
    best.set_xlim(left=0)
    for one in (by_rate, course, sizes):
        drawing.name_lines(one)
    return figure


if __name__ == "__main__":
    protocol.main("adago", experiment)
