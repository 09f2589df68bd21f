"""Gradients stay useful for thousands of steps: AdEMAMix ends lower than AdamW, forgets a batch
more slowly, and needs the warm-ups of alpha and b3.

A language model on Python's reference manual, letter by letter: embeddings of width 16 for the
last eight letters, a hidden layer of 64, batches of 32 letters (a tenth of the cost of the
library's `language`, which thousands of steps would take too long for). Runs of 500 and of 4000
steps, ten seeds, linear warm-up and cosine decay for all, b1 = 0.9, b2 = 0.999, weight decay 0.1;
AdEMAMix with alpha = 8, b3 = 0.9999 and both warm-ups over the whole run, all as in the paper's
language models. Those run for 256 000 steps, 37 half-lives of the slow average; 4000 steps are
half of one, so AdEMAMix with b3 = 0.999, which the paper advises for short runs, runs beside it.
Learning rates by the validation loss, from five to begin with, a tenth to ten times 0.001, and
more while the best is outermost.

Forgetting: the 4000 steps once more, at each rule's best rate, with and without a batch of 32
letters from the test text in place of the batch of step 2000. Measured is how much lower the loss
on that batch is than without it, and how much of the largest such gain is left at the end. The
paper's batches hold thousands of sequences, its models a thousand times more weights. (A first run
was judged by the size of the gain, which is no measure of forgetting; it is still reported. What is
said of b3 = 0.999 beyond its loss was added after that run.)

Warm-ups: the 4000 steps without one or both of them, at the learning rate of the complete rule.

What this scale lacks is length: during the warm-up to 0.9999 the slow average's half-life is 1.7
times the steps made so far, against 0.027 times in the paper, so it never lets go of the very
first gradients. What b3 = 0.999 finds does not count towards the verdict.
"""

from pydoc_data.topics import topics

import jax
import jax.numpy as jnp
import numpy as np
import optax
from shared import drawing, protocol
from shared.protocol import measured

import optzoo
from optzoo.problems import Problem
from optzoo.problems.sequences import PRINTABLE, encode

SHORT, LONG = 500, 4000
NAMES = {"ademamix": "b3 0.9999", "adamw": "AdamW", "ademamix_999": "b3 0.999"}
WARMUPS = {"only_b3": "b3's alone", "only_alpha": "alpha's alone", "neither": "neither"}
CONTEXT, WIDTH, HIDDEN, BATCH, HELD_OUT = 8, 16, 64, 32, 1024


def adamw(learning_rate=1e-3, *, total_steps):
    return optax.adamw(optzoo.cosine(learning_rate, total_steps), weight_decay=0.1)


def mix(name, b3=0.9999, *, alpha_warmup=True, b3_warmup=True):
    """AdEMAMix as it takes part in a comparison, with the schedules that it is told to have."""

    def rule(learning_rate=1e-3, *, total_steps):
        return optzoo.ademamix(
            optzoo.cosine(learning_rate, total_steps),
            b3=b3,
            alpha=8.0,
            alpha_warmup=total_steps if alpha_warmup else None,
            b3_warmup=total_steps if b3_warmup else None,
            weight_decay=0.1,
        )

    rule.__name__ = name
    return rule


ademamix, ademamix_999 = mix("ademamix"), mix("ademamix_999", 0.999)
ABLATION = (
    mix("only_b3", alpha_warmup=False),
    mix("only_alpha", b3_warmup=False),
    mix("neither", alpha_warmup=False, b3_warmup=False),
)
RULES = (ademamix, adamw, ademamix_999)
neither_999 = mix("neither_999", 0.999, alpha_warmup=False, b3_warmup=False)


def language(name, *, special_step=-1):
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

    return Problem(init, loss, evaluate, LONG, 1.9, stream=stream, name=name)


