"""Muon reaches AdamW's final loss with about half of the training compute on language models.

The model and the text of the problem `language`: a transformer that reads 32 letters at a time.
Moonlight (arXiv:2502.16982) finds 52 % of AdamW's training FLOPs by a scaling law, Essential AI
(arXiv:2505.02222) that the advantage stays in large batches. "About half" is read as at most 0.65,
a quarter more than Moonlight's; the share counts steps of equal batches, as those papers do.

AdamW (b1 = 0.9, b2 = 0.95, decay 0.1) runs for 300 steps of 1024 letters, 20 letters for each
weight of its matrices. Muon as in Moonlight (steps of the size of AdamW's, decay 0.1, that same
AdamW for embeddings, head and vectors) runs for 120 and for 300 steps, both rules under warm-up
over a tenth of their own run and cosine decay to zero. Where its final test loss, taken as straight
over the logarithm of the steps (a power law lies below that, so the share errs upwards), meets
AdamW's is the share, for each of five seeds; it can come out as 0.4 to 1. The same four learning
rates for every rule and length, chosen by validation loss; held-out text: 64 windows for
validation, 128 for the test. The same again with 256 letters a step. A third rule is Muon without
its orthogonalisation, the momentum scaled to the same norm: its steps are what Newton-Schulz is
given, and their singular values the spectrum before it.

The papers train 10⁸ to 10¹⁰ weights on 10⁹ letters and more; matrices of 32 rows leave little to
orthogonalise, and Newton-Schulz, below 1 % of their FLOPs, costs more here, which a finding of its
own counts.
"""

import dataclasses
from pydoc_data.topics import topics

import jax
import jax.numpy as jnp
import numpy as np
import optax
from shared import drawing, protocol
from shared.protocol import measured

import optzoo
from optzoo.problems import PROBLEMS
from optzoo.problems.sequences import encode

RATES = (8e-3, 1.6e-2, 3.2e-2, 6.4e-2)
STEPS, SHORTER, CONTEXT, WIDTH = 300, 0.4, 32, 32
SMALL, LARGE = 8, 32


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


