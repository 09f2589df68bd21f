"""Grams descends faster than Adam and Cautious Adam.

Three problems of the library as they are: Rosenbrock's valley (2000 steps, no noise), a perceptron
on scikit-learn's digits (400 steps) and a transformer on Python's reference manual (200 steps).
Adam, Cautious Adam (entries whose step disagrees with the gradient are masked, the others scaled
up by their share, as its authors do) and Grams, all with b1 = 0.9, b2 = 0.999, without weight
decay, under linear warm-up and cosine decay as in the paper's pre-training runs; ten seeds.
Learning rates by validation loss, from five to begin with, a tenth to ten times 0.001, and five
more at a time while the best is outermost. Compared is the loss at the end, on the test split
where there is one; one below 1e-12, where single precision ends, counts as that.

The paper's inequality is about steps from the same state: for Adam's step u, masked or with its
signs replaced by the gradient's. At 40 moments of every Adam run at its best learning rate all
three steps are taken from Adam's own state, and the decrease of the loss on the same batch is
measured, summed over the run. The theorem has no scaling in Cautious Adam; nor has the step here.
To first order, by <gradient, step>, it holds by construction and is measured to check that.

The paper pre-trains models of 60 million parameters and more; here they are a thousand times
smaller. In Rosenbrock's valley, where every rule ends a million times below the problem's target,
the order at the end is one of the last digits; it counts all the same, as fixed beforehand.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
from shared import drawing, protocol
from shared.protocol import measured

import optzoo
from optzoo.primitives import adam as adam_direction, gradient, merge_leaves
from optzoo.problems import PROBLEMS

NAMES = {"rosenbrock": "Rosenbrock", "digits": "Digits", "language": "Language"}
COSINE = "+cosine"
SMALLEST = 1e-12


def grams(learning_rate=1e-3):
    return optzoo.grams(learning_rate)


def adam(learning_rate=1e-3):
    return optax.adam(learning_rate)


def cautious(learning_rate=1e-3):
    def agreeing(step, g):
        agrees = (step * g > 0).astype(step.dtype)
        return step * agrees * (agrees.size / (agrees.sum() + 1))

    direction = merge_leaves(agreeing, adam_direction(0.9, 0.999), gradient)
    return optax.chain(direction, optax.scale_by_learning_rate(learning_rate))


RULES = (grams, adam, cautious)


def with_steps(problem):
    """The problem, reporting what the steps of the three rules from the same state achieve."""

    def observe(before, after, batch):
        loss, slopes = jax.value_and_grad(problem.loss)(before, batch)
        taken = jax.tree.map(jnp.subtract, after, before)
        steps = {
            "adam": taken,
            "cautious": jax.tree.map(lambda u, g: jnp.where(u * g < 0, u, 0), taken, slopes),
            "grams": jax.tree.map(lambda u, g: -jnp.sign(g) * jnp.abs(u), taken, slopes),
        }
        values = {}
        for name, step in steps.items():
            values[f"linear_{name}"] = -optax.tree.vdot(slopes, step)
            moved = jax.tree.map(jnp.add, before, step)
            values[f"decrease_{name}"] = loss - problem.loss(moved, batch)
        return values

    return dataclasses.replace(problem, observe=observe)


def experiment(budget):
    findings = []
    figure, axes = drawing.panels(
        *(f"{title}: loss at tuned rates" for title in NAMES.values()),
        *(f"{title}: steps from the same state" for title in NAMES.values()),
    )
    for place, (name, title) in enumerate(NAMES.items()):
        problem = with_steps(PROBLEMS[name]())
        results = protocol.compare(
            problem,
            RULES,
            schedules=("cosine",),
            seeds=budget.seeds(10),
            steps=budget.steps(problem.steps),
        )
        steps = protocol.checkpoints(results, name)
        finals = {}
        for style, rule in enumerate(one.__name__ for one in RULES):
            finals[rule] = np.maximum(protocol.final(results, name, rule + COSINE), SMALLEST)
            losses = np.maximum(protocol.curves(results, name, rule + COSINE), SMALLEST)
            drawing.line(axes[place], steps, losses, rule, style)

        decrease, linear = (
            {
                rule: protocol.curves(results, name, f"adam{COSINE}", f"{kind}_{rule}")
                for rule in finals
            }
            for kind in ("decrease", "linear")
        )
        for style, rule in enumerate(finals):
            total = np.cumsum(decrease[rule], axis=1)
            drawing.line(axes[place + 3], steps, total, rule, style)
        drawing.describe_axes(axes[place], "steps", "validation loss", log_y=name != "language")
        drawing.describe_axes(axes[place + 3], "steps", "decrease, summed")
        # Equal where all signs agree, but for rounding.
        slack = 1e-4 * np.abs(linear["grams"])
        ordered = [
            np.mean(linear[more] >= linear[less] - slack, axis=1)
            for more, less in (("grams", "cautious"), ("cautious", "adam"))
        ]
        findings.append(
            measured(
                f"{title}, share of moments with the order grams, cautious, adam to first order, "
                "expected 1",
                np.minimum(*ordered),
                above=0.999,
                central=False,
            )
        )
        for rule in ("adam", "cautious"):
            theirs, ours = finals[rule], finals["grams"]
            findings.append(
                measured(
                    f"{title}, final loss, {rule} over grams ({np.median(theirs):.3g} and "
                    f"{np.median(ours):.3g}), expected above 1",
                    theirs / ours,
                    above=1,
                    ratio=True,
                )
            )
            better = (decrease["grams"] - decrease[rule]).sum(axis=1)
            findings.append(
                measured(
                    f"{title}, decrease of the loss by steps from the same state, grams minus "
                    f"{rule} over adam's, expected above 0",
                    better / np.abs(decrease["adam"].sum(axis=1)),
                    above=0,
                    form="+.3g",
                )
            )
        drawing.name_lines(axes[place])
        drawing.name_lines(axes[place + 3])
    return findings, figure


if __name__ == "__main__":
    protocol.main("grams", experiment)
