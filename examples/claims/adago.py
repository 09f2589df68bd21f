"""AdaGO beats Muon and Adam on function regression and on images, and its steps stay orthogonal.

Regression: the library's problem of that name, a network with two hidden layers of 32 tanh units
that fits a smooth function of eight variables from 32 fresh points a step, noise 0.1, 1000 steps;
the loss is the mean squared error without the noise. Images: the library's `digits`, a perceptron
with two hidden layers on scikit-learn's digits, 400 steps of 64, judged by its cross-entropy. All
rules run at constant learning rates, Muon also with warm-up over a tenth of the steps and cosine
decay to zero, at the same eleven rates from 0.0003 to 30; the rate with the best validation loss is
reported on the test split, five seeds.

AdaGO and Muon share all but the step size: momentum 0.95 without Nesterov, no factor of the
matrix's shape, all three weight matrices orthogonalised, biases with Adam at 0.01, which is Adam's
own best rate in the regression. (A first version tied the biases' rate to the matrices', as both
rules do by default. Their best rates lie far apart, so it compared how fast biases learn.) AdaGO's
other settings are gamma = 10, v0 = 10⁻⁶ and eps at a hundredth of the rate. Adam has Optax's
defaults.

A step is as orthogonal as its singular values are equal. That is told by the effective rank of what
it adds to the middle matrix, tr(G)² / (n tr(G²)) for its Gram matrix G of n rows, from 1/n to 1, in
the regression, as a mean over the run; AdaGO keeps what Muon has if it has at least 0.95 of that.
"Better" is a lower test loss.

Two questions are ours, not the paper's: how far a rule depends on the rate, told by the decades of
rates at which its test loss in the regression is within twice that at its best one; and whether
steps shrink, told by the root mean square of the singular values of the last step and the first.

The paper's regression is not public, and its images are CIFAR-10's, which are too large for here.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
import optax
from shared import drawing, protocol
from shared.protocol import claimed, measured

import optzoo
from optzoo.problems import PROBLEMS

DECADES = 0.5
RATES = [float(f"{rate:.3g}") for rate in 10.0 ** np.arange(-3.5, 1.51, DECADES)]
BIASES, SEEDS, KEPT = 0.01, 5, 0.95
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
PROBLEM_NAMES = {"regression": "regression", "digits": "images"}


def of_the_step(before, after, batch):
    """The size of the middle matrix's step and its effective rank."""
    step = after["layers_2"]["kernel"] - before["layers_2"]["kernel"]
    gram = step.T @ step
    size = jnp.trace(gram)
    rank = size**2 / (len(gram) * jnp.sum(gram**2))
    return {"step": (size / len(gram)) ** 0.5, "rank": rank}


