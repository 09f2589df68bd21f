"""MARS: momentum of gradients from which the previous one's noise is taken out."""

from typing import Literal

import jax
import optax

from optzoo.primitives.axes import AxesLike
from optzoo.primitives.base import (
    Decay,
    DType,
    LearningRate,
    Mask,
    NonNegative,
    Positive,
    transformation,
)
from optzoo.primitives.decay import add_decayed_weights
from optzoo.primitives.directions import variance_reduced
from optzoo.primitives.labels import Selection, linear_mask
from optzoo.primitives.moments import adam, ema, momentum
from optzoo.primitives.orthogonal import newton_schulz, orthogonalize, scale_by_fan
from optzoo.registry import Range, Trait, optimizer

Form = Literal["adamw", "lion", "orthogonal"]


@transformation
def scale_by_mars(
    *,
    form: Form = "adamw",
    b1: Decay = 0.95,
    b2: Decay = 0.99,
    eps: NonNegative = 1e-8,
    gamma: NonNegative = 0.025,
    clip: Positive | None = 1.0,
    approximate: bool = True,
    amsgrad: bool = False,
    axes: AxesLike = None,
    mu_dtype: DType = None,
    nu_dtype: DType = None,
) -> optax.GradientTransformation:
    """The direction of `mars` for every leaf; see there for the arguments."""
    corrected = variance_reduced(
        gamma, b1, clip=clip, approximate=approximate, axes=axes, dtype=mu_dtype
    )
    if form == "lion":
        direction = optax.chain(ema(b1, debias=False, dtype=mu_dtype), optax.scale_by_sign())
    elif form == "orthogonal":
        direction = optax.chain(
            momentum(b1, dtype=mu_dtype),
            orthogonalize(newton_schulz(eps=eps), axes=axes),
            scale_by_fan("fan", axes=axes),
        )
    else:
        direction = adam(b1, b2, eps, amsgrad=amsgrad, mu_dtype=mu_dtype, nu_dtype=nu_dtype)
    return optax.chain(corrected, direction)


@optimizer(
    title="MARS: Unleashing the Power of Variance Reduction for Training Large Models",
    authors=("Huizhuo Yuan", "Yifeng Liu", "Shuang Wu", "Xun Zhou", "Quanquan Gu"),
    year=2024,
    arxiv="2411.10438",
    code="https://github.com/AGI-Arena/MARS",
    traits=(Trait.SHAPED,),
    ranges={"gamma": Range(0.005, 0.1)},
)
@transformation
def mars(
    learning_rate: LearningRate = 3e-3,
    *,
    form: Form = "adamw",
    b1: Decay = 0.95,
    b2: Decay = 0.99,
    eps: NonNegative = 1e-8,
    gamma: NonNegative = 0.025,
    clip: Positive | None = 1.0,
    approximate: bool = True,
    amsgrad: bool = False,
    weight_decay: NonNegative = 0.0,
    mask: Mask = None,
    rest: optax.GradientTransformation | None = None,
    axes: AxesLike = None,
    include: Selection = None,
    exclude: Selection = None,
    mu_dtype: DType = None,
    nu_dtype: DType = None,
) -> optax.GradientTransformation:
    """Adam, Lion or an orthogonal step on gradients corrected by how they have changed.

    Matrices of linear maps follow this rule, embeddings and heads among them; vectors, scalars and
    convolution kernels go to AdamW. `optzoo.describe(mars(), params)` prints which leaf went where.

    Rule:
      c = g + gamma·b1/(1 − b1)·(g − g_prev), with g_prev = 0 at first;   c ← c / max(1, |c|/clip)
      m ← b1·m + (1 − b1)·c;   v ← b2·v + (1 − b2)·c²
      u = m/(1 − b1^t) / (√(v/(1 − b2^t)) + eps)
      p ← p − learning_rate·(u + weight_decay·p)
      lion: u = sign(m);   orthogonal: u = √max(1, out/in)·o, with o = orthogonalised m/(1 − b1)

    Against Adam:
      Gradients get a part of their last change before they are averaged. Without the clip that
      makes the momentum quasi-hyperbolic, gamma·g + (1 − gamma)·m̄ with m̄ the plain average; what is
      more than that is the clip of each leaf, and that v sees c.

    When to use:
      Pre-training of language models, the authors' evidence. Not for convolutional networks: in the
      authors' own script AdamW trains all convolutions, so that it says little about them.

    Tuning:
      Two to ten times AdamW's learning rate, 3e-3 to 6e-3, with half of it for `rest`; Lion's and
      the orthogonal form's must be found anew. approximate=False costs a second gradient a step.

    Args:
      learning_rate: a number, or a schedule of the number of finished steps.
      form: "adamw", "lion" or "orthogonal" (the paper's Shampoo form).
      b1: decay of the first moment, in [0, 1); at the plain number 0 neither the average nor the
        previous gradient is kept;
        the plain number 0 keeps no buffer for it.
      b2: decay of the second moment, in [0, 1); "adamw" alone has one.
      eps: added to the corrected root, or to the norm before Newton–Schulz.
      gamma: strength of the correction; the plain number 0 keeps no previous gradient.
      clip: largest norm of a corrected leaf, or of each of its stacked layers; None for no clip.
      approximate: take the gradient of the step before as g_prev. False: `update` gets it as
        `previous_grad`, this batch's gradient at the parameters of the step before; zeros at first.
      amsgrad: divide by the largest v so far, as in `optzoo.primitives.rms`.
      weight_decay: decoupled decay of the leaves that follow the rule.
      mask: which of them to decay: a tree of booleans, or a function that makes one.
      rest: the optimizer of all other leaves; by default AdamW with b1 = 0.9, b2 = 0.95, this eps,
        weight_decay = 0.1 and the same learning rate.
      axes: which axes of a leaf are inputs, outputs and stacked layers; see
        `optzoo.primitives.axes`.
      include: leaves that follow the rule whatever they look like, in the forms that
        `optzoo.matrix_labels` takes; ".*" is the authors' optimize_1d. For the orthogonal form they
        must be matrices by their axes.
      exclude: leaves never to follow it, in the same forms.
      mu_dtype: dtype of the first moment and the previous gradient; float32 or wider by default.
      nu_dtype: dtype of the second moment; float32 or wider by default.

    Returns:
      The optimizer. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range, or from `update` without the previous_grad it needs.

    References:
      Yuan et al. 2024, arXiv 2411.10438; official code AGI-Arena/MARS. Its README has g² in v, its
      code c²; ports differ: timm corrects nothing on the first step, pytorch_optimizer has an eps
      under the root, and both count convolutions as matrices (`include="conv"`).
    """
    linear = optax.chain(
        scale_by_mars(
            form=form,
            b1=b1,
            b2=b2,
            eps=eps,
            gamma=gamma,
            clip=clip,
            approximate=approximate,
            amsgrad=amsgrad,
            axes=axes,
            mu_dtype=mu_dtype,
            nu_dtype=nu_dtype,
        ),
        add_decayed_weights(weight_decay, mask),
        optax.scale_by_learning_rate(learning_rate),
    )
    adamw = optax.chain(
        adam(0.9, 0.95, eps),
        add_decayed_weights(0.1),
        optax.scale_by_learning_rate(learning_rate),
    )

    def labels(params):
        chosen = linear_mask(
            params, axes=axes, include=include, exclude=exclude, shaped=form == "orthogonal"
        )
        return jax.tree.map(lambda follows: "mars" if follows else "rest", chosen)

    return optax.partition({"mars": linear, "rest": adamw if rest is None else rest}, labels)
