"""Muon reaches AdamW's final loss with about half of the training compute on language models, ends
at no worse a perplexity, and keeps its advantage in large batches.

The model and the text of the problem `language`: a transformer that reads 32 letters at a time, in
widths of 16, 32 and 64, with 128 letters a step, and in width 32 with 512 as well. The paper that
makes the claim (arXiv:2509.24406) reports 48 to 52 % of AdamW's compute, an effect of 1.92 to 2.08,
with perplexity kept or improved, and confirms what Essential AI (arXiv:2505.02222) finds of large
batches; Moonlight (arXiv:2502.16982) has 52 %, by a scaling law.

AdamW (b1 = 0.9, b2 = 0.95, decay 0.1) runs for 240 steps. Muon as in Moonlight (steps of the size
of AdamW's, decay 0.1, that same AdamW for embeddings, head and vectors) runs for 96 and for 240
steps, both rules under warm-up over a tenth of their own run and cosine decay to zero. Where its
final test loss, taken as straight over the logarithm of the steps (a power law lies below that, so
the effect errs downwards), meets AdamW's is the share of the compute that it needs, for each of
five seeds; AdamW's over that is the effect, which can come out as 1 to 2.5. It counts steps, of
equal batches, as those papers do. The same five learning rates for every rule, size and length,
chosen by validation loss (the lowest was added after a first run in which the next was the best for
both at width 64); held-out text: 64 windows each for validation and test.

"About half" is read as at most 0.65, an effect above 1.54, at the largest width, the nearest to the
paper's; "no worse" as a perplexity within 2 % of AdamW's after equally many steps, there as
well; "keeps its advantage" as an effect above 1 in batches four times as large. (An earlier version
ran 300 steps at width 32 alone, with 256 and 1024 letters a step.)

Ours are the trend over the sizes, a straight line through the logarithms of effect and number of
weights in hidden matrices for each seed, drawn dotted where it goes beyond what was measured; what
Newton-Schulz costs; and what happens without orthogonalisation: a third rule at width 32 scales the
momentum to the same norm instead. Its steps are what Newton-Schulz is given.

The papers train 10⁷ to 10¹⁰ weights on 10⁹ letters and more; matrices of 64 rows leave little to
orthogonalise, and Newton-Schulz, below 1 % of their FLOPs, costs more here.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
from shared import drawing, protocol
from shared.protocol import Trend, claimed, measured

import optzoo
from optzoo.problems.sequences import manual_reader

RATES = (4e-3, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2)
STEPS, SHORTER, CONTEXT, WIDTH = 240, 0.4, 32, 32
SMALL, LARGE = 4, 16
SIZES = ((16, SMALL), (32, SMALL), (64, SMALL))
BATCHES = ((WIDTH, SMALL), (WIDTH, LARGE))
CASES = tuple(dict.fromkeys(SIZES + BATCHES))
HALF, NO_WORSE, PAPER = 0.65, 0.98, (1 / 0.52, 1 / 0.48)
SOURCE = (
    "Muon: Training and Trade-offs with Latent Attention and MoE",
    "https://arxiv.org/abs/2509.24406",
    "2025",
)


def adamw(learning_rate, *, total_steps):
    rate = optzoo.cosine(learning_rate, total_steps)
    return optax.adamw(rate, b1=0.9, b2=0.95, weight_decay=0.1)


def muon(learning_rate, *, total_steps, orthogonalizer=None):
    return optzoo.muon(
        optzoo.cosine(learning_rate, total_steps),
        momentum_form="sum",
        scale="match_rms_adamw",
        weight_decay=0.1,
        orthogonalizer=orthogonalizer,
        rest=adamw(learning_rate, total_steps=total_steps),
    )


def momentum(learning_rate, *, total_steps):
    def rescale(stack):
        norms = jnp.linalg.norm(stack, axis=(1, 2), keepdims=True)
        return stack * stack.shape[1] ** 0.5 / (norms + 1e-7)

    return muon(learning_rate, total_steps=total_steps, orthogonalizer=rescale)


RULES = (muon, adamw, momentum)
NAMES = ("Muon", "AdamW", "momentum")


def spectrum(before, after, batch):
    """The singular values of a hidden matrix's step, over the largest."""
    step = after["up"]["kernel"] - before["up"]["kernel"]
    values = jnp.linalg.svd(step, compute_uv=False)
    return {f"value {place}": value / values[0] for place, value in enumerate(values)}


