"""Ranger21 trains a deep network without normalisation, where AdamW stays stuck.

The paper takes the normalisation out of a ResNet50 on ImageNet. Here the network keeps that
depth, that order and that initialisation, but has no convolutions: sixteen residual blocks of
three layers, ReLU after each and after each sum, fifty layers in all, 32 units wide, He's normal
initialisation, no normalisation and no biases. The sums double the signal's variance in every
block, so that the first loss is in the hundreds, where ln 10 = 2.3 is that of guessing. It reads
scikit-learn's digits: 1197 images for training, 300 each for validation and test, 1000 steps of 64.

Ranger21 has all its defaults and owns its schedule. AdamW has the same weight decay, 1e-4, and
runs once at a constant learning rate and once with a warm-up over a tenth of the steps and cosine
decay. All of them run at five multiples, a tenth to ten times, of the same default 1e-3, extended
by five more for anybody whose best is the outermost; the lowest validation loss after the last
step chooses. Five seeds. Accuracies are those of the test images after the last step, with
Ranger21's slow weights. AdamW counts as stuck below 0.2, twice the accuracy of guessing, and
Ranger21 as training above 0.5.

For the ablation, Ranger21 runs ten more times at its best learning rate, each time with one of
its parts switched off: the paper's eight, and the two that the released code added.

AdamW does not get stuck in this network: ten classes and small images let it leave guessing behind
within a hundred steps, in spite of the first loss. What this scale lacks: convolutions, a thousand
classes, and epochs of thousands of steps. The blocks' kernels are stacked, three leaves for all
sixteen blocks; the normalisation of gradients, one of the two later parts, scales a leaf as a
whole, where the released code would scale each layer.
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
from optzoo.problems import Problem

BLOCKS, LAYERS = 16, ("reduce", "middle", "expand")
WIDTH, CLASSES, BATCH, HELD_OUT = 32, 10, 64, 300
STEPS, SEEDS, RATE, DECAY = 1000, 5, 1e-3, 1e-4
STUCK, TRAINED = 0.2, 0.5


def ranger21(learning_rate=RATE, *, total_steps):
    return optzoo.ranger21(learning_rate, total_steps=total_steps)


def adamw(learning_rate=RATE):
    return optax.adamw(learning_rate, weight_decay=DECAY)


def adamw_cosine(learning_rate=RATE, *, total_steps):
    return optax.adamw(optzoo.cosine(learning_rate, total_steps), weight_decay=DECAY)


RULES = (ranger21, adamw, adamw_cosine)
LABELS = ("Ranger21", "AdamW", "AdamW, cosine")
# A part that a number switches off goes by that number, so that one program runs them all.
NUMBERS = {
    "adaptive clipping": ("agc_clip", 0.01, 1e9),
    "softplus": ("softplus_beta", 50.0, 1e6),
    "stable decay": ("weight_decay", 1e-4, 0.0),
    "norm loss": ("norm_loss", 1e-4, 0.0),
    "warm-up": ("warmup_steps", 0.22, 0.0),
    "warm-down": ("warmdown_start", 0.72, 1.0),
    "lookahead": ("lookahead_alpha", 0.5, 1.0),
}
FLAGS = {
    "centralisation": {"centralization": None},
    "normalisation": {"normalization": False},
    "two-sided momentum": {"positive_negative": False},
}


def without_number(rate):
    """Ranger21 at this rate, without the part whose place in `NUMBERS`, from 1, is swept."""

    def rule(learning_rate=1.0, *, total_steps):
        options = {
            option: jnp.where(learning_rate == place, off, on)
            for place, (option, on, off) in enumerate(NUMBERS.values(), 1)
        }
        options["warmup_steps"] *= total_steps
        return optzoo.ranger21(rate, total_steps=total_steps, **options)

    return rule


def without_flag(part):
    """Ranger21 without one of the parts in `FLAGS`."""

    def rule(learning_rate=RATE, *, total_steps):
        return optzoo.ranger21(learning_rate, total_steps=total_steps, **FLAGS[part])

    rule.__name__ = part
    return rule


def residual_network():
    """Fifty layers read digits, with nothing that keeps the signal's size in hand."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    images = jnp.asarray(data.data[order] / 16, jnp.float32)
    labels = jnp.asarray(data.target[order], jnp.int32)
    parts = {"validation": slice(HELD_OUT), "test": slice(HELD_OUT, 2 * HELD_OUT)}
    splits = {name: (images[part], labels[part]) for name, part in parts.items()}
    normal, stacked = (jax.nn.initializers.he_normal(batch_axis=axis) for axis in ((), 0))

    def init(key):
        stem, head, *keys = jax.random.split(key, 2 + len(LAYERS))
        # Under this name the first axis counts layers, here and in Ranger21.
        blocks = {
            name: stacked(one, (BLOCKS, WIDTH, WIDTH))
            for name, one in zip(LAYERS, keys, strict=True)
        }
        return {
            "stem": normal(stem, (images.shape[1], WIDTH)),
            "blocks": blocks,
            "head": normal(head, (WIDTH, CLASSES)),
        }

    def block(x, kernels):
        y = x
        for kernel in kernels[:-1]:
            y = jax.nn.relu(y @ kernel)
        return jax.nn.relu(x + y @ kernels[-1]), None

    def report(params, images, labels):
        kernels = [params["blocks"][name] for name in LAYERS]
        x, _ = jax.lax.scan(block, jax.nn.relu(images @ params["stem"]), kernels)
        scores = x @ params["head"]
        loss = optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()
        return {"loss": loss, "accuracy": (scores.argmax(-1) == labels).astype(float).mean()}

    def batch(key):
        rows = jax.random.randint(key, (BATCH,), 2 * HELD_OUT, len(labels))
        return images[rows], labels[rows]

    return Problem(
        init=init,
        loss=lambda params, batch: report(params, *batch)["loss"],
        evaluate=lambda params, split: report(params, *splits[split]),
        batch=batch,
        steps=STEPS,
        target=0.5,
        name="residual_network",
    )


