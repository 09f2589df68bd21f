"""NovoGrad bears wrong learning rates and wrong initialisations, works in large batches, and takes
half of Adam's memory.

The library's problem `digits`, a perceptron with two hidden layers that reads handwritten digits:
400 steps with batches of 64, and 50 steps with batches of 512, the same number of images. NovoGrad
with b1 = 0.95 and b2 = 0.98, Adam with b1 = 0.9 and b2 = 0.999, SGD with momentum 0.9; all with
cosine decay to zero, without warm-up, which NovoGrad is said not to need, and without weight decay.
Every rule runs at the same 13 learning rates from 10⁻⁵ to 10; the one with the best validation loss
counts, and what is reported is accuracy on the test images, ten seeds.

Learning rates: decades of rates at which accuracy is within two points of that at the best one.
Initialisation: all weights start a tenth and ten times as large, at the rate that was best for the
ordinary start; the mean accuracy over the two. "Robust" is read as no worse than the rivals:
not narrower by more than half a step of the grid, a quarter of a decade, and not less accurate by
more than a point; a point is allowed in large batches, too.

The paper trains ResNet-50, Jasper, Transformers and speech networks in batches up to 32 768, with
weight decay; here the networks are small, the largest batch is nearly half of the data, and nothing
but the weights' scale goes wrong at the start.
"""

import dataclasses

import jax
import numpy as np
import optax
from shared import drawing, protocol
from shared.protocol import measured

import optzoo
from optzoo.problems import PROBLEMS

RATES = [float(f"{rate:.3g}") for rate in 10.0 ** np.arange(-5, 1.01, 0.5)]
DECADES, POINTS = 0.5, 0.02
SCALES = (0.1, 1.0, 10.0)
SMALL, LARGE, STEPS = 64, 512, 400


def novograd(learning_rate, *, total_steps):
    return optzoo.novograd(optax.cosine_decay_schedule(learning_rate, total_steps))


def adam(learning_rate, *, total_steps):
    return optax.adam(optax.cosine_decay_schedule(learning_rate, total_steps))


def sgd(learning_rate, *, total_steps):
    return optax.sgd(optax.cosine_decay_schedule(learning_rate, total_steps), momentum=0.9)


RULES = (novograd, adam, sgd)
NAMES = ("NovoGrad", "Adam", "SGD")


def digits(scale, batch_size, steps):
    """The library's problem with another start and other batches."""
    problem = PROBLEMS["digits"]()

    def batch(key):
        draws = jax.vmap(problem.batch)(jax.random.split(key, batch_size // SMALL))
        return jax.tree.map(lambda rows: rows.reshape(-1, *rows.shape[2:]), draws)

    return dataclasses.replace(
        problem,
        name=f"start x {scale:g}, batch {batch_size}",
        init=lambda key: jax.tree.map(lambda leaf: scale * leaf, problem.init(key)),
        batch=batch,
        steps=steps,
    )


def experiment(budget):
    starts = [digits(scale, SMALL, budget.steps(STEPS)) for scale in SCALES]
    large = digits(1.0, LARGE, budget.steps(STEPS * SMALL // LARGE))
    seeds = budget.seeds(10)
    results = protocol.compare([*starts, large], RULES, lrs=RATES, seeds=seeds)
    ordinary = starts[SCALES.index(1.0)]

    def accuracy(problem, rule, rate=None):
        return protocol.final(results, problem.name, rule.__name__, "test_accuracy", rate=rate)

    def decades(rule):
        """How many decades of rates bring each seed within two points of the best one."""
        within = [
            accuracy(ordinary, rule, rate) >= accuracy(ordinary, rule) - POINTS for rate in RATES
        ]
        return DECADES * np.sum(within, axis=0)

    def at_one_rate(rule):
        """Accuracy at every start, shape (seeds, starts)."""
        rate = protocol.best_rate(results, ordinary.name, rule.__name__)
        return np.stack([accuracy(start, rule, rate) for start in starts], axis=1)

    def wrong_starts(rule):
        return at_one_rate(rule)[:, [scale != 1 for scale in SCALES]].mean(axis=1)

    def against(rival, text, measure, leeway, form):
        ours, theirs = measure(novograd), measure(rival)
        means = f"({ours.mean():{form}} and {theirs.mean():{form}})"
        name = NAMES[RULES.index(rival)]
        text = f"{text}, NovoGrad minus {name} {means}, expected above -{leeway:g}"
        return measured(text, ours - theirs, above=-leeway, form="+.3f")

    findings = []
    for text, measure, leeway, form in (
        ("decades of learning rates within two points of the best", decades, DECADES / 2, ".2f"),
        ("mean accuracy from starts of wrong scale", wrong_starts, 0.01, ".3f"),
        (f"accuracy in batches of {LARGE}", lambda rule: accuracy(large, rule), 0.01, ".3f"),
    ):
        findings += [against(rival, text, measure, leeway, form) for rival in RULES[1:]]
    states = results.table.groupby("optimizer")["state_ratio"].first()
    state = [states[rule.__name__] for rule in RULES]
    findings.append(
        measured(
            "bytes of state, NovoGrad over Adam, expected about a half, below 0.55",
            [state[0] / state[1]],
            below=0.55,
        )
    )

    figure, axes = drawing.panels(
        "Weights start a tenth as large",
        f"Ordinary start, batch {SMALL}",
        "Weights start ten times as large",
        "At the rate for the ordinary start",
        f"Batch {LARGE}, an eighth of the steps",
        "State",
    )
    for style, (rule, name) in enumerate(zip(RULES, NAMES, strict=True)):
        for panel, problem in zip([*axes[:3], axes[4]], [*starts, large], strict=True):
            at_rates = [accuracy(problem, rule, rate) for rate in RATES]
            drawing.line(panel, RATES, np.stack(at_rates, axis=1), name, style, marker="o")
            drawing.describe_axes(panel, "learning rate", "test accuracy", log_x=True)
        drawing.line(axes[3], SCALES, at_one_rate(rule), name, style, marker="o")
    drawing.describe_axes(axes[3], "scale of the start", "test accuracy", log_x=True)
    for panel in axes[:5]:
        panel.set_ylim(0, 1)
        drawing.name_lines(panel)
    drawing.bars(axes[5], NAMES, [np.asarray(one) for one in state], range(len(RULES)))
    drawing.describe_axes(axes[5], "bytes of state for each byte of weights", "")
    axes[5].set_xlim(0, 2.2)
    return findings, figure


if __name__ == "__main__":
    protocol.main("novograd", experiment)
