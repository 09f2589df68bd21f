"""AdEMAMix reaches AdamW's loss with about half of the tokens and ends lower, on images too, and
forgets a batch more slowly.

Language: Python's reference manual, letter by letter: embeddings of width 16 for the last eight
letters, a hidden layer of 64, batches of 32 letters (a tenth of the cost of the library's
`language`, which thousands of steps would take too long for). AdEMAMix runs for 1000, 2000 and 4000
steps, AdamW for 500 to 8000, every length with a linear warm-up and cosine decay of its own. How
many steps AdamW needs for AdEMAMix's final test loss is read off a straight line between its two
lengths about that loss, over the logarithm of the steps; nothing is extrapolated, so a loss beyond
all of AdamW's counts as its longest or shortest run. AdamW's steps over AdEMAMix's are the effect,
for each of five seeds, so from 0.5 to 8 after 1000 steps, and from 0.125 to 2 after 4000; the
paper's is 1.95 (101 and 197 billion tokens at 1.3 billion parameters).

Images: the library's `digits`, a perceptron with two hidden layers, 1000 steps of 64.

Both rules have b1 = 0.9, b2 = 0.999 and weight decay 0.1; AdEMAMix has alpha = 8 and both warm-ups
over the whole run, as in the paper. Its b3 is 0.999, which the paper advises for short runs: 0.9999
is for its 256 000 steps, 37 half-lives of the slow average, of which 4000 steps are half of one.
(An earlier version took its verdict from 0.9999, which lost; it runs beside the other at 4000 steps
and is reported.) Learning rates by the validation loss, from three to begin with, half decades
about 0.003, and three more while the best is outermost.

Forgetting: the 4000 steps once more, at each rule's best rate, with a batch of 32 letters from the
test text in place of the batch of step 2000. How much lower the loss on that batch is than without
it is the gain; the effect is for how many steps more than half of the largest gain is left, read
off every hundred steps, AdEMAMix's over AdamW's.

Claims are the effect on tokens at 4000 steps, the final loss there and that on images, AdamW's over
AdEMAMix's, and forgetting. Ours are how the effect on tokens grows with the run, a straight line
over the logarithm of the steps for each seed; b3 = 0.9999; and that the warm-ups of alpha and b3
are needed: 4000 steps without either, at the learning rate of the complete rule.

The effect on tokens passes 1 at about 2000 steps, which are three half-lives of the slow average;
the runs on images have half of that. The paper's batches hold thousands of sequences, its models
ten thousand times more weights and more.
"""

import dataclasses
from pydoc_data.topics import topics

import jax
import jax.numpy as jnp
import numpy as np
import optax
from shared import drawing, protocol
from shared.protocol import Trend, claimed, measured

import optzoo
from optzoo.compare.plan.grid import Grid
from optzoo.problems import PROBLEMS, Problem
from optzoo.problems.sequences import PRINTABLE, encode

LONGEST, SEEDS, PAPER = 4000, 5, (197 / 101,)
CONTEXT, WIDTH, HIDDEN, BATCH, HELD_OUT = 8, 16, 64, 32, 1024
IMAGES = "digits"
GRID = Grid.of([10**-0.5, 1.0, 10**0.5], relative=True)


def adamw(learning_rate=3e-3, *, total_steps):
    return optax.adamw(optzoo.cosine(learning_rate, total_steps), weight_decay=0.1)


def mix(name, b3=0.999, *, warmups=True):
    """AdEMAMix as it takes part in a comparison, with the schedules that it is told to have."""

    def rule(learning_rate=3e-3, *, total_steps):
        return optzoo.ademamix(
            optzoo.cosine(learning_rate, total_steps),
            b3=b3,
            alpha=8.0,
            alpha_warmup=total_steps if warmups else None,
            b3_warmup=total_steps if warmups else None,
            weight_decay=0.1,
        )

    rule.__name__ = name
    return rule


ademamix, slower = mix("ademamix"), mix("slower", 0.9999)
without_warmups = mix("without_warmups", warmups=False)
NAMES = {"ademamix": "AdEMAMix", "adamw": "AdamW", "slower": "b3 0.9999"}


