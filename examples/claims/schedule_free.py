"""One Schedule-Free run matches, at every stopping time, a cosine schedule tuned for that time.

The picture is the paper's first: loss against steps, one run without a schedule against a front of
runs with cosine schedules of several lengths. Convex: multinomial logistic regression on the 1797
digits of scikit-learn, batches of 16, under SGD and under Adam; its loss is the mean over all of
them, as the paper measures convex problems on what they train on. Neural: the transformer of
`language` under Adam, on held-out windows of text. Both are problems on which longer runs are
better, since stopping times mean little on others.

The longest runs take 2000 steps on the convex problem and 800 on the transformer (at first 1000,
which took more than three minutes); the cosine runs take an eighth, a quarter, a half and all of
that, with a linear warm-up over their first tenth and momentum 0.9 in SGD; each length has its own
learning rate, the best at its own end. Schedule-Free runs once, to the longest end, with b1 = 0.9
and a warm-up over a twentieth, at the best learning rate there; its average is evaluated on the
way. Grids are five multiples, a tenth to ten times, of every rule's default, and grow for anybody
whose best is the outermost. No weight decay. The validation loss chooses, the test loss is
reported; on the convex problem they are the same. Five seeds, paired: equal seeds start equal and
see the same batches.

The paper says "matches": the geometric mean over the stopping times of Schedule-Free's loss over
that of the cosine run should be below 1.05. The digits can be separated, so the convex loss goes to
0 and small differences in speed are large ratios; under SGD the learning rate that is best at the
end is too large for the shortest stopping time. What this scale lacks: models and runs of the
paper's size, where one run against many saves real money.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
from shared import drawing, protocol
from shared.protocol import measured
from sklearn.datasets import load_digits

import optzoo
from optzoo.problems import PROBLEMS, Problem

SHARES, WARMUP = (1 / 8, 1 / 4, 1 / 2, 1), 1 / 20
CONVEX_STEPS, LANGUAGE_STEPS, SEEDS, MARGIN = 2000, 800, 5, 1.05


def schedule_free_sgd(learning_rate=1.0, *, total_steps):
    return optzoo.schedule_free_sgd(learning_rate, warmup_steps=round(WARMUP * total_steps))


def schedule_free_adam(learning_rate=2.5e-3, *, total_steps):
    return optzoo.schedule_free_adamw(learning_rate, warmup_steps=round(WARMUP * total_steps))


def sgd_cosine(learning_rate=0.1, *, total_steps):
    return optax.sgd(optzoo.cosine(learning_rate, total_steps), 0.9)


def adam_cosine(learning_rate=1e-3, *, total_steps):
    return optax.adam(optzoo.cosine(learning_rate, total_steps))


SGD, ADAM = (schedule_free_sgd, sgd_cosine), (schedule_free_adam, adam_cosine)


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
    """The stopping times, the losses there, and the whole curves, one row a seed."""
    ours, theirs = rules
    seeds, longest = budget.seeds(SEEDS), budget.steps(problem.steps)
    anytime = protocol.compare(watched(problem, name, longest), [ours], seeds=seeds)
    steps = protocol.checkpoints(anytime, name)
    average = protocol.curves(anytime, name, ours.__name__, "reported")
    iterate = protocol.curves(anytime, name, ours.__name__, "in_training")

    stops = [int(np.abs(steps - longest * share).argmin()) for share in SHARES]
    tasks = [stopped(problem, name, int(steps[stop])) for stop in stops]
    # The longest run first, so that shorter ones fill the other core.
    tuned = protocol.compare(tasks[::-1], [theirs], seeds=seeds)
    front = [protocol.final(tuned, task.name, theirs.__name__) for task in tasks]
    return steps, stops, average, iterate, np.stack(front, axis=1)


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
        steps, stops, average, iterate, front = measure(name, problem, rules, budget)
        ratios = np.log(average[:, stops] / front)
        findings += [
            measured(
                f"{name}: loss of one Schedule-Free run over that of the tuned cosine runs, mean "
                f"over {len(SHARES)} stopping times, expected below {MARGIN}",
                np.exp(ratios.mean(axis=1)),
                below=MARGIN,
                ratio=True,
            ),
            measured(
                f"{name}: the same at its worst stopping time",
                np.exp(ratios[:, ratios.mean(axis=0).argmax()]),
                below=MARGIN,
                ratio=True,
                central=False,
            ),
            measured(
                f"{name}: loss at the end, the average's over that of the parameters in training, "
                "expected below 1",
                average[:, -1] / iterate[:, -1],
                below=1,
                ratio=True,
                central=False,
            ),
        ]
        drawing.line(axes, steps[1:], average[:, 1:], "Schedule-Free", 0)
        drawing.line(axes, steps[stops], front, "tuned cosine", 1, marker="o")
        drawing.line(axes, steps[1:], iterate[:, 1:], "in training", 2)
        drawing.describe_axes(axes, "steps", "loss", log_x=True, log_y=True)
        drawing.name_lines(axes)
    return findings, figure


if __name__ == "__main__":
    protocol.main("schedule_free_adamw", experiment)
