"""PSGD: a preconditioner fitted on a Lie group, so that what it makes is white."""

from typing import Any

import optax

from optzoo.primitives.axes import AxesLike
from optzoo.primitives.base import (
    Decay,
    Fraction,
    Key,
    LearningRate,
    Mask,
    NonNegative,
    Positive,
    Size,
    is_zero,
    transformation,
)
from optzoo.primitives.combine import gradient
from optzoo.primitives.decay import add_decayed_weights
from optzoo.primitives.fitting import Bound, Fit
from optzoo.primitives.whitening import (
    Skew,
    When,
    clip_amplitude,
    running_mean,
    whiten,
    whiten_low_rank,
)
from optzoo.registry import Trait, optimizer


@transformation
def scale_by_psgd(
    *,
    momentum: Decay = 0.9,
    fit: Fit = "q0p5eq1p5",
    rank: Size | None = None,
    fit_rate: Fraction = 0.1,
    fit_decay: Decay = 0.9,
    fit_first: bool = True,
    fit_momentum: bool = False,
    newton: bool = False,
    damping: NonNegative = 1e-9,
    init_scale: Positive | None = None,
    every: When = 1,
    balance_every: When = 100,
    clip: tuple[float, float] | None = (2.0, 10.0),
    max_size: Size | None = None,
    max_skew: Skew = 1.0,
    bound: Bound | None = None,
    key: Key | None = None,
    axes: AxesLike = None,
) -> optax.GradientTransformation:
    """The direction of `psgd`; see there for the arguments."""
    averaged = gradient if is_zero(momentum) else running_mean(momentum)
    shared: dict[str, Any] = dict(
        fit_rate=fit_rate,
        fit_decay=fit_decay,
        fit_first=fit_first,
        fit_output=fit_momentum,
        newton=newton,
        damping=damping,
        init_scale=init_scale,
        every=every,
        key=key,
    )
    if rank is None:
        white = whiten(
            averaged,
            fit=fit,
            balance_every=balance_every,
            max_size=max_size,
            max_skew=max_skew,
            bound=bound,
            axes=axes,
            **shared,
        )
    else:
        white = whiten_low_rank(averaged, rank, **shared)
    if clip is None:
        return white
    return optax.chain(white, clip_amplitude(*clip, whole=rank is not None))