def language(windows, steps):
    """The library's problem with other batches and more held-out text."""
    problem = PROBLEMS["language"]()
    text = encode("\n".join(topics[key] for key in sorted(topics)))
    held_out = text[len(text) * 9 // 10 :]
    rows = jnp.asarray(held_out[: len(held_out) // 33 * 33].reshape(-1, 33))
    middle = len(rows) // 2
    splits = {"validation": rows[:middle][::11][:64], "test": rows[middle:][::5][:128]}

    def batch(key):
        # The problem draws eight windows at a time.
        draws = jax.vmap(problem.batch)(jax.random.split(key, windows // 8))
        return draws.reshape(windows, -1)

    return dataclasses.replace(
        problem,
        name=f"{windows} windows, {steps} steps",
        batch=batch,
        steps=steps,
        evaluate=lambda params, split: {"loss": problem.loss(params, splits[split])},
    )


def overhead(windows):
    """FLOPs of a step of Muon over those of the gradient alone; only products of matrices count."""
    params = jax.eval_shape(PROBLEMS["language"]().init, jax.random.key(0))
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(optzoo.matrix_labels(params)), strict=True)
    sizes = [leaf.size for leaf, label in pairs if label == "matrix"]
    weights = sum(sizes) + params["head"]["kernel"].size
    gradient = windows * CONTEXT * (6 * weights + 12 * CONTEXT * WIDTH)
    # Five times X Xᵀ, its square, and a product with X, which has WIDTH rows.
    newton_schulz = sum(5 * (4 * WIDTH * size + 2 * WIDTH**3) for size in sizes)
    return 1 + newton_schulz / gradient


def experiment(budget):
    steps = budget.steps(STEPS)
    lengths = [round(SHORTER * steps), steps]
    options = {"lrs": RATES, "seeds": budget.seeds(5)}
    short = {windows: language(windows, lengths[0]) for windows in (SMALL, LARGE)}
    full = {windows: language(windows, steps) for windows in (SMALL, LARGE)}
    watched = dataclasses.replace(full[LARGE], observe=spectrum)
    shorter = protocol.compare(list(short.values()), [muon], **options)
    small = protocol.compare(full[SMALL], [muon, adamw], **options)
    large = protocol.compare(watched, RULES, **options)

    def losses(windows, rule):
        results = small if windows == SMALL else large
        return protocol.final(results, full[windows].name, rule.__name__)

    def by_length(windows):
        """Muon's final loss after the short and after the full run, shape (seeds, 2)."""
        after = protocol.final(shorter, short[windows].name, "muon")
        return np.stack([after, losses(windows, muon)], axis=1)

    def shares(windows):
        """The share of AdamW's steps that brings Muon to AdamW's loss, one a seed."""
        early, late = by_length(windows).T
        part = (losses(windows, adamw) - late) / (early - late)
        return (lengths[0] / steps) ** np.clip(part, 0, 1)

    share = {windows: shares(windows) for windows in full}
    cost = {windows: overhead(windows) for windows in full}

    def spectra(rule):
        """Shape (seeds, checkpoints, WIDTH)."""
        names = [f"value {place}" for place in range(WIDTH)]
        curves = [protocol.curves(large, watched.name, rule.__name__, name) for name in names]
        # A schedule's first step and the one after its last are none.
        return np.stack(curves, axis=-1)[:, 1:-1]

    values = {rule: spectra(rule) for rule in RULES}
    rank = {rule: effective_rank(values[rule]).mean(axis=1) for rule in RULES}
    findings = [
        measured(
            f"share of AdamW's steps to AdamW's final loss, {LARGE * CONTEXT} letters a step, "
            "expected about half, at most 0.65",
            share[LARGE],
            below=0.65,
            ratio=True,
        ),
        measured(
            f"the same share of FLOPs, of which Newton-Schulz adds {cost[LARGE] - 1:.0%}",
            share[LARGE] * cost[LARGE],
            below=0.65,
            ratio=True,
            central=False,
        ),
        measured(
            f"share of steps at {LARGE * CONTEXT} letters a step over that at {SMALL * CONTEXT} "
            f"({share[SMALL].mean():.2f}), expected not above 1",
            share[LARGE] / share[SMALL],
            below=1,
            ratio=True,
            central=False,
        ),
        measured(
            "test loss without orthogonalisation minus with it, expected above 0",
            losses(LARGE, momentum) - losses(LARGE, muon),
            above=0,
            central=False,
            form="+.3f",
        ),
        measured(
            "effective rank of a hidden matrix's steps over full rank, Muon minus AdamW "
            f"({rank[muon].mean():.2f} and {rank[adamw].mean():.2f}; before orthogonalisation "
            f"{rank[momentum].mean():.2f}), expected above 0",
            rank[muon] - rank[adamw],
            above=0,
            central=False,
            form="+.2f",
        ),
    ]

    titles = (
        "Loss by steps",
        "Muon in a shorter run",
        "Learning rates",
        "Singular values of a step",
    )
    figure, (course, runs, rates, spectrum_of_steps) = drawing.panels(*titles)
    for style, (rule, name) in enumerate(zip(RULES, NAMES, strict=True)):
        marks = protocol.checkpoints(large, watched.name)
        course_of = protocol.curves(large, watched.name, rule.__name__)
        drawing.line(course, marks, course_of, name, style)
        by_rate = [
            protocol.final(large, watched.name, rule.__name__, "validation_loss", rate=rate)
            for rate in RATES
        ]
        drawing.line(rates, RATES, np.stack(by_rate, axis=1), name, style, marker="o")
        places = np.arange(1, WIDTH + 1)
        drawing.line(spectrum_of_steps, places, values[rule].mean(axis=1), name, style)
    drawing.line(runs, lengths, by_length(LARGE), "Muon", 0, marker="o")
    target = np.repeat(losses(LARGE, adamw)[:, None], 2, axis=1)
    drawing.line(runs, lengths, target, "AdamW, full run", 1)
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
    protocol.main("muon", experiment)