def experiment(budget):
    problems = {name: PROBLEMS[name]() for name in PROBLEM_NAMES}
    results = protocol.compare(
        [
            dataclasses.replace(one, observe=of_the_step, steps=budget.steps(one.steps))
            for one in problems.values()
        ],
        RULES,
        lrs=RATES,
        seeds=budget.seeds(SEEDS),
    )

    def losses(rule, rate=None, problem="regression"):
        return protocol.final(results, problem, rule.__name__, rate=rate)

    def decades(rule):
        """How many decades of rates bring each seed within twice the loss at the best one."""
        within = [losses(rule, rate) <= 2 * losses(rule) for rate in RATES]
        return DECADES * np.sum(within, axis=0)

    def curves(rule, metric):
        values = protocol.curves(results, "regression", rule.__name__, metric)[:, :-1]
        # The first step of a warm-up is none, which has no rank.
        return np.where(values > 0, values, np.nan)

    findings = []
    for problem, what in PROBLEM_NAMES.items():
        ours = losses(adago, problem=problem)
        for rival, name in ((muon, "Muon"), (adam, "Adam")):
            theirs = losses(rival, problem=problem)
            findings.append(
                claimed(
                    f"test loss on {what}, {name} over AdaGO",
                    theirs / ours,
                    means=f"{theirs.mean():.2g} and {ours.mean():.2g}",
                )
            )
    ranks = {rule: np.nanmean(curves(rule, "rank"), axis=1) for rule in (adago, muon, adam)}
    findings.append(
        claimed(
            "effective rank of a step, AdaGO over Muon",
            ranks[adago] / ranks[muon],
            least=KEPT,
            means=f"{ranks[adago].mean():.2g} and {ranks[muon].mean():.2g}; "
            f"Adam {ranks[adam].mean():.2g}",
        )
    )
    findings.append(
        measured(
            f"test loss on regression, Muon under a cosine schedule "
            f"({losses(muon_scheduled).mean():.2g}) over AdaGO, above 1 if a schedule does not do "
            "what AdaGO does",
            losses(muon_scheduled) / losses(adago),
            above=1,
            ratio=True,
        )
    )
    wide = {rule: decades(rule) for rule in RULES}
    for rival, name in ((muon, "Muon"), (adam, "Adam")):
        findings.append(
            measured(
                f"decades of rates within twice the best loss, AdaGO minus {name} "
                f"({wide[adago].mean():.2g} and {wide[rival].mean():.2g}), above 0 if it depends "
                "less on the rate",
                wide[adago] - wide[rival],
                above=0,
                form="+.2f",
            )
        )
    sizes = {rule: curves(rule, "step") for rule in RULES}
    shrunk = {rule: sizes[rule][:, -1] / sizes[rule][:, 0] for rule in (adago, muon)}
    findings.append(
        measured(
            f"last step over the first, AdaGO (Muon: {shrunk[muon].mean():.2g}), below a half if "
            "steps shrink",
            shrunk[adago],
            below=0.5,
            ratio=True,
        )
    )
    return findings, draw(results, losses, sizes)


def draw(results, losses, sizes):
    figure, (by_rate, course, shrinking, image_rates, image_course, best) = drawing.panels(
        "Regression: learning rates",
        "Regression: course at the best rate",
        "Regression: steps at the best rate",
        "Images: learning rates",
        "Images: course at the best rate",
        "Test loss over AdaGO's",
    )
    for style, (rule, name) in enumerate(zip(RULES, NAMES, strict=True)):
        for problem, rates, curve in (
            ("regression", by_rate, course),
            ("digits", image_rates, image_course),
        ):
            at_rates = np.stack([losses(rule, rate, problem) for rate in RATES], axis=1)
            at_rates[~np.isfinite(at_rates)] = np.nan
            drawing.line(rates, RATES, at_rates, name, style, marker="o")
            marks = protocol.checkpoints(results, problem)
            values = protocol.curves(results, problem, rule.__name__)
            drawing.line(curve, marks, values, name, style)
        drawing.line(
            shrinking, protocol.checkpoints(results, "regression")[:-1], sizes[rule], name, style
        )
    rows = [(rule, problem) for problem in PROBLEM_NAMES for rule in RULES[1:]]
    drawing.bars(
        best,
        [f"{NAMES[RULES.index(rule)]}, {PROBLEM_NAMES[problem]}" for rule, problem in rows],
        [losses(rule, problem=problem) / losses(adago, problem=problem) for rule, problem in rows],
        [RULES.index(rule) for rule, _ in rows],
    )
    best.axvline(1, color=drawing.GREY, linewidth=0.8, zorder=0)
    error, entropy = "mean squared error, noise left out", "cross-entropy"
    drawing.describe_axes(by_rate, "learning rate", error, log_x=True, log_y=True)
    drawing.describe_axes(image_rates, "learning rate", entropy, log_x=True, log_y=True)
    drawing.describe_axes(course, "steps", error, log_y=True)
    drawing.describe_axes(image_course, "steps", entropy, log_y=True)
    drawing.describe_axes(shrinking, "steps", "size of a hidden matrix's step", log_y=True)
    drawing.describe_axes(best, "ratio (dot: mean, bar: all seeds)", "")
    best.set_xlim(left=0)
    by_rate.set_ylim(top=10)
    image_rates.set_ylim(top=10)
    for one in (by_rate, course, shrinking, image_rates, image_course):
        drawing.name_lines(one)
    return figure


if __name__ == "__main__":
    protocol.main("adago", experiment)
