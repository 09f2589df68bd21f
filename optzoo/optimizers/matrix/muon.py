"""Muon: momentum, orthogonalised, for matrices; Adam for everything else."""

from functools import partial
from typing import Literal

import optax

from optzoo.primitives.axes import AxesLike
from optzoo.primitives.base import Decay, DType, LearningRate, Mask, NonNegative, transformation
from optzoo.primitives.combine import gradient
from optzoo.primitives.duality import dualize
from optzoo.primitives.labels import Selection
from optzoo.primitives.moments import ema, momentum as heavy_ball
from optzoo.primitives.orthogonal import Orthogonalizer, Scale
from optzoo.primitives.routing import descend_matrices
from optzoo.registry import Trait, optimizer

MomentumForm = Literal["ema", "sum", "debiased"]


@transformation
def scale_by_muon(
    *,
    momentum: Decay = 0.95,
    nesterov: bool = True,
    momentum_form: MomentumForm = "ema",
    correction: optax.GradientTransformation | None = None,
    orthogonalizer: Orthogonalizer | None = None,
    scale: Scale = "fan",
    axes: AxesLike = None,
    mu_dtype: DType = None,
) -> optax.GradientTransformation:
    """The direction of `muon` for matrices; see there for the arguments.

    Leaves that are no matrices get their momentum alone; `muon` gives them to Adam instead.
    """
    averaged = (
        heavy_ball(momentum, nesterov=nesterov, dtype=mu_dtype)
        if momentum_form == "sum"
        else ema(momentum, debias=momentum_form == "debiased", nesterov=nesterov, dtype=mu_dtype)
    )
    return optax.chain(
        gradient if correction is None else correction,
        averaged,
        dualize("spectral", orthogonalizer=orthogonalizer, scale=scale, axes=axes),
    )


@optimizer(
    title="Muon: An optimizer for hidden layers in neural networks",
    authors=(
        "Keller Jordan",
        "Yuchen Jin",
        "Vlado Boza",
        "Jiacheng You",
        "Franz Cesista",
        "Laker Newhouse",
        "Jeremy Bernstein",
    ),
    year=2024,
    url="https://kellerjordan.github.io/posts/muon/",
    code="https://github.com/KellerJordan/Muon",
    traits=(Trait.SHAPED,),
    default=True,
)
@transformation
def muon(
    learning_rate: LearningRate = 2e-2,
    *,
    momentum: Decay = 0.95,
    nesterov: bool = True,
    momentum_form: MomentumForm = "ema",
    correction: optax.GradientTransformation | None = None,
    orthogonalizer: Orthogonalizer | None = None,
    scale: Scale = "fan",
    weight_decay: NonNegative = 0.0,
    mask: Mask = None,
    rest: optax.GradientTransformation | None = None,
    axes: AxesLike = None,
    include: Selection = None,
    exclude: Selection = None,
    mu_dtype: DType = None,
) -> optax.GradientTransformation:
    """Momentum whose every direction counts alike: the step of a matrix is made orthogonal.

    Hidden matrices and convolution kernels follow this rule; embeddings, output heads, vectors and
    scalars go to Adam. `optzoo.describe(muon(), params)` prints which leaf went where.

    Rule:
      m ← momentum·m + (1 − momentum)·g;   u = momentum·m + (1 − momentum)·g, or m without nesterov
      o = orthogonalised u, by Newton–Schulz: its singular values become about 1
      p ← p − learning_rate·(√max(1, out/in)·o + weight_decay·p)

    Against Adam:
      Every singular direction of a matrix takes the same step, where Adam scales each entry by
      itself; and it keeps one number a weight instead of two.

    When to use:
      Hidden layers of transformers and convolutional networks. Not for models that are mostly
      embeddings, heads and vectors, which get plain Adam.

    Tuning:
      The default 0.02 is the original's, without decay; with scale="match_rms_adamw" take AdamW's
      learning rate and weight_decay = 0.1, as Moonlight does.

    Args:
      learning_rate: a number, or a schedule of the number of finished steps.
      momentum: decay of the momentum, in [0, 1); the plain number 0 keeps no buffer for it.
      nesterov: look one step ahead.
      momentum_form: "ema" as above (Keller Jordan, torch.optim.Muon); "sum", m ← momentum·m + g
        (Moonlight); "debiased", both terms corrected for the start at zero (Optax).
      correction: what is made of a matrix's gradient before the momentum. MARS-M is
        `variance_reduced(0.025, momentum)` of `optzoo.primitives` without nesterov.
      orthogonalizer: maps a stack of matrices (k, m, n), m ≤ n, to one of the same shape;
        `newton_schulz()` by default, `polar()` for the exact one, or any callable.
      scale: "fan" as above, with the flattened fan of convolutions; "keller_jordan", the original
        code, which takes kernel height/width for convolutions; "match_rms_adamw", 0.2·√max(in,
        out) (Moonlight); "rms_to_rms", √(out/in); None for 1.
      weight_decay: decoupled decay of the matrices.
      mask: which matrices to decay: a tree of booleans, or a function that makes one.
      rest: the optimizer of all other leaves; by default Adam with b1 = 0.9, b2 = 0.95,
        eps = 1e-10 at 0.015·learning_rate, the original's 3e-4 to its 0.02.
      axes: which axes of a leaf are inputs, outputs and stacked layers; see
        `optzoo.primitives.axes`.
      include: leaves to orthogonalise whatever they look like; see `optzoo.matrix_labels`.
      exclude: leaves never to orthogonalise; see `optzoo.matrix_labels`.
      mu_dtype: dtype of the momentum; float32 or wider by default.

    Returns:
      The optimizer. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range, or an `orthogonalizer` that changes shapes.

    References:
      Jordan et al. 2024, kellerjordan.github.io/posts/muon; official code KellerJordan/Muon, which
      iterates in bfloat16: `orthogonalizer=newton_schulz(dtype=jnp.bfloat16)`. Moonlight: Liu et
      al. 2025, arXiv 2502.16982. MARS-M: Liu et al. 2025, arXiv 2510.21800, whose code decays by
      0.1 with scale="match_rms_adamw", momentum = 0.95 and the same rate and decay for `rest`.
    """
    direction = partial(
        scale_by_muon,
        momentum=momentum,
        nesterov=nesterov,
        momentum_form=momentum_form,
        correction=correction,
        orthogonalizer=orthogonalizer,
        scale=scale,
        mu_dtype=mu_dtype,
    )
    return descend_matrices(
        direction,
        learning_rate,
        weight_decay=weight_decay,
        mask=mask,
        rest=rest,
        rest_factor=0.015,
        axes=axes,
        include=include,
        exclude=exclude,
    )
