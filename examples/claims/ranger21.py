"""Ranger21 trains more accurately, faster and more smoothly than AdamW, and trains a deep network
without normalisation, where AdamW stays stuck.

Ordinary training: the library's `cnn_norm`, a small convolutional network with batch normalisation
that reads scikit-learn's digits, 1197 images for training, 300 each for validation and test, 200
steps of 32. Accuracy: the effect is AdamW's number of wrong test images over Ranger21's, half an
image added to both. Speed: steps until nine of ten validation images are read, AdamW's over
Ranger21's, read off 40 checkpoints. Smoothness: the sum of all rises of the validation loss between
checkpoints, AdamW's over Ranger21's, 0.001 added to both.

Without normalisation: the paper takes it out of a ResNet50 on ImageNet. Here the network keeps that
depth, that order and that initialisation, but has no convolutions: sixteen residual blocks of
three layers, ReLU after each and after each sum, fifty layers in all, 32 units wide, He's normal
initialisation, no normalisation and no biases. The sums double the signal's variance in every
block, so that the first loss is in the hundreds, where ln 10 = 2.3 is that of guessing. It reads
the same images, 600 steps of 64. Ranger21 counts as training above an accuracy of 0.5, AdamW as
stuck below 0.2, twice that of guessing; the effect is the ratio of test accuracies, so both
together are an effect above 2.5.

Ranger21 has all its defaults and owns its schedule. AdamW has the same weight decay, 1e-4, a
warm-up over a tenth of the steps and cosine decay. Both run at five multiples, a tenth to ten
times, of the same default 1e-3, extended by five more for anybody whose best is the outermost; the
lowest validation loss after the last step chooses. Five seeds; Ranger21 is evaluated at its slow
weights. (An earlier version had the deep network alone, for 1000 steps, and AdamW at a constant
rate as well, which got as far as with the schedule.)

Ours is the ablation: in ordinary training Ranger21 runs ten more times at its best learning rate,
each time with one of its parts switched off: the paper's eight, and the two that the released code
added.

What this scale lacks: a thousand classes, epochs of thousands of steps, and a deep network of
convolutions; ten classes and small images let AdamW leave guessing behind in spite of the first
loss. The blocks' kernels are stacked, three leaves for all sixteen blocks; the normalisation of
gradients, one of the two later parts, scales a leaf as a whole, where the released code would scale
each layer.
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

BLOCKS, LAYERS = 16, ("reduce", "middle", "expand")
WIDTH, CLASSES, BATCH, HELD_OUT = 32, 10, 64, 300
STEPS, SEEDS, RATE, DECAY = 600, 5, 1e-3, 1e-4
STUCK, TRAINED, READ = 0.2, 0.5, 0.9
ORDINARY = "cnn_norm"


def ranger21(learning_rate=RATE, *, total_steps):
    return optzoo.ranger21(learning_rate, total_steps=total_steps)


def adamw(learning_rate=RATE, *, total_steps):
    return optax.adamw(optzoo.cosine(learning_rate, total_steps), weight_decay=DECAY)


RULES = (ranger21, adamw)
LABELS = ("Ranger21", "AdamW")
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
    """part -> test losses of Ranger21 without it, one a seed."""
    places = list(range(1, len(NUMBERS) + 1))
    rule = without_number(rate)
    numbers = protocol.compare(problem, [rule], lrs=places, seeds=seeds)
    flags = protocol.compare(problem, map(without_flag, FLAGS), lrs=[rate], seeds=seeds)

    def loss(results, name, swept):
        return protocol.final(results, problem.name, name, rate=swept)

    ablated = {
        part: loss(numbers, rule.__name__, place)
        for part, place in zip(NUMBERS, places, strict=True)
    }
    return ablated | {part: loss(flags, part, rate) for part in FLAGS}


def wrong(results):
    """rule -> wrong test images and half a one, one a seed."""
    accuracy = {
        rule: protocol.final(results, ORDINARY, rule.__name__, "test_accuracy") for rule in RULES
    }
    return {rule: HELD_OUT * (1 - values) + 0.5 for rule, values in accuracy.items()}


def until_read(accuracies, steps):
    """The step at which so many are read for the first time; the last one if they never are."""
    reached = accuracies >= READ
    reached[:, -1] = True
    return steps[reached.argmax(axis=1)].astype(float)


def rises(losses):
    """How far a curve goes up in all, and a thousandth."""
    return np.maximum(np.diff(losses, axis=1), 0).sum(axis=1) + 1e-3


def experiment(budget):
    seeds = budget.seeds(SEEDS)
    deep = dataclasses.replace(residual_network(), steps=budget.steps(STEPS))
    declared = PROBLEMS[ORDINARY]()
    ordinary = dataclasses.replace(declared, steps=budget.steps(declared.steps))
    results = protocol.compare([deep, ordinary], RULES, seeds=seeds)
    best = protocol.best_rate(results, ORDINARY, ranger21.__name__)

    def accuracy(rule, rate=None):
        return protocol.final(results, deep.name, rule.__name__, "test_accuracy", rate=rate)

    def curves(rule, metric="loss", problem=ORDINARY):
        return protocol.curves(results, problem, rule.__name__, metric)

    def less(text, measure):
        """A claim that a number is smaller for Ranger21."""
        ours, theirs = measure(ranger21), measure(adamw)
        means = f"{theirs.mean():.3g} and {ours.mean():.3g}"
        return claimed(f"{text}, AdamW over Ranger21", theirs / ours, means=means)

    steps = protocol.checkpoints(results, ORDINARY)
    findings = [
        less("wrong test images", wrong(results).get),
        less("steps to nine in ten read", lambda rule: until_read(curves(rule, "accuracy"), steps)),
        less("rises of the validation loss", lambda rule: rises(curves(rule))),
        claimed(
            "accuracy of a deep unnormalised network, Ranger21 over AdamW",
            accuracy(ranger21) / accuracy(adamw),
            least=TRAINED / STUCK,
            means=f"{accuracy(ranger21).mean():.2f} and {accuracy(adamw).mean():.2f}",
        ),
        measured(
            f"the same, Ranger21 minus AdamW, both at the default rate {RATE:g}, above 0 if it "
            "needs less tuning there",
            accuracy(ranger21, RATE) - accuracy(adamw, RATE),
            above=0,
            form="+.3f",
        ),
    ]
    whole = protocol.final(results, ORDINARY, ranger21.__name__)
    ablated = ablation(ordinary, best, seeds)
    findings.append(
        measured(
            "test loss of Ranger21 with a part switched off over that with all, mean over the ten "
            "parts, above 1 if the parts help",
            np.exp(np.mean([np.log(values / whole) for values in ablated.values()], axis=0)),
            above=1,
            ratio=True,
        )
    )

    figure, (course, read, parts, path, rates) = drawing.panels(
        "Ordinary training: loss",
        "Ordinary training: accuracy",
        f"Ranger21 at {best:g} without one part",
        "Without normalisation: accuracy",
        "Without normalisation: learning rates",
    )
    deep_steps = protocol.checkpoints(results, deep.name)
    for style, (rule, label) in enumerate(zip(RULES, LABELS, strict=True)):
        drawing.line(course, steps, curves(rule), label, style)
        drawing.line(read, steps, curves(rule, "accuracy"), label, style)
        drawing.line(path, deep_steps, curves(rule, "accuracy", deep.name), label, style)
        frame = results.frame
        mine = (frame["optimizer"] == rule.__name__) & (frame["problem"] == deep.name)
        tried = np.unique(frame[mine]["learning_rate"])
        finals = np.stack([accuracy(rule, rate) for rate in tried], axis=1)
        drawing.line(rates, tried, finals, label, style, marker="o")
    for axes in (path, rates):
        axes.axhline(1 / CLASSES, color=drawing.GREY, linewidth=0.8, zorder=0)
    read.axhline(READ, color=drawing.GREY, linewidth=0.8, zorder=0)
    drawing.describe_axes(course, "steps", "validation loss", log_y=True)
    drawing.describe_axes(read, "steps", f"validation accuracy (line: {READ:g})")
    drawing.describe_axes(path, "steps", "validation accuracy (line: guessing)")
    drawing.describe_axes(rates, "learning rate", "test accuracy (line: guessing)", log_x=True)
    names, samples = ["nothing left out", *ablated], [whole, *ablated.values()]
    drawing.bars(parts, names, samples, [0] + [2] * len(ablated))
    drawing.describe_axes(parts, "test loss (dot: mean, bar: all seeds)", "")
    for axes in (course, read, path, rates):
        drawing.name_lines(axes)
    return findings, figure


if __name__ == "__main__":
    protocol.main("ranger21", experiment)