def ablation(problem, rate, seeds):
    """part -> test accuracies of Ranger21 without it, one a seed."""
    places = list(range(1, len(NUMBERS) + 1))
    rule = without_number(rate)
    numbers = protocol.compare(problem, [rule], lrs=places, seeds=seeds)
    flags = protocol.compare(problem, map(without_flag, FLAGS), lrs=[rate], seeds=seeds)

    def accuracy(results, name, swept):
        return protocol.final(results, problem.name, name, "test_accuracy", rate=swept)

    ablated = {
        part: accuracy(numbers, rule.__name__, place)
        for part, place in zip(NUMBERS, places, strict=True)
    }
    return ablated | {part: accuracy(flags, part, rate) for part in FLAGS}


def experiment(budget):
    problem = dataclasses.replace(residual_network(), steps=budget.steps(STEPS))
    seeds = budget.seeds(SEEDS)
    results = protocol.compare(problem, RULES, seeds=seeds)
    ours, *theirs = [rule.__name__ for rule in RULES]
    best = protocol.best_rate(results, problem.name, ours)

    def accuracy(rule, rate=None):
        return protocol.final(results, problem.name, rule, "test_accuracy", rate=rate)

    whole = accuracy(ours)
    findings = [
        measured(
            f"Ranger21's test accuracy, expected above {TRAINED} (it trains)",
            whole,
            above=TRAINED,
        )
    ]
    for name, label in zip(theirs, LABELS[1:], strict=True):
        findings += [
            measured(
                f"test accuracy of {label}, expected below {STUCK} (stuck)",
                accuracy(name),
                below=STUCK,
            ),
            measured(
                f"test accuracy, Ranger21 minus {label}, expected above 0",
                whole - accuracy(name),
                above=0,
                form="+.3f",
            ),
            measured(
                f"test accuracy, Ranger21 minus {label}, both at the default rate {RATE:g}",
                accuracy(ours, RATE) - accuracy(name, RATE),
                above=0,
                central=False,
                form="+.3f",
            ),
        ]
    ablated = ablation(problem, best, seeds)
    findings.append(
        measured(
            "test accuracy lost when a part of Ranger21 is switched off, mean over the ten parts, "
            "expected above 0",
            whole - np.mean(list(ablated.values()), axis=0),
            above=0,
            central=False,
            form="+.3f",
        )
    )

    figure, (path, rates, parts) = drawing.panels(
        "Each at its best learning rate",
        "All learning rates",
        f"Ranger21 at {best:g} without one part",
    )
    steps = protocol.checkpoints(results, problem.name)
    for style, (rule, label) in enumerate(zip((ours, *theirs), LABELS, strict=True)):
        curve = protocol.curves(results, problem.name, rule, "accuracy")
        drawing.line(path, steps, curve, label, style)
        frame = results.frame[results.frame["optimizer"] == rule]
        tried = np.unique(frame["learning_rate"])
        finals = np.stack([accuracy(rule, rate) for rate in tried], axis=1)
        drawing.line(rates, tried, finals, label, style, marker="o")
    for axes in (path, rates):
        axes.axhline(1 / CLASSES, color="#9AA0A6", linewidth=0.8, zorder=0)
    drawing.describe_axes(path, "steps", "validation accuracy (line: guessing)")
    drawing.describe_axes(rates, "learning rate", "test accuracy (line: guessing)", log_x=True)
    names, samples = ["nothing left out", *ablated], [whole, *ablated.values()]
    drawing.bars(parts, names, samples, [0] + [2] * len(ablated))
    drawing.describe_axes(parts, "test accuracy (dot: mean, bar: all seeds)", "")
    for axes in (path, rates):
        drawing.name_lines(axes)
    return findings, figure


if __name__ == "__main__":
    protocol.main("ranger21", experiment)
