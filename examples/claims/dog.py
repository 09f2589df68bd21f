"""DoG needs no learning rate and comes close to tuned SGD; its first step hardly matters.

Four problems of the library, each for twice its usual number of steps, since DoG has to find its
step size first: `logistic` and `least_squares` (convex, real data), `digits` (a perceptron) and
`language` (a small transformer). All of them are judged on held-out data, as the paper's are.

DoG and LDoG run as they are, with nothing tuned and their averages evaluated, at r_epsilon
(`reps_rel`) from 1e-8 to 1e-2; the results are those at the default, 1e-6. SGD has the best of
seven learning rates, half decades about 0.1, extended by as many for anybody whose best is the
outermost, chosen by the validation loss: once as in most of the paper, constant, without momentum,
with the same averaging as DoG, and once with momentum 0.9, warm-up and cosine decay. Five seeds,
paired: equal seeds start equal and see the same batches.

The paper compares errors: "close" is taken as a test loss at most a tenth above that of tuned SGD
without momentum, geometric mean over the problems. "Insensitive": between the best and the worst
r_epsilon from 1e-8 to 1e-4 the loss of a seed changes by less than a tenth, too, in the same mean;
what merely chance changes counts as well. 1e-2 is shown beside them. Averaging is measured within
the same run. What this scale lacks: pretrained models to fine-tune, where the paper finds DoG best,
and tens of thousands of steps, over which the first ones count less.
"""

import dataclasses

import numpy as np
import optax
from shared import drawing, protocol
from shared.protocol import measured

import optzoo
from optzoo.compare.plan.grid import Grid
from optzoo.primitives import polynomial_average
from optzoo.problems import PROBLEMS

NAMES = ("logistic", "least_squares", "digits", "language")
SEEDS, LONGER, MARGIN = 5, 2, 1.1
FIRST_STEPS, DEFAULT, SMALL = (1e-8, 1e-6, 1e-4, 1e-2), 1e-6, 1e-4
GRID = Grid.of([10 ** (power / 2) for power in range(-3, 4)], relative=True)


# What is swept of these two is the first movement, in place of a learning rate.
def dog(learning_rate=DEFAULT):
    return optzoo.dog(reps_rel=learning_rate)


def ldog(learning_rate=DEFAULT):
    return optzoo.ldog(reps_rel=learning_rate)


def sgd(learning_rate=0.1):
    return polynomial_average(optax.sgd(learning_rate))


def sgd_cosine(learning_rate=0.1, *, total_steps):
    return optax.sgd(optzoo.cosine(learning_rate, total_steps), 0.9)


FREE, TUNED = (dog, ldog), (sgd, sgd_cosine)
LABELS = {dog: "DoG", ldog: "LDoG", sgd: "SGD", sgd_cosine: "SGD, cosine"}


def watched(problem, steps):
    """The problem, also reporting the test loss of the last iterate beside the average's."""

    def evaluate(params, split):
        test = problem.evaluate(params, "test")["loss"]
        return {"loss": problem.evaluate(params, split)["loss"], "average": test}

    def observe(before, after, batch):
        return {"last": problem.evaluate(before, "test")["loss"]}

    return dataclasses.replace(problem, steps=steps, evaluate=evaluate, observe=observe)