def experiment(budget):
    lengths = {"short": budget.steps(SHORT), "long": budget.steps(LONG)}
    middle = lengths["long"] // 2
    seeds = budget.seeds(10)
    results = {
        name: protocol.compare(language(name), RULES, seeds=seeds, steps=steps)
        for name, steps in lengths.items()
    }
    rates = {rule: protocol.best_rate(results["long"], "long", rule) for rule in NAMES}

    def gain(factory):
        """How much lower the loss on the special batch is for having seen it, after that step."""
        name = factory.__name__
        injected = protocol.compare(
            language("injected", special_step=middle),
            (factory,),
            lrs=[rates[name]],
            seeds=seeds,
            steps=lengths["long"],
        )
        seen = protocol.curves(injected, "injected", name, "special")
        return (protocol.curves(results["long"], "long", name, "special") - seen)[:, steps > middle]

    def ablated(rule, *factories):
        return protocol.compare(
            language("long"), factories, lrs=[rates[rule]], seeds=seeds, steps=lengths["long"]
        )

    steps = protocol.checkpoints(results["long"], "long")
    gains = {factory.__name__: gain(factory) for factory in RULES}
    ablation = ablated("ademamix", *ABLATION)
    ablation_999 = ablated("ademamix_999", neither_999)

    findings, advantages = [], {}
    for name, length in lengths.items():
        theirs = protocol.final(results[name], name, "adamw")
        for rule in ("ademamix", "ademamix_999"):
            ours = protocol.final(results[name], name, rule)
            advantages[rule, name] = theirs - ours
            text = (
                f"test loss after {length} steps, adamw minus {rule} "
                f"({theirs.mean():.3f} and {ours.mean():.3f}), expected above 0"
            )
            central = (rule, name) == ("ademamix", "long")
            findings.append(measured(text, theirs - ours, above=0, central=central, form="+.3f"))
    grown = advantages["ademamix", "long"] - advantages["ademamix", "short"]
    text = "how much more that is after the long run than after the short one, expected above 0"
    findings.append(measured(text, grown, above=0, central=False, form="+.3f"))
    for rule in ("ademamix", "ademamix_999"):
        left = [gains[name][:, -1] / gains[name].max(axis=1) for name in (rule, "adamw")]
        text = (
            f"share of the gain on a batch seen once that is left at the end, {rule} minus adamw "
            f"({left[0].mean():.2f} and {left[1].mean():.2f}), expected above 0"
        )
        central = rule == "ademamix"
        findings.append(measured(text, left[0] - left[1], above=0, central=central, form="+.2f"))
        more = gains[rule].mean(axis=1) - gains["adamw"].mean(axis=1)
        text = f"the gain itself, mean of the steps since, {rule} minus adamw, expected above 0"
        findings.append(measured(text, more, above=0, central=False, form="+.2g"))
    complete = protocol.final(results["long"], "long", "ademamix")
    for rule, what in WARMUPS.items():
        worse = protocol.final(ablation, "long", rule) - complete
        text = f"test loss with {what} minus with both, expected above 0"
        findings.append(measured(text, worse, above=0, central=rule == "neither", form="+.3f"))
    complete = protocol.final(results["long"], "long", "ademamix_999")
    worse = protocol.final(ablation_999, "long", "neither_999") - complete
    text = "the same without either for b3 = 0.999"
    findings.append(measured(text, worse, above=0, central=False, form="+.3f"))

    figure, (losses, advantage, memory, warmups) = drawing.panels(
        f"Validation loss, {lengths['long']} steps",
        "Test loss of AdamW minus AdEMAMix's",
        "Gain on a batch seen once",
        "Warm-ups of AdEMAMix: validation loss",
    )
    for style, rule in enumerate(NAMES):
        curve = protocol.curves(results["long"], "long", rule)
        drawing.line(losses, steps[1:], curve[:, 1:], NAMES[rule], style)
        drawing.line(memory, steps[steps > middle] - middle, gains[rule], NAMES[rule], style)
    drawing.bars(
        advantage,
        [f"{NAMES[rule].split()[-1]}, {lengths[name]}" for rule, name in advantages],
        list(advantages.values()),
        [0 if rule == "ademamix" else 2 for rule, _ in advantages],
    )
    advantage.axvline(0, color="#9AA0A6", linewidth=0.8)
    both = protocol.curves(results["long"], "long", "ademamix")
    drawing.line(warmups, steps[1:], both[:, 1:], "both", 0)
    for style, (rule, what) in enumerate(WARMUPS.items(), 1):
        drawing.line(
            warmups, steps[1:], protocol.curves(ablation, "long", rule)[:, 1:], what, style
        )
    for axes in (losses, warmups):
        drawing.describe_axes(axes, "steps", "nats a letter", log_x=True)
    drawing.describe_axes(memory, "steps since the batch", "loss without it minus with it")
    drawing.describe_axes(advantage, "nats a letter: mean and range over the seeds", "b3, steps")
    for axes in (losses, memory, warmups):
        drawing.name_lines(axes)
    return findings, figure


if __name__ == "__main__":
    protocol.main("ademamix", experiment)