def effective_rank(values):
    """How many equal singular values would be as concentrated as these, over their number."""
    shares = values**2 / (values**2).sum(axis=-1, keepdims=True)
    return 1 / (shares**2).sum(axis=-1) / WIDTH


def language(case, steps):
    width, windows = case
    problem = manual_reader(width=width, batch_size=windows, held_out=64)
    return dataclasses.replace(
        problem,
        name=f"width {width}, {windows} windows, {steps} steps",
        steps=steps,
        # The width of the spectrum is fixed.
        observe=spectrum if case == (WIDTH, SMALL) else None,
    )


def matrices(width):
    """Numbers in each leaf that Muon orthogonalises, and in the head."""
    params = jax.eval_shape(manual_reader(width=width).init, jax.random.key(0))
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(optzoo.matrix_labels(params)), strict=True)
    sizes = [leaf.size for leaf, label in pairs if label == "matrix"]
    return sizes, params["head"]["kernel"].size


def overhead(case):
    """FLOPs of a step of Muon over those of the gradient alone; only products of matrices count."""
    width, windows = case
    sizes, head = matrices(width)
    gradient = windows * CONTEXT * (6 * (sum(sizes) + head) + 12 * CONTEXT * width)
    # Five times X Xᵀ, its square, and a product with X, which has `width` rows.
    newton_schulz = sum(5 * (4 * width * size + 2 * width**3) for size in sizes)
    return 1 + newton_schulz / gradient


