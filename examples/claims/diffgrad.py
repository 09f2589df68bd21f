"""diffGrad settles in the global minimum of three functions where Adam overshoots it.

The three functions of one variable of the paper's section IV, with its settings: b1 = 0.95,
b2 = 0.999, learning rate 0.1, 300 steps, without noise. The paper starts at -1 and shows one path;
here 32 seeds start about -1 (standard deviation 0.1 and, for the second function, whose slope is
short, 0.02), all drawn before any result was seen. A run is counted as settled if it ends within
the problem's target of the lowest value.

Beside that, both rules run at 13 learning rates from 0.001 to 10, to see how far what is found
depends on the paper's choice; nothing is selected.
"""

import dataclasses

import numpy as np
import optax
from shared import drawing, protocol
from shared.protocol import measured

import optzoo
from optzoo.problems import PROBLEMS

PAPER_RATE = 0.1
RATES = [float(f"{rate:.3g}") for rate in 10.0 ** np.arange(-3, 1.01, 1 / 3)]
NAMES = ("diffgrad_1", "diffgrad_2", "diffgrad_3")
B1, B2 = 0.95, 0.999


def diffgrad(learning_rate=PAPER_RATE):
    return optzoo.diffgrad(learning_rate, b1=B1, b2=B2)


def adam(learning_rate=PAPER_RATE):
    return optax.adam(learning_rate, b1=B1, b2=B2)


RULES = (diffgrad, adam)


def with_place(problem):
    """The problem, reporting where its only coordinate is."""

    def evaluate(params, split):
        return problem.evaluate(params, split) | {"x": params["point"][0]}

    return dataclasses.replace(problem, evaluate=evaluate)


def experiment(budget):
    problems = {name: with_place(PROBLEMS[name]()) for name in NAMES}
    results = protocol.compare(
        list(problems.values()),
        RULES,
        lrs=RATES,
        seeds=budget.seeds(32),
        steps=budget.steps(300),
    )

    def settled(name, rule, rate):
        losses = protocol.final(results, name, rule, "test_loss", rate=rate)
        return (losses <= problems[name].target).astype(float)

    findings = []
    figure, axes = drawing.panels(
        *(f"Function {place}: path of the median start" for place in (1, 2, 3)),
        *(f"Function {place}: share settled" for place in (1, 2, 3)),
    )
    for place, name in enumerate(NAMES):
        path, share = axes[place], axes[place + 3]
        for style, rule in enumerate(rule.__name__ for rule in RULES):
            steps = protocol.checkpoints(results, name)
            x = protocol.curves(results, name, rule, "x", rate=PAPER_RATE)
            drawing.line(path, steps, x, rule, style)
            shares = [settled(name, rule, rate).mean() for rate in RATES]
            drawing.line(share, RATES, np.asarray(shares), rule, style, marker="o")
        lowest = float(problems[name].solution["point"][0])
        path.axhline(lowest, color="#9AA0A6", linewidth=0.8, zorder=0)
        drawing.describe_axes(path, "steps", "x (line: global minimum)")
        drawing.describe_axes(share, "learning rate", "share of starts", log_x=True)
        share.axvline(PAPER_RATE, color="#9AA0A6", linewidth=0.8, zorder=0)
        ours, theirs = (settled(name, rule.__name__, PAPER_RATE) for rule in RULES)
        findings.append(
            measured(
                f"function {place + 1}, share of starts that settle, diffGrad minus Adam "
                f"({ours.mean():.0%} and {theirs.mean():.0%}), expected above 0",
                ours - theirs,
                above=0,
                form="+.2f",
            )
        )
        everywhere = [
            np.mean([settled(name, rule.__name__, rate) for rate in RATES], axis=0)
            for rule in RULES
        ]
        findings.append(
            measured(
                f"function {place + 1}, the same over all learning rates",
                everywhere[0] - everywhere[1],
                above=0,
                central=False,
                form="+.2f",
            )
        )
    for one in axes:
        drawing.name_lines(one)
    return findings, figure


if __name__ == "__main__":
    protocol.main("diffgrad", experiment)
