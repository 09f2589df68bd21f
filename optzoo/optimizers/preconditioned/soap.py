"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner."""

import optax

from optzoo.primitives.axes import AxesLike
from optzoo.primitives.base import (
    Decay,
    DType,
    LearningRate,
    Mask,
    NonNegative,
    Size,
    transformation,
)
from optzoo.primitives.decay import rated_decay
from optzoo.primitives.grafting import match_rms
from optzoo.primitives.kronecker import Merge
from optzoo.primitives.moments import adam, adam_correction
from optzoo.primitives.preconditioned import in_basis
from optzoo.registry import Trait, get, optimizer

PAPER = get("in_basis")


@transformation
def scale_by_soap(
    *,
    b1: Decay = 0.95,
    b2: Decay = 0.95,
    eps: NonNegative = 1e-8,
    shampoo_beta: Decay | None = None,
    every: Size = 10,
    max_size: Size = 10_000,
    vectors: bool = False,
    merge: Merge | None = None,
    block: Size | None = None,
    stagger: bool = False,
    debias: bool = True,
    normalize: bool = False,
    axes: AxesLike = None,
    mu_dtype: DType = None,
    nu_dtype: DType = None,
) -> optax.GradientTransformation:
    """The direction of `soap`; see there for the arguments."""
    inside = adam(
        b1,
        b2,
        eps,
        debias=debias and not normalize,
        eps_on_debiased=False,
        mu_dtype=mu_dtype,
        nu_dtype=nu_dtype,
    )
    if normalize:
        # A rotation keeps the root mean square; the correction is a factor of the step.
        inside = optax.chain(
            inside,
            match_rms(1.0, eps=0.0),
            optax.scale_by_schedule(adam_correction(b1, b2)) if debias else optax.identity(),
        )
    return in_basis(
        inside,
        decay=b2 if shampoo_beta is None else shampoo_beta,
        every=every,
        max_size=max_size,
        vectors=vectors,
        merge=merge,
        block=block,
        stagger=stagger,
        axes=axes,
    )


@optimizer(
    title=PAPER.title,
    authors=PAPER.authors,
    year=PAPER.year,
    arxiv=PAPER.arxiv,
    code=PAPER.code,
    traits=(Trait.SHAPED,),
)
@transformation
def soap(
    learning_rate: LearningRate = 3e-3,
    *,
    b1: Decay = 0.95,
    b2: Decay = 0.95,
    eps: NonNegative = 1e-8,
    shampoo_beta: Decay | None = None,
    weight_decay: NonNegative = 0.01,
    mask: Mask = None,
    every: Size = 10,
    max_size: Size = 10_000,
    vectors: bool = False,
    merge: Merge | None = None,
    block: Size | None = None,
    stagger: bool = False,
    debias: bool = True,
    normalize: bool = False,
    axes: AxesLike = None,
    mu_dtype: DType = None,
    nu_dtype: DType = None,
) -> optax.GradientTransformation:
    """Adam in the eigenbasis of the gradients' second moment, axis by axis.

    Rule:
      h = g turned by Qᵀ on every axis;   m ← b1·m + (1 − b1)·h;   v ← b2·v + (1 − b2)·h²
      u = m/(√v + eps) turned back by Q;   a = learning_rate·√(1 − b2^n)/(1 − b1^n)
      p ← p − a·u;   p ← (1 − learning_rate·weight_decay)·p
      G ← shampoo_beta·G + (1 − shampoo_beta)·F for each axis, F being g·gᵀ over all other axes
      Q ← the orthogonal factor of G·Q after each period, columns and v in the order of QᵀGQ

    The first step moves nothing: it finds Q, the eigenvectors of G, the largest first.

    Against Adam:
      The second moment belongs to directions in which gradients are uncorrelated, not to single
      numbers. For square matrices it keeps three times as much and adds six products of matrices.

    When to use:
      Transformers and convolutional networks at large batches, where a good step is worth its
      time. Not for models that are mostly vectors, which get plain Adam.

    Tuning:
      Learning rates near Adam's, 1e-3 to 1e-2; the default is the paper's. It bears bases that are
      renewed every 100 steps. Without warm-up the first steps are Adam's. Rotations round: units
      that never get a gradient stay where they are if eps is above 1e-7 of the others' gradients.

    Args:
      learning_rate: a number, or a schedule of the number of finished steps.
      b1: decay of the first moment, in [0, 1); the plain number 0 keeps no buffer for it.
      b2: decay of the second moment, in [0, 1).
      eps: added to the root of the second moment before its correction.
      shampoo_beta: decay of G, in [0, 1); None for b2.
      weight_decay: decay of the moved parameters, times the learning rate.
      mask: which leaves to decay: a tree of booleans, or a function that makes one.
      every: steps in a period, from one basis to the next.
      max_size: an axis longer than this keeps its identity: one side of an embedding, say.
      vectors: give leaves of one axis a basis, too.
      merge: maps the shape of a leaf to one with fewer axes; `merge_axes(limit)`, or any callable.
      block: cut longer axes into pieces with a basis each.
      stagger: spread the renewals of a period over its steps, by their cost, so that no step does
        twice the average if no leaf does more than that; False: all at once.
      debias: correct both moments for their start at zero.
      normalize: give each leaf's u a root mean square of 1 before the correction.
      axes: which axes of a leaf stack separate layers; see `optzoo.primitives.axes`. All others
        get a basis, the two of a kernel and the four of a convolution.
      mu_dtype: dtype of the first moment; float32 or wider by default.
      nu_dtype: dtype of the second moment; float32 or wider by default.

    Returns:
      The optimizer. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range; from `init`, for complex parameters.

    References:
      Vyas et al. 2024, arXiv 2409.11321; official code nikhilvyas/SOAP, whose skipped first step,
      permuted second moment and single power step are kept. It finds bases in float32 whatever
      the dtype; see `optzoo.in_basis`. merge_dims=True: merge=merge_axes(10_000).
    """
    direction = scale_by_soap(
        b1=b1,
        b2=b2,
        eps=eps,
        shampoo_beta=shampoo_beta,
        every=every,
        max_size=max_size,
        vectors=vectors,
        merge=merge,
        block=block,
        stagger=stagger,
        debias=debias,
        normalize=normalize,
        axes=axes,
        mu_dtype=mu_dtype,
        nu_dtype=nu_dtype,
    )
    return optax.chain(
        direction,
        optax.scale_by_learning_rate(learning_rate),
        rated_decay(learning_rate, weight_decay, mask, moved=True, start=1),
    )