def experiment(budget):
    steps = budget.steps(STEPS)
    lengths = [round(SHORTER * steps), steps]
    options = {"lrs": RATES, "seeds": budget.seeds(5)}
    short, full = ({case: language(case, length) for case in CASES} for length in lengths)
    shorter = protocol.compare(list(short.values()), [muon], **options)
    others = [problem for case, problem in full.items() if case != (WIDTH, SMALL)]
    longer = protocol.compare(others, [muon, adamw], **options)
    watched = protocol.compare(full[WIDTH, SMALL], RULES, **options)

    def losses(case, rule):
        results = watched if case == (WIDTH, SMALL) else longer
        return protocol.final(results, full[case].name, rule.__name__)

    def by_length(case):
        """Muon's final loss after the short and after the full run, shape (seeds, 2)."""
        after = protocol.final(shorter, short[case].name, "muon")
        return np.stack([after, losses(case, muon)], axis=1)

    def effect(case):
        """AdamW's compute over Muon's for the same loss, one a seed."""
        early, late = by_length(case).T
        part = (losses(case, adamw) - late) / (early - late)
        return (steps / lengths[0]) ** np.clip(part, 0, 1)

    effects = {case: effect(case) for case in CASES}
    weights = [sum(matrices(width)[0]) for width, _ in SIZES]
    trend = Trend(np.asarray(weights), np.stack([effects[case] for case in SIZES], axis=1))
    largest, large = SIZES[-1], (WIDTH, LARGE)
    perplexities = {rule: np.exp(losses(largest, rule)) for rule in (adamw, muon)}

    def spectra(rule):
        """Shape (seeds, checkpoints, WIDTH)."""
        names = [f"value {place}" for place in range(WIDTH)]
        name = full[WIDTH, SMALL].name
        curves = [protocol.curves(watched, name, rule.__name__, value) for value in names]
        # A schedule's first step and the one after its last are none.
        return np.stack(curves, axis=-1)[:, 1:-1]

    values = {rule: spectra(rule) for rule in RULES}
    rank = {rule: effective_rank(values[rule]).mean(axis=1) for rule in RULES}
    findings = [
        claimed(
            "compute to AdamW's final loss, AdamW over Muon",
            effects[largest],
            least=1 / HALF,
            means=f"width {largest[0]}, {SMALL * CONTEXT} letters a step",
            paper=PAPER,
        ),
        claimed(
            "perplexity after equally many steps, AdamW over Muon",
            perplexities[adamw] / perplexities[muon],
            least=NO_WORSE,
            means=" and ".join(f"{one.mean():.3g}" for one in perplexities.values()),
        ),
        claimed(
            "compute in large batches, AdamW over Muon",
            effects[large],
            means=f"width {WIDTH}, {LARGE * CONTEXT} letters a step; {SMALL * CONTEXT} letters: "
            f"{np.exp(np.log(effects[WIDTH, SMALL]).mean()):.3g}",
            paper=PAPER,
        ),
        trend.grows("ten times as many weights in hidden matrices"),
        measured(
            f"the effect in large batches if FLOPs count, of which Newton-Schulz adds "
            f"{overhead(large) - 1:.0%}, above 1 if it pays",
            effects[large] / overhead(large),
            above=1,
            ratio=True,
        ),
        measured(
            f"test loss without orthogonalisation minus with it at width {WIDTH}, above 0 if it "
            "helps",
            losses((WIDTH, SMALL), momentum) - losses((WIDTH, SMALL), muon),
            above=0,
            form="+.3f",
        ),
        measured(
            "effective rank of a hidden matrix's steps over full rank, Muon minus AdamW "
            f"({rank[muon].mean():.2f} and {rank[adamw].mean():.2f}; before orthogonalisation "
            f"{rank[momentum].mean():.2f}), above 0 if it does what it is for",
            rank[muon] - rank[adamw],
            above=0,
            form="+.2f",
        ),
    ]

    figure, (runs, sizes, batches, course, rates, spectrum_of_steps) = drawing.panels(
        f"Muon in a shorter run, width {largest[0]}",
        "Compute: AdamW over Muon by size",
        "Compute: AdamW over Muon",
        f"Loss by steps, width {WIDTH}",
        f"Learning rates, width {WIDTH}",
        f"Singular values of a step, width {WIDTH}",
    )
    name = full[WIDTH, SMALL].name
    for style, (rule, label) in enumerate(zip(RULES, NAMES, strict=True)):
        marks = protocol.checkpoints(watched, name)
        drawing.line(course, marks, protocol.curves(watched, name, rule.__name__), label, style)
        by_rate = [
            protocol.final(watched, name, rule.__name__, "validation_loss", rate=rate)
            for rate in RATES
        ]
        drawing.line(rates, RATES, np.stack(by_rate, axis=1), label, style, marker="o")
        places = np.arange(1, WIDTH + 1)
        drawing.line(spectrum_of_steps, places, values[rule].mean(axis=1), label, style)
    drawing.line(runs, lengths, by_length(largest), "Muon", 0, marker="o")
    target = np.repeat(losses(largest, adamw)[:, None], 2, axis=1)
    drawing.line(runs, lengths, target, "AdamW, full run", 1)
    drawing.trend(sizes, trend, PAPER, beyond=10)
    drawing.describe_axes(sizes, "weights in hidden matrices", "effect (95 % interval)", log_x=True)
    drawing.bars(
        batches,
        [f"width {width}, {windows * CONTEXT} letters" for width, windows in CASES],
        [effects[case] for case in CASES],
        [0 if windows == SMALL else 1 for _, windows in CASES],
    )
    batches.axvspan(*PAPER, color=drawing.GREY, alpha=0.4, linewidth=0)
    batches.axvline(1, color=drawing.GREY, linewidth=0.8, zorder=0)
    drawing.describe_axes(batches, "effect (dot: mean, bar: all seeds; grey: paper)", "")
    drawing.describe_axes(course, "steps", "validation loss (nats a letter)")
    drawing.describe_axes(runs, "steps of the run", "final test loss (nats a letter)", log_x=True)
    drawing.describe_axes(rates, "learning rate", "final validation loss", log_x=True)
    drawing.describe_axes(
        spectrum_of_steps, "place from the largest", "over the largest, mean over the run"
    )
    runs.set_xticks(lengths, [str(length) for length in lengths])
    rates.set_xticks(RATES, [f"{rate:g}" for rate in RATES])
    for one in (course, runs, rates, spectrum_of_steps):
        drawing.name_lines(one)
    return findings, figure


if __name__ == "__main__":
    protocol.main("muon", experiment, source=SOURCE)