def language(name, steps, *, special_step=-1):
    """The problem; the batch that comes at `special_step` alone is reported on as "special"."""
    text = jnp.asarray(encode("\n".join(topics[key] for key in sorted(topics))))
    train_size = len(text) * 9 // 10
    offsets = np.linspace(train_size, len(text) - CONTEXT - 1, 2 * HELD_OUT + BATCH, dtype=int)
    window = np.arange(CONTEXT + 1)
    held_out = text[np.random.default_rng(0).permutation(offsets)[:, None] + window]
    special = held_out[2 * HELD_OUT :]
    splits = {"validation": held_out[:HELD_OUT], "test": held_out[HELD_OUT : 2 * HELD_OUT]}
    size = len(PRINTABLE)

    def dense(key, inputs, outputs):
        kernel = jax.random.normal(key, (inputs, outputs)) / inputs**0.5
        return {"kernel": kernel, "bias": jnp.zeros(outputs)}

    def init(key):
        keys = jax.random.split(key, 3)
        return {
            "embedding": {"embedding": jax.random.normal(keys[0], (size, WIDTH))},
            "hidden": dense(keys[1], CONTEXT * WIDTH, HIDDEN),
            "head": dense(keys[2], HIDDEN, size),
        }

    def loss(params, letters):
        hidden, head = params["hidden"], params["head"]
        x = params["embedding"]["embedding"][letters[:, :-1]].reshape(len(letters), -1)
        x = jnp.tanh(x @ hidden["kernel"] + hidden["bias"][None])
        logits = x @ head["kernel"] + head["bias"][None]
        return optax.softmax_cross_entropy_with_integer_labels(logits, letters[:, -1]).mean()

    def stream(key, step):
        starts = jax.random.randint(key, (BATCH,), 0, train_size - CONTEXT)
        return jnp.where(step == special_step, special, text[starts[:, None] + window[None]])

    def evaluate(params, split):
        return {"loss": loss(params, splits[split]), "special": loss(params, special)}

    return Problem(init, loss, evaluate, steps, 1.9, stream=stream, name=name)


def steps_for(losses, lengths, curve):
    """The length at which a rule's final losses meet others, a row of `curve` for each seed."""
    order = np.argsort(lengths)
    logs = np.log(np.asarray(lengths, float)[order])
    # Longer runs end lower; where two do not, the lower of both counts.
    falling = np.minimum.accumulate(curve[:, order], axis=1)
    met = [
        np.interp(-loss, -row, logs, left=logs[0], right=logs[-1])
        for loss, row in zip(losses, falling, strict=True)
    ]
    return np.exp(met)


def remembered(gains, steps):
    """For how many steps more than half of the largest gain is left, one number a seed."""
    peaks = gains.argmax(axis=1)
    lasting = []
    for row, peak in zip(gains, peaks, strict=True):
        below = np.flatnonzero(row[peak:] < row[peak] / 2)
        lasting.append(steps[peak + below[0]] if below.size else steps[-1])
    return np.asarray(lasting, float)


