"""LAMB: Adam's directions, as long as the weights that they move."""

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
from optzoo.primitives.combine import gradient
from optzoo.primitives.moments import adam
from optzoo.primitives.trust import scale_by_trust_ratio
from optzoo.registry import Trait, optimizer


@transformation
def scale_by_lamb(
    *,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-6,
    weight_decay: NonNegative = 0.01,
    debias: bool = True,
    trust_clip: Positive | None = None,
    norm_cap: Positive | None = None,
    max_grad_norm: Positive | None = None,
    mask: Mask = None,
    axes: AxesLike = None,
    mu_dtype: DType = None,
    nu_dtype: DType = None,
) -> optax.GradientTransformation:
    """The direction of `lamb`; see there for the arguments.

    The decay is part of it because LAMB measures it together with Adam's direction.
    """
    return optax.chain(
        gradient if max_grad_norm is None else optax.clip_by_global_norm(max_grad_norm),
        adam(b1, b2, eps, debias=debias, mu_dtype=mu_dtype, nu_dtype=nu_dtype),
        scale_by_trust_ratio(
            weight_decay=weight_decay, norm_cap=norm_cap, clip=trust_clip, mask=mask, axes=axes
        ),
    )


@optimizer(
    title="Large Batch Optimization for Deep Learning: Training BERT in 76 minutes",
    authors=(
        "Yang You",
        "Jing Li",
        "Sashank Reddi",
        "Jonathan Hseu",
        "Sanjiv Kumar",
        "Srinadh Bhojanapalli",
        "Xiaodan Song",
        "James Demmel",
        "Kurt Keutzer",
        "Cho-Jui Hsieh",
    ),
    year=2019,
    arxiv="1904.00962",
    code="https://github.com/google-research/albert",
    traits=(Trait.SHAPED,),
)
@transformation
def lamb(
    learning_rate: LearningRate = 1e-3,
    *,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-6,
    weight_decay: NonNegative = 0.01,
    debias: bool = True,
    trust_clip: Positive | None = None,
    norm_cap: Positive | None = None,
    max_grad_norm: Positive | None = None,
    mask: Mask = None,
    axes: AxesLike = None,
    mu_dtype: DType = None,
    nu_dtype: DType = None,
) -> optax.GradientTransformation:
    """Adam whose steps are made as long as the weights they move, layer by layer.

    Rule:
      m ← b1·m + (1 − b1)·g;   v ← b2·v + (1 − b2)·|g|²
      d = m̂/(√v̂ + eps) + weight_decay·p, with m̂ = m/(1 − b1^t) and v̂ = v/(1 − b2^t)
      r = min(trust_clip, min(|p|, norm_cap)/|d|) for each layer, 1 where |p| or |d| is 0
      p ← p − learning_rate·r·d
      leaves that the mask leaves out: d = m̂/(√v̂ + eps), r = 1

    Against Adam:
      A step is learning_rate of its layer's length, whatever the number of weights in it.

    When to use:
      Transformers with batches of many thousands of sequences, where Adam's rate cannot grow with
      the batch. Tuned Adam has reached the same loss in as many steps (Nado et al. 2021, arXiv
      2102.06356). Not where layers start at zero and shall grow: their steps stay small.

    Tuning:
      learning_rate is the part of its length by which a layer moves a step: 3e-4 to 3e-2, growing
      with the root of the batch, behind a warm-up.

    Args:
      learning_rate: a number, or a schedule of the number of finished steps.
      b1: decay of the first moment, in [0, 1); the plain number 0 keeps no buffer for it.
      b2: decay of the second moment, in [0, 1).
      eps: added to the root.
      weight_decay: added to Adam's direction before it is measured, in the leaves of the mask.
      debias: correct both moments for their start at zero; the authors' ALBERT does not.
      trust_clip: the largest r; 1 is LAMBC.
      norm_cap: the largest |p| that counts, the paper's φ; cybertronai's code has 10.
      max_grad_norm: scale all gradients down to this norm of the whole tree; with 1 and the default
        mask it is NVIDIA's NVLAMB.
      mask: which leaves to adapt and to decay: a tree of booleans, or a function that makes one;
        None for all but vectors and scalars, True for all.
      axes: a spec with batch axes gives each layer of a stacked leaf its own norms.
      mu_dtype: dtype of the first moment; float32 or wider by default.
      nu_dtype: dtype of the second moment; float32 or wider by default.

    Returns:
      The optimizer. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range.

    References:
      You et al. 2019, arXiv 1904.00962; code google-research/albert, by a team with one of the
      authors, and tensorflow/addons, whose rule is the default here. `optax.lamb` leaves nothing
      out of the ratio, its mask only out of the decay.
    """
    return optax.chain(
        scale_by_lamb(
            b1=b1,
            b2=b2,
            eps=eps,
            weight_decay=weight_decay,
            debias=debias,
            trust_clip=trust_clip,
            norm_cap=norm_cap,
            max_grad_norm=max_grad_norm,
            mask=mask,
            axes=axes,
            mu_dtype=mu_dtype,
            nu_dtype=nu_dtype,
        ),
        optax.scale_by_learning_rate(learning_rate),
    )
