"""LARS: momentum on gradients as long as the weights that they move."""

import optax

from optzoo.primitives import moments
from optzoo.primitives.axes import AxesLike
from optzoo.primitives.base import Decay, DType, LearningRate, Mask, NonNegative, transformation
from optzoo.primitives.trust import Denominator, scale_by_trust_ratio
from optzoo.registry import Trait, optimizer


@transformation
def scale_by_lars(
    *,
    momentum: Decay = 0.9,
    weight_decay: NonNegative = 5e-4,
    trust_coefficient: NonNegative = 1e-3,
    eps: NonNegative = 0.0,
    nesterov: bool = False,
    denominator: Denominator = "sum",
    mask: Mask = None,
    axes: AxesLike = None,
    mu_dtype: DType = None,
) -> optax.GradientTransformation:
    """The direction of `lars`; see there for the arguments.

    The decay is part of it because LARS measures it together with the gradient.
    """
    return optax.chain(
        scale_by_trust_ratio(
            trust_coefficient,
            eps=eps,
            weight_decay=weight_decay,
            denominator=denominator,
            mask=mask,
            axes=axes,
        ),
        moments.momentum(momentum, nesterov=nesterov, dtype=mu_dtype),
    )


@optimizer(
    title="Large Batch Training of Convolutional Networks",
    authors=("Yang You", "Igor Gitman", "Boris Ginsburg"),
    year=2017,
    arxiv="1708.03888",
    code="https://github.com/borisgin/nvcaffe-0.16",
    traits=(Trait.SHAPED,),
)
@transformation
def lars(
    learning_rate: LearningRate = 1.0,
    *,
    momentum: Decay = 0.9,
    weight_decay: NonNegative = 5e-4,
    trust_coefficient: NonNegative = 1e-3,
    eps: NonNegative = 0.0,
    nesterov: bool = False,
    denominator: Denominator = "sum",
    momentum_first: bool = True,
    mask: Mask = None,
    axes: AxesLike = None,
    mu_dtype: DType = None,
) -> optax.GradientTransformation:
    """Momentum on gradients that are made as long as a part of the weights they move.

    Rule:
      d = g + weight_decay·p
      d ← d·trust_coefficient·|p|/(|d| + eps), norms of one layer; d stays where one of them is 0
      m ← momentum·m + d;   p ← p − learning_rate·m, with nesterov momentum·m + d for m
      momentum_first=False: m ← momentum·m + learning_rate·d;   p ← p − m
      leaves that the mask leaves out: d = g

    Against Adam:
      One number a layer sets the step's length, from the layer's own: no second moment, half the
      memory, and the entries of a layer keep their proportions.

    When to use:
      Convolutional networks with batches of tens of thousands of images, and self-supervised ones.
      Tuned Nesterov momentum has reached the same accuracy in as many steps (Nado et al. 2021,
      arXiv 2102.06356). Not for embeddings of rare words.

    Tuning:
      A step is trust_coefficient·learning_rate/(1 − momentum) of its layer's length. What the mask
      leaves out takes the raw gradient at the same rate, about a thousand times more, as in the
      codes: give those leaves a rate of their own with `optax.partition` where that is too much.

    Args:
      learning_rate: a number, or a schedule of the number of finished steps.
      momentum: decay of the momentum, in [0, 1).
      weight_decay: added to the gradient of the leaves in the mask.
      trust_coefficient: length of a step relative to the weights, before rate and momentum.
      eps: added to the denominator.
      nesterov: look one step ahead.
      denominator: "sum" for |g + weight_decay·p| (Barlow Twins, Optax); "parts" for
        |g| + weight_decay·|p| (the paper, timm); "gradient" for |g| (the authors' last code).
      momentum_first: put the rate behind the momentum, so that a schedule acts at once. False is
        the paper's and Optax's place: m holds the rates of the steps before.
      mask: which leaves to adapt and to decay: a tree of booleans, or a function that makes one;
        None for all but vectors and scalars, True for all.
      axes: a spec with batch axes gives each layer of a stacked leaf its own norms.
      mu_dtype: dtype of the momentum; float32 or wider by default.

    Returns:
      The optimizer. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range.

    References:
      You et al. 2017, arXiv 1708.03888; official code borisgin/nvcaffe-0.16; defaults of
      facebookresearch/barlowtwins, which adapts scalars too. LARC's clipping is
      `scale_by_trust_ratio(lambda k: trust_coefficient/learning_rate(k), clip=1)`.
    """
    rate = optax.scale_by_learning_rate(learning_rate)
    inertia = moments.momentum(momentum, nesterov=nesterov, dtype=mu_dtype)
    scaled = scale_by_trust_ratio(
        trust_coefficient,
        eps=eps,
        weight_decay=weight_decay,
        denominator=denominator,
        mask=mask,
        axes=axes,
    )
    return optax.chain(scaled, *((inertia, rate) if momentum_first else (rate, inertia)))