def experiment(budget):
    seeds, longest = budget.seeds(SEEDS), budget.steps(LONGEST)
    lengths = [longest // 4, longest // 2, longest]
    others = [longest // 8, longest * 2]
    tasks = {steps: language(f"{steps} steps", steps) for steps in {*lengths, *others}}
    both = protocol.compare(
        [tasks[steps] for steps in lengths], (ademamix, adamw), lrs=GRID, seeds=seeds
    )
    alone = protocol.compare([tasks[steps] for steps in others], (adamw,), lrs=GRID, seeds=seeds)
    long = tasks[longest].name
    slow = protocol.compare(tasks[longest], (slower,), lrs=GRID, seeds=seeds)
    rates = {rule: protocol.best_rate(both, long, rule) for rule in ("ademamix", "adamw")}
    ablated = protocol.compare(
        tasks[longest], (without_warmups,), lrs=[rates["ademamix"]], seeds=seeds
    )
    digits = dataclasses.replace(PROBLEMS[IMAGES](), steps=budget.steps(1000))
    images = protocol.compare(digits, (ademamix, adamw), lrs=GRID, seeds=seeds)

    def finals(rule, steps):
        results = both if steps in lengths else alone
        return protocol.final(results, tasks[steps].name, rule)

    by_length = sorted({*lengths, *others})
    adamws = np.stack([finals("adamw", steps) for steps in by_length], axis=1)
    effects = np.stack(
        [steps_for(finals("ademamix", steps), by_length, adamws) / steps for steps in lengths],
        axis=1,
    )
    trend = Trend(np.asarray(lengths, float), effects)

    steps = protocol.checkpoints(both, long)
    later = steps > longest // 2

    def gains(factory):
        """How much lower the loss on the special batch is for having seen it, after that step."""
        name = factory.__name__
        injected = language("injected", longest, special_step=longest // 2)
        results = protocol.compare(injected, (factory,), lrs=[rates[name]], seeds=seeds)
        seen = protocol.curves(results, "injected", name, "special")
        return (protocol.curves(both, long, name, "special") - seen)[:, later]

    since = steps[later] - longest // 2
    gained = {rule.__name__: gains(rule) for rule in (ademamix, adamw)}
    kept = {rule: remembered(values, since) for rule, values in gained.items()}

    def lower(text, theirs, ours):
        means = f"{theirs.mean():.3g} and {ours.mean():.3g}"
        return claimed(text, theirs / ours, means=means)

    final_losses = [finals(rule, longest) for rule in ("adamw", "ademamix")]
    image_losses = [protocol.final(images, IMAGES, rule) for rule in ("adamw", "ademamix")]
    complete = final_losses[1]
    findings = [
        claimed(
            "tokens to AdEMAMix's final loss, AdamW over AdEMAMix",
            effects[:, -1],
            means=f"{longest} steps",
            paper=PAPER,
        ),
        lower("final loss, AdamW over AdEMAMix", *final_losses),
        lower("test loss on images, AdamW over AdEMAMix", *image_losses),
        claimed(
            "steps that half of a batch's gain lasts, AdEMAMix over AdamW",
            kept["ademamix"] / kept["adamw"],
            means=f"{kept['ademamix'].mean():.3g} and {kept['adamw'].mean():.3g}",
        ),
        trend.grows("a run of AdEMAMix ten times as long"),
        measured(
            f"test loss after {longest} steps, AdamW minus AdEMAMix with b3 = 0.9999, above 0 if "
            "that is better",
            final_losses[0] - protocol.final(slow, long, "slower"),
            above=0,
            form="+.3f",
        ),
        measured(
            "test loss without the warm-ups of alpha and b3 minus with them, above 0 if they are "
            "needed",
            protocol.final(ablated, long, "without_warmups") - complete,
            above=0,
            form="+.3f",
        ),
    ]

    figure, (courses, tokens, ratio, memory, pictures, warmups) = drawing.panels(
        f"Validation loss, {longest} steps",
        "Final loss by length of the run",
        "Tokens: AdamW over AdEMAMix",
        "Gain on a batch seen once",
        "Images: validation loss",
        "Warm-ups: validation loss",
    )
    for style, (rule, label) in enumerate(NAMES.items()):
        results = slow if rule == "slower" else both
        curve = protocol.curves(results, long, rule)
        drawing.line(courses, steps[1:], curve[:, 1:], label, style)
        if rule == "slower":
            continue
        runs = lengths if rule == "ademamix" else by_length
        values = np.stack([finals(rule, length) for length in runs], axis=1)
        drawing.line(tokens, runs, values, label, style, marker="o")
        drawing.line(memory, since, gained[rule], label, style)
        marks = protocol.checkpoints(images, IMAGES)
        curve = protocol.curves(images, IMAGES, rule)
        drawing.line(pictures, marks[1:], curve[:, 1:], label, style)
    drawing.trend(ratio, trend, PAPER)
    complete_curve = protocol.curves(both, long, "ademamix")
    drawing.line(warmups, steps[1:], complete_curve[:, 1:], "with both", 0)
    without = protocol.curves(ablated, long, "without_warmups")
    drawing.line(warmups, steps[1:], without[:, 1:], "without", 1)
    for axes in (courses, warmups):
        drawing.describe_axes(axes, "steps", "nats a letter", log_x=True)
    drawing.describe_axes(tokens, "steps of the run", "test loss, nats a letter", log_x=True)
    drawing.describe_axes(
        ratio, "steps of AdEMAMix's run", "effect (95 % interval)", log_x=True, log_y=True
    )
    for axes, marked in ((tokens, by_length), (ratio, lengths)):
        axes.set_xticks(marked, [str(length) for length in marked])
    drawing.describe_axes(memory, "steps since the batch", "loss without it minus with it")
    drawing.describe_axes(pictures, "steps", "cross-entropy", log_y=True)
    for axes in (courses, tokens, memory, pictures, warmups):
        drawing.name_lines(axes)
    return findings, figure


if __name__ == "__main__":
    protocol.main("ademamix", experiment)
