"""Momentum makes scale-invariant weights grow, which shrinks their effective steps early, and the
projection of AdamP and SGDP stops that.

Toy, after the paper's figure 1 but in three dimensions: w, from 32 places on the unit sphere, is
to point in a given direction (loss 1 - cosine). Gradient descent, momentum 0.9 and SGDP 0.9
without decay, 200 steps at 13 learning rates from 0.001 to 10; findings are taken at 0.1, and over
all rates where they say so. Nothing is selected.

Network: `digits_norm`, two hidden layers with batch normalisation on scikit-learn's digits,
batches of 64, 1870 steps, which are 100 epochs as in the paper, ten seeds, linear warm-up and the
paper's cosine decay. (400 steps, the problem's own number, were tried first and are too few for
AdamW at the paper's rate to change any norm by a per cent.) SGD with momentum 0.9 and SGDP with
weight decay 1e-4, AdamW and AdamP with 1e-2 (the authors' example). Norms and effective steps are
compared at the rates that the paper gives both of a pair on ImageNet, 0.1 and 0.001. Test loss and
accuracy are compared at learning rates chosen by the validation loss, from five to begin with, a
tenth to ten times of those two, and more while the best is outermost.

Norm growth is the squared norm of the hidden kernels at the end over that at the start, minus one.
The effective step is the root mean square, over units, of how far a step turns a unit's weights
(radians), here as a mean over the second half of the run. The paper trains ResNets on ImageNet;
here all rules read nearly every digit, so differences in loss and accuracy are not to be expected
and do not count towards the verdict.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
from shared import drawing, protocol
from shared.protocol import measured

import optzoo
from optzoo.problems import PROBLEMS, Problem

RATES = [float(f"{rate:.3g}") for rate in 10.0 ** np.arange(-3, 1.01, 1 / 3)]
TOY, NETWORK, COSINE = "toy", "digits_norm", "+cosine"
STYLES = dict(projected=0, momentum=1, gd=2, adamp=0, adamw=1, sgdp=2, sgd=3)
PAIRS = (("projected", "momentum"), ("sgdp", "sgd"), ("adamp", "adamw"))


def gd(learning_rate=0.1):
    return optax.sgd(learning_rate)


def momentum(learning_rate=0.1):
    return optax.sgd(learning_rate, 0.9)


def projected(learning_rate=0.1):
    return optzoo.sgdp(learning_rate, momentum=0.9)


def sgd(learning_rate=0.1):
    return optax.chain(optax.add_decayed_weights(1e-4), momentum(learning_rate))


def sgdp(learning_rate=0.1):
    return optzoo.sgdp(learning_rate, momentum=0.9, weight_decay=1e-4)


def adamw(learning_rate=1e-3):
    return optax.adamw(learning_rate, weight_decay=1e-2)


def adamp(learning_rate=1e-3):
    return optzoo.adamp(learning_rate, weight_decay=1e-2)


def watched(problem, *layers):
    """The problem, reporting the squared norm of its hidden kernels and how far steps turn them."""

    def evaluate(params, split):
        squares = sum(jnp.sum(params[layer]["kernel"] ** 2) for layer in layers)
        return problem.evaluate(params, split) | {"square": squares}

    def observe(before, after, batch):
        chords = []
        for layer in layers:
            old, new = before[layer]["kernel"], after[layer]["kernel"]
            chords.append(new / jnp.linalg.norm(new, axis=0) - old / jnp.linalg.norm(old, axis=0))
        lengths = jnp.concatenate([jnp.linalg.norm(chord, axis=0) for chord in chords])
        angles = 2 * jnp.arcsin(jnp.minimum(lengths / 2, 1))
        return {"angle": jnp.sqrt(jnp.mean(angles**2))}

    return dataclasses.replace(problem, evaluate=evaluate, observe=observe)


def toy():
    def init(key):
        start = jax.random.normal(key, (3, 1))
        return {"layer": {"kernel": start / jnp.linalg.norm(start)}}

    def loss(params, batch):
        kernel = params["layer"]["kernel"]
        return 1 - kernel[0, 0] / jnp.linalg.norm(kernel)

    def evaluate(params, split):
        return {"loss": loss(params, None)}

    return watched(Problem(init, loss, evaluate, steps=200, target=1e-3, name=TOY), "layer")


def experiment(budget):
    length = budget.steps(200)
    on_toy = protocol.compare(
        toy(), (projected, momentum, gd), lrs=RATES, seeds=budget.seeds(32), steps=length
    )
    on_network = protocol.compare(
        watched(PROBLEMS[NETWORK](), "layers_0", "layers_2"),
        (adamp, adamw, sgdp, sgd),
        schedules=("cosine",),
        seeds=budget.seeds(10),
        steps=budget.steps(1870),
    )

    def place(rule):
        in_network = rule in ("adamp", "adamw", "sgdp", "sgd")
        return (on_network, NETWORK, rule + COSINE) if in_network else (on_toy, TOY, rule)

    def watch(rule, metric):
        return protocol.curves(*place(rule), metric, rate=1e-3 if "adam" in rule else 0.1)

    def steps_needed(rule):
        steps = [protocol.final(*place(rule), "steps_to_target", rate=rate) for rate in RATES]
        return np.nan_to_num(steps, nan=length)

    grown = {rule: watch(rule, "square") for rule in STYLES}
    grown = {rule: square / square[:, :1] for rule, square in grown.items()}
    angles = {rule: watch(rule, "angle") for rule in STYLES}
    needed = {rule: steps_needed(rule) for rule in ("projected", "momentum", "gd")}

    findings = []
    for ours, theirs in PAIRS:
        name = "toy" if ours == "projected" else "network"
        growth = [grown[rule][:, -1] - 1 for rule in (theirs, ours)]
        means = " and ".join(f"{one.mean():.2g}" for one in growth)
        text = f"{name}, growth of the squared norm, {theirs} minus {ours} ({means})"
        findings.append(measured(f"{text}, expected above 0", growth[0] - growth[1], above=0))
        later = [
            angles[rule][:, angles[rule].shape[1] // 2 :].mean(axis=1) for rule in (ours, theirs)
        ]
        text = f"{name}, effective step in the second half, {ours} over {theirs}, expected above 1"
        findings.append(measured(text, later[0] / later[1], above=1, ratio=True))
    sooner = needed["momentum"].mean(axis=0) - needed["projected"].mean(axis=0)
    text = "toy, steps to a loss of 0.001, mean of all rates, momentum minus projected"
    findings.append(measured(f"{text}, expected above 0", sooner, above=0, central=False))
    for pair in PAIRS[1:]:
        for metric, sign in (("test_loss", -1), ("test_accuracy", 1)):
            ours, theirs = (protocol.final(*place(rule), metric) for rule in pair)
            text = f"network, tuned, {metric.replace('_', ' ')}, {pair[0]} better than {pair[1]} by"
            gain = sign * (ours - theirs)
            findings.append(measured(text, gain, above=0, central=False, form="+.2g"))

    figure, (norm, speed, losses, growths, *turns) = drawing.panels(
        "Toy: squared norm of the weights",
        "Toy: steps to the target",
        "Network: test loss, rates tuned",
        "Network: squared norm of hidden kernels",
        "Network: effective step, AdamW and AdamP",
        "Network: effective step, SGD and SGDP",
    )
    for rule, style in STYLES.items():
        axes = norm if rule in needed else growths
        results, problem, _ = place(rule)
        steps = protocol.checkpoints(results, problem)
        drawing.line(axes, steps, grown[rule], rule, style)
        if rule in needed:
            drawing.line(speed, RATES, needed[rule].mean(axis=1), rule, style, marker="o")
        else:
            drawing.line(turns["sgd" in rule], steps, angles[rule], rule, style)
    rules = ("adamp", "adamw", "sgdp", "sgd")
    drawing.bars(losses, rules, [protocol.final(*place(rule)) for rule in rules], range(4))
    drawing.describe_axes(norm, "steps", "squared norm, 1 at the start", log_y=True)
    drawing.describe_axes(speed, "learning rate", "steps (never: all of them)", log_x=True)
    drawing.describe_axes(losses, "loss: mean and range over the seeds", "")
    drawing.describe_axes(growths, "steps", "squared norm, 1 at the start")
    for one in turns:
        drawing.describe_axes(one, "steps", "radians a step")
    for one in (norm, speed, growths, *turns):
        drawing.name_lines(one)
    return findings, figure


if __name__ == "__main__":
    protocol.main("adamp", experiment)