def experiment(budget):
    declared = {name: PROBLEMS[name]() for name in NAMES}
    problems = [watched(one, budget.steps(LONGER * one.steps)) for one in declared.values()]
    seeds = budget.seeds(SEEDS)
    free = protocol.compare(problems, FREE, lrs=FIRST_STEPS, seeds=seeds)
    tuned = protocol.compare(problems, TUNED, lrs=GRID, seeds=seeds)

    def curves(name, rule, metric="average"):
        results, rate = (free, DEFAULT) if rule in FREE else (tuned, None)
        return protocol.curves(results, name, rule.__name__, metric, rate=rate)

    def ratios(rule, other):
        """Test loss over that of another rule, mean over the problems, one a seed."""
        each = [np.log(curves(n, rule)[:, -1] / curves(n, other)[:, -1]) for n in NAMES]
        return np.exp(np.mean(each, axis=0))

    def by_first_step(rule):
        """name -> test losses, shape (seeds, first steps)."""
        return {
            name: np.stack(
                [protocol.final(free, name, rule.__name__, rate=rate) for rate in FIRST_STEPS],
                axis=1,
            )
            for name in NAMES
        }

    def sensitivity(rule):
        """Worst over best first step, mean over the problems, one a seed."""
        small = np.asarray(FIRST_STEPS) <= SMALL
        spread = [
            np.ptp(np.log(losses[:, small]), axis=1) for losses in by_first_step(rule).values()
        ]
        return np.exp(np.mean(spread, axis=0))

    def averaging(rule):
        """The average's loss over that of the last iterate, mean over the problems."""
        each = [np.log(curves(n, rule)[:, -1] / curves(n, rule, "last")[:, -1]) for n in NAMES]
        return np.exp(np.mean(each, axis=0))

    def found(text, samples, below, *, central=True):
        return measured(text, samples, below=below, ratio=True, central=central)

    findings = [
        found(
            f"test loss of DoG over that of SGD with a tuned learning rate, mean over the "
            f"{len(NAMES)} problems, expected below {MARGIN}",
            ratios(dog, sgd),
            MARGIN,
        ),
        found(
            f"DoG's test loss at the worst r_epsilon from {FIRST_STEPS[0]:g} to {SMALL:g} over "
            f"that at the best, expected below {MARGIN}",
            sensitivity(dog),
            MARGIN,
        ),
        found(
            "DoG's test loss at the average over that at the last iterate, expected below 1",
            averaging(dog),
            1,
        ),
    ]
    sides = (
        (f"LDoG over tuned SGD, expected below {MARGIN}", ratios(ldog, sgd), MARGIN),
        (
            f"DoG over tuned SGD with momentum and cosine decay, expected below {MARGIN}",
            ratios(dog, sgd_cosine),
            MARGIN,
        ),
        (f"LDoG, worst over best r_epsilon, expected below {MARGIN}", sensitivity(ldog), MARGIN),
        ("LDoG, average over last iterate, expected below 1", averaging(ldog), 1),
    )
    findings += [found(*side, central=False) for side in sides]

    figure, panels = drawing.panels(*NAMES, "DoG: first step", "Test loss over that of tuned SGD")
    *losses, first, summary = panels
    for name, axes in zip(NAMES, losses, strict=True):
        for style, (rule, label) in enumerate(LABELS.items()):
            results = free if rule in FREE else tuned
            steps = protocol.checkpoints(results, name)
            drawing.line(axes, steps[1:], curves(name, rule)[:, 1:], label, style)
        drawing.describe_axes(axes, "steps", "test loss", log_y=True)
    for style, (name, values) in enumerate(by_first_step(dog).items()):
        reference = curves(name, sgd)[:, -1:]
        drawing.line(first, FIRST_STEPS, values / reference, name, style, marker="o")
    drawing.describe_axes(first, "r_epsilon", "test loss over tuned SGD's", log_x=True, log_y=True)
    for axes in (*losses, first):
        drawing.name_lines(axes)
    rows = [(rule, name) for rule in FREE for name in NAMES]
    drawing.bars(
        summary,
        [f"{LABELS[rule]}, {name}" for rule, name in rows],
        [curves(name, rule)[:, -1] / curves(name, sgd)[:, -1] for rule, name in rows],
        [FREE.index(rule) for rule, _ in rows],
    )
    summary.axvline(1, color="#9AA0A6", linewidth=0.8, zorder=0)
    drawing.describe_axes(summary, "ratio (dot: mean, bar: all seeds)", "")
    return findings, figure


if __name__ == "__main__":
    protocol.main("dog", experiment)