@optimizer(
    title="Curvature-Informed SGD via General Purpose Lie-Group Preconditioners",
    authors=("Omead Pooladzandi", "Xi-Lin Li"),
    year=2024,
    arxiv="2402.04553",
    code="https://github.com/lixilinx/psgd_torch",
    traits=(Trait.SHAPED, Trait.COUPLED),
)
@transformation
def psgd(
    learning_rate: LearningRate = 1e-3,
    *,
    momentum: Decay = 0.9,
    fit: Fit = "q0p5eq1p5",
    rank: Size | None = None,
    fit_rate: Fraction = 0.1,
    fit_decay: Decay = 0.9,
    fit_first: bool = True,
    fit_momentum: bool = False,
    newton: bool = False,
    damping: NonNegative = 1e-9,
    init_scale: Positive | None = None,
    every: When = 1,
    balance_every: When = 100,
    clip: tuple[float, float] | None = (2.0, 10.0),
    max_size: Size | None = None,
    max_skew: Skew = 1.0,
    weight_decay: NonNegative = 0.0,
    mask: Mask = None,
    bound: Bound | None = None,
    key: Key | None = None,
    axes: AxesLike = None,
) -> optax.GradientTransformation:
    """Whitens gradients by a Kronecker preconditioner that follows them by products alone.

    Rule:
      m ← b·m + (1 − b)·g, b = min((t − 1)/t, momentum);   h = P·g
      E = h·hᵀ over all other axes − c·I, c being the leaf's size over the axis's
      L ← max(fit_decay·L + (1 − fit_decay)·l, l), l being about the norm of E + 2c·I
      q ← q − fit_rate/L·E·q, then turned upright, for each axis;   P = QᵀQ, Q the product of all q
      p ← p − learning_rate·(P·m, clipped + weight_decay·p)

    Against Adam:
      The second moment is one matrix for each axis and is never inverted or decomposed; a step
      costs a few products more. The longer axis of a leaf keeps a diagonal.

    When to use:
      Where Adam's diagonal is too little and roots or bases are too slow: recurrent networks,
      reinforcement learning, large batches. Not where gradients vanish for long: a white direction
      of nothing is noise, which clip and damping only bound.

    Tuning:
      P·m has entries near 1, so the learning rate is Adam's, 3e-4 to 3e-3. With fit_momentum lower
      it by √((1 + momentum)/(1 − momentum)). Rare gradients want fit_decay = 0.999.

    Args:
      learning_rate: a number, or a schedule of the number of finished steps.
      momentum: decay of m, in [0, 1);
        the plain number 0 keeps no buffer for it.
      fit: where E stands: "q0p5eq1p5" as above; "qeq", "qep" and "quad", which need no turning;
        "eq", triangular factors as in the first papers; "pro4p" and "quad4p", which fit P itself.
      rank: one P for all leaves together instead, diagonal but for this rank; fit, balance_every,
        max_size, max_skew, bound and axes mean nothing then, and key is that of the probes. None
        for factors of each leaf.
      fit_rate: length of a step of the fit, in [0, 1].
      fit_decay: how slowly L forgets, in [0, 1).
      fit_first: fit to the gradient before P is used; False: afterwards, which is unbiased.
      fit_momentum: fit to m instead of g.
      newton: fit P to the inverse of the Hessian, h = P·H·v and v·vᵀ in place of c·I.
      damping: of the noise that bounds P, where there is a key, and of the first scale.
      init_scale: of the first Q; None for one that whitens the first gradient, the same for all
        leaves.
      every: steps from one fit to the next, or a function of the number of finished steps.
      balance_every: steps after which a fit makes the factors of a leaf equally large, or such a
        function.
      clip: largest root mean square of a leaf and largest entry of P·m; None for no clipping.
      max_size: an axis longer than this keeps a diagonal.
      max_skew: as does an axis whose square is more than max_skew times the leaf's size.
      weight_decay: decoupled decay.
      mask: which leaves to decay: a tree of booleans, or a function that makes one.
      bound: estimates norms; `norm_bound()` by default.
      key: a `jax.random` key, or an integer seed, of the noise on g; None for none. Probes, which
        "eq" and newton need, are drawn in any case, unless `update` gets them as probe=.
      axes: which axes of a leaf stack separate layers; see `optzoo.primitives.axes`.

    Returns:
      The optimizer. It needs the parameters in `update`. With newton=True it also needs value_fn=,
      or probe= and product=, a tree v and the Hessian times it.

    Raises:
      ValueError: for an argument out of range.

    References:
      Pooladzandi and Li 2024, arXiv 2402.04553; Li 2015, arXiv 1512.04202; Li 2024, arXiv
      2402.11858. Official code lixilinx/psgd_torch, KronWhiten, whose default momentum is 0,
      KronNewton: newton=True, clip=None; LRAWhiten: rank=10. It draws noise, and balances and skips
      fits at random: here counts say when, U and V of the low rank take turns, and norms are found
      without draws, as in the code when all draws are 0.
    """
    direction = scale_by_psgd(
        momentum=momentum,
        fit=fit,
        rank=rank,
        fit_rate=fit_rate,
        fit_decay=fit_decay,
        fit_first=fit_first,
        fit_momentum=fit_momentum,
        newton=newton,
        damping=damping,
        init_scale=init_scale,
        every=every,
        balance_every=balance_every,
        clip=clip,
        max_size=max_size,
        max_skew=max_skew,
        bound=bound,
        key=key,
        axes=axes,
    )
    return optax.chain(
        direction,
        add_decayed_weights(weight_decay, mask),
        optax.scale_by_learning_rate(learning_rate),
    )
