"""Schedules without a stopping time lose to a cosine schedule tuned for that time, which one
Schedule-Free run matches at every stopping time.

The picture is the paper's first: loss against steps, one run without a stopping time against a
front of runs with cosine schedules of several lengths. Convex: multinomial logistic regression on
the 1797 digits of scikit-learn, batches of 16, under SGD and under Adam; its loss is the mean over
all of them, as the paper measures convex problems on what they train on. Neural: the transformer of
`language` under Adam, on held-out windows of text. Both are problems on which longer runs are
better, since stopping times mean little on others.

The longest runs take 2000 steps on the convex problem and 240 on the transformer; the cosine runs
take a quarter, a half and all of that, with a linear warm-up over their first tenth and momentum
0.9 in SGD; each length has its own learning rate, the best at its own end. What knows no stopping
time runs once, to the longest end, at the best learning rate there, and is evaluated on the way,
after a warm-up over a twentieth of it: Schedule-Free with b1 = 0.9, and the rules of the cosine
runs at a constant rate and at one that falls as one over the square root of the steps. Grids are
five multiples, a tenth to ten times, of every rule's default, and grow for anybody whose best is
the outermost. No weight decay. The validation loss chooses, the test loss is reported; on the
convex problem they are the same. Five seeds, paired: equal seeds start equal and see the same
batches.

Effects are ratios of losses, geometric means over the stopping times. "Lose" is read as a loss
above the cosine run's, of the better one of the two schedules; "matches" as the cosine run's loss
over Schedule-Free's above 1/1.05. Ours are Schedule-Free's worst stopping time, and whether its
average is better at the end than the parameters in training. (An earlier version had no schedules
but the cosine, four stopping times and 800 steps on the transformer.)

The digits can be separated, so the convex loss goes to 0 and small differences in speed are large
ratios; under SGD the learning rate that is best at the end is too large for the shortest stopping
time. What this scale lacks: models and runs of the paper's size, where one run against many saves
real money.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
from shared import drawing, protocol
from shared.protocol import claimed, measured
from sklearn.datasets import load_digits

import optzoo
from optzoo.problems import PROBLEMS, Problem

SHARES, WARMUP = (1 / 4, 1 / 2, 1), 1 / 20
CONVEX_STEPS, LANGUAGE_STEPS, SEEDS, MARGIN = 2000, 240, 5, 1.05


def schedule_free_sgd(learning_rate=1.0, *, total_steps):
    return optzoo.schedule_free_sgd(learning_rate, warmup_steps=round(WARMUP * total_steps))


def schedule_free_adam(learning_rate=2.5e-3, *, total_steps):
    return optzoo.schedule_free_adamw(learning_rate, warmup_steps=round(WARMUP * total_steps))


def anytime(rule, default, *, falling):
    """The rule under a schedule that, but for its warm-up, knows nothing of the stopping time."""

    def made(learning_rate=default, *, total_steps):
        warmup = max(1, round(WARMUP * total_steps))

        def schedule(count):
            progress = (count + 1.0) / warmup
            later = progress**-0.5 if falling else 1.0
            return learning_rate * jnp.where(progress < 1, progress, later)

        return rule(schedule)

    made.__name__ = "falling" if falling else "constant"
    return made


def momentum(rate):
    return optax.sgd(rate, 0.9)


def sgd_cosine(learning_rate=0.1, *, total_steps):
    return momentum(optzoo.cosine(learning_rate, total_steps))


def adam_cosine(learning_rate=1e-3, *, total_steps):
    return optax.adam(optzoo.cosine(learning_rate, total_steps))


# Schedule-Free, the cosine runs, and the schedules without a stopping time.
SGD = (
    schedule_free_sgd,
    sgd_cosine,
    *(anytime(momentum, 0.1, falling=falling) for falling in (False, True)),
)
ADAM = (
    schedule_free_adam,
    adam_cosine,
    *(anytime(optax.adam, 1e-3, falling=falling) for falling in (False, True)),
)


def convex():
    """Multinomial logistic regression; the loss is its objective."""
    data = load_digits()
    images, labels = jnp.asarray(data.data / 16, jnp.float32), jnp.asarray(data.target)

    def loss(params, rows):
        scores = images[rows] @ params["kernel"] + params["bias"][None]
        return optax.softmax_cross_entropy_with_integer_labels(scores, labels[rows]).mean()

    return Problem(
        init=lambda key: {
            "kernel": 0.01 * jax.random.normal(key, (64, 10)),
            "bias": jnp.zeros(10),
        },
        loss=loss,
        evaluate=lambda params, split: {"loss": loss(params, slice(None))},
        batch=lambda key: jax.random.randint(key, (16,), 0, len(labels)),
        steps=CONVEX_STEPS,
        target=0.05,
    )


def stopped(problem, name, steps):
    return dataclasses.replace(problem, name=f"{name}, {steps} steps", steps=steps)


def watched(problem, name, steps):
    """The problem, also reporting the test loss on the way, and that of the parameters in training.

    What `evaluate` sees is the average; what `observe` sees are the parameters in training.
    """

    def evaluate(params, split):
        test = problem.evaluate(params, "test")["loss"]
        return problem.evaluate(params, split) | {"reported": test}

    def observe(before, after, batch):
        return {"in_training": problem.evaluate(before, "test")["loss"]}

    return dataclasses.replace(problem, name=name, steps=steps, evaluate=evaluate, observe=observe)


def measure(name, problem, rules, budget):
    """The stopping times, the losses of the cosine runs there, one row a seed, and all curves."""
    free, cosine, *schedules = rules
    seeds, longest = budget.seeds(SEEDS), budget.steps(problem.steps)
    once = protocol.compare(watched(problem, name, longest), [free, *schedules], seeds=seeds)
    steps = protocol.checkpoints(once, name)
    average = protocol.curves(once, name, free.__name__, "reported")
    iterate = protocol.curves(once, name, free.__name__, "in_training")
    others = {
        rule.__name__: protocol.curves(once, name, rule.__name__, "reported") for rule in schedules
    }
    stops = [int(np.abs(steps - longest * share).argmin()) for share in SHARES]
    tasks = [stopped(problem, name, int(steps[stop])) for stop in stops]
    # The longest run first, so that shorter ones fill the other core.
    tuned = protocol.compare(tasks[::-1], [cosine], seeds=seeds)
    front = [protocol.final(tuned, task.name, cosine.__name__) for task in tasks]
    return steps, stops, np.stack(front, axis=1), average, iterate, others


def experiment(budget):
    language = dataclasses.replace(PROBLEMS["language"](), steps=LANGUAGE_STEPS)
    cases = {
        "Convex, SGD": (convex(), SGD),
        "Convex, Adam": (convex(), ADAM),
        "Transformer, Adam": (language, ADAM),
    }
    findings = []
    figure, panels = drawing.panels(*cases)
    for (name, (problem, rules)), axes in zip(cases.items(), panels, strict=True):
        steps, stops, front, average, iterate, others = measure(name, problem, rules, budget)
        lost = {rule: np.log(curve[:, stops] / front) for rule, curve in others.items()}
        better = min(lost, key=lambda rule: lost[rule].mean())
        matched = np.log(front / average[:, stops])
        findings += [
            claimed(
                f"{name}: loss without a stopping time over the cosine's",
                np.exp(lost[better].mean(axis=1)),
                means=", ".join(
                    f"{rule} {np.exp(ratios.mean()):.3g}" for rule, ratios in lost.items()
                ),
            ),
            claimed(
                f"{name}: loss, cosine over Schedule-Free",
                np.exp(matched.mean(axis=1)),
                least=1 / MARGIN,
            ),
            measured(
                f"{name}: the same at the worst stopping time, expected above {1 / MARGIN:.3g}",
                np.exp(matched[:, matched.mean(axis=0).argmin()]),
                above=1 / MARGIN,
                ratio=True,
            ),
            measured(
                f"{name}: Schedule-Free's loss at the end, of the average over that of the "
                "parameters in training, expected below 1",
                average[:, -1] / iterate[:, -1],
                below=1,
                ratio=True,
            ),
        ]
        drawing.line(axes, steps[1:], average[:, 1:], "Schedule-Free", 0)
        drawing.line(axes, steps[stops], front, "tuned cosine", 1, marker="o")
        drawing.line(axes, steps[1:], iterate[:, 1:], "in training", 2)
        for style, (rule, curve) in enumerate(others.items(), 3):
            drawing.line(axes, steps[1:], curve[:, 1:], rule, style)
        drawing.describe_axes(axes, "steps", "loss", log_x=True, log_y=True)
        drawing.name_lines(axes)
    return findings, figure


if __name__ == "__main__":
    protocol.main("schedule_free_adamw", experiment)
