"""Momentum makes scale-invariant weights grow, which shrinks their effective steps early; the
projection of AdamP and SGDP stops that, which gains in classification and in retrieval.

Classification: `digits_norm`, two hidden layers with batch normalisation on scikit-learn's digits,
batches of 64, 1870 steps, which are 100 epochs as in the paper. (400 steps, the problem's own
number, were tried first and are too few for AdamW at the paper's rate to change any norm by a per
cent.) Retrieval: a network of 32 hidden units with an embedding of 16 numbers learns the digits 0
to 4, 400 steps of 64, by the cosine between embedding and a proxy for each class, over a
temperature of 0.1; every unit's weights are divided by their norm, as embeddings and proxies are.
It is asked for the digits 5 to 9: of each held-out image, whether its nearest neighbour among the
others shows the same digit. Half of those images, 450, are for validation, half for the test.

Five seeds, linear warm-up and the paper's cosine decay. SGD with momentum 0.9 and SGDP with weight
decay 1e-4, AdamW and AdamP with 1e-2 (the authors' example). In classification norms and effective
steps are compared at the rates that the paper gives both of a pair on ImageNet, 0.1 and 0.001.
Gains are compared at learning rates chosen by the validation loss, from five to begin with, a tenth
to ten times of those two, and more while the best is outermost: the test loss in classification,
and in retrieval the number of failures, half a one added; what validation chooses by there is the
neighbours' cross-entropy at the same temperature. The paper speaks of uniform gains, so each one
counts. (An earlier version had no retrieval, ten seeds, and a verdict without the gains.)

The squared norm is that of the hidden kernels at the end over that at the start. The effective step
is the root mean square, over units, of how far a step turns a unit's weights (radians), here as a
mean over the second half of the run.

Ours is a toy, after the paper's figure 1 but in three dimensions: w, from 32 places on the unit
sphere, is to point in a given direction (loss 1 - cosine). Gradient descent, momentum 0.9 and SGDP
0.9 without decay, 200 steps at 13 learning rates from 0.001 to 10; norms and steps are taken at
0.1. Nothing is selected.

The paper trains ResNets on ImageNet and on data for retrieval; here all rules read nearly every
digit, which leaves little to gain.
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

RATES = [float(f"{rate:.3g}") for rate in 10.0 ** np.arange(-3, 1.01, 1 / 3)]
TOY, NETWORK, RETRIEVAL, COSINE = "toy", "digits_norm", "retrieval", "+cosine"
SEEDS, TEMPERATURE, KNOWN, HELD_OUT = 5, 0.1, 5, 450
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


def retrieval(steps):
    """Embeddings learnt on some digits, asked for others."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    images = jnp.asarray(data.data[order] / 16, jnp.float32)
    labels = jnp.asarray(data.target[order], jnp.int32)
    seen, unseen = (jnp.flatnonzero(part) for part in (labels < KNOWN, labels >= KNOWN))
    parts = {"validation": unseen[:HELD_OUT], "test": unseen[HELD_OUT:]}
    shapes = {"hidden": (64, 32), "embedding": (32, 16), "proxies": (16, KNOWN)}

    def init(key):
        keys = jax.random.split(key, len(shapes))
        return {
            name: {"kernel": jax.random.normal(one, shape) / shape[0] ** 0.5}
            for one, (name, shape) in zip(keys, shapes.items(), strict=True)
        }

    def normal(x, axis):
        return x / jnp.sqrt(jnp.sum(x**2, axis=axis, keepdims=True) + 1e-12)

    def embed(params, images):
        hidden, embedding = (normal(params[name]["kernel"], 0) for name in ("hidden", "embedding"))
        return normal(jax.nn.relu(images @ hidden) @ embedding, 1)

    def loss(params, rows):
        scores = embed(params, images[rows]) @ normal(params["proxies"]["kernel"], 0)
        each = optax.softmax_cross_entropy_with_integer_labels(scores / TEMPERATURE, labels[rows])
        return each.mean()

    def evaluate(params, split):
        embedded, known = embed(params, images[parts[split]]), labels[parts[split]]
        scores = jnp.where(jnp.eye(len(known)) > 0, -jnp.inf, embedded @ embedded.T / TEMPERATURE)
        same = known[:, None] == known[None]
        all_of_them = jax.nn.logsumexp(scores, axis=1)
        right = jax.nn.logsumexp(jnp.where(same, scores, -jnp.inf), axis=1)
        wrong = known[scores.argmax(axis=1)] != known
        return {"loss": jnp.mean(all_of_them - right), "failures": wrong.sum() + 0.5}

    def batch(key):
        return seen[jax.random.randint(key, (64,), 0, len(seen))]

    return Problem(init, loss, evaluate, steps, target=0.5, batch=batch, name=RETRIEVAL)


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
        seeds=budget.seeds(SEEDS),
        steps=budget.steps(1870),
    )
    on_retrieval = protocol.compare(
        retrieval(budget.steps(400)),
        (adamp, adamw, sgdp, sgd),
        schedules=("cosine",),
        seeds=budget.seeds(SEEDS),
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

    def later(rule):
        """The effective step in the second half of the run."""
        return angles[rule][:, angles[rule].shape[1] // 2 :].mean(axis=1)

    findings = []
    for ours, theirs in PAIRS[1:]:
        for text, high, low in (
            (
                f"squared norm of weights at the end, {theirs} over {ours}",
                grown[theirs][:, -1],
                grown[ours][:, -1],
            ),
            (
                f"effective step in the second half, {ours} over {theirs}",
                later(ours),
                later(theirs),
            ),
            (
                f"test loss in classification, {theirs} over {ours}",
                protocol.final(*place(theirs)),
                protocol.final(*place(ours)),
            ),
            (
                f"failures in retrieval, {theirs} over {ours}",
                protocol.final(on_retrieval, RETRIEVAL, theirs + COSINE, "test_failures"),
                protocol.final(on_retrieval, RETRIEVAL, ours + COSINE, "test_failures"),
            ),
        ):
            means = f"{high.mean():.3g} and {low.mean():.3g}"
            findings.append(claimed(text, high / low, means=means))
    ours, theirs = PAIRS[0]
    sooner = needed["momentum"].mean(axis=0) - needed["projected"].mean(axis=0)
    for text, samples, above, ratio in (
        (
            "squared norm at the end, momentum over projected",
            grown[theirs][:, -1] / grown[ours][:, -1],
            1,
            True,
        ),
        (
            "effective step in the second half, projected over momentum",
            later(ours) / later(theirs),
            1,
            True,
        ),
        (
            "steps to a loss of 0.001, mean of all rates, momentum minus projected",
            sooner,
            0,
            False,
        ),
    ):
        findings.append(
            measured(
                f"toy, {text}, expected above {above}",
                samples,
                above=above,
                ratio=ratio,
            )
        )
    for ours, theirs in PAIRS[1:]:
        gain = protocol.final(*place(ours), "test_accuracy")
        gain = gain - protocol.final(*place(theirs), "test_accuracy")
        findings.append(
            measured(
                f"test accuracy in classification, {ours} minus {theirs}, expected above 0",
                gain,
                above=0,
                form="+.2g",
            )
        )

    figure, (norm, speed, growths, losses, *turns, failures) = drawing.panels(
        "Toy: squared norm of the weights",
        "Toy: steps to the target",
        "Network: squared norm of hidden kernels",
        "Classification: test loss, rates tuned",
        "Network: effective step, AdamW and AdamP",
        "Network: effective step, SGD and SGDP",
        "Retrieval: failures, rates tuned",
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
    drawing.bars(
        failures,
        rules,
        [protocol.final(on_retrieval, RETRIEVAL, rule + COSINE, "test_failures") for rule in rules],
        range(4),
    )
    drawing.describe_axes(failures, "failures: mean and range over the seeds", "")
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
