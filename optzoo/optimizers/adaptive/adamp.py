"""AdamP and SGDP: momentum that does not inflate scale-invariant weights."""

from typing import Any

import optax

from optzoo.primitives.axes import AxesLike
from optzoo.primitives.base import (
    Decay,
    DType,
    Fraction,
    LearningRate,
    Mask,
    NonNegative,
    transformation,
)
from optzoo.primitives.combine import add, divide, merge_leaves, only
from optzoo.primitives.directions import project_radial, radial_decay
from optzoo.primitives.moments import debias, ema, momentum as heavy_ball, rms
from optzoo.registry import Trait, optimizer

PAPER: Any = dict(
    title="AdamP: Slowing Down the Slowdown for Momentum Optimizers on Scale-invariant Weights",
    authors=(
        "Byeongho Heo",
        "Sanghyuk Chun",
        "Seong Joon Oh",
        "Dongyoon Han",
        "Sangdoo Yun",
        "Gyuwan Kim",
        "Youngjung Uh",
        "Jung-Woo Ha",
    ),
    year=2020,
    arxiv="2006.08217",
    code="https://github.com/clovaai/AdamP",
    traits=(Trait.SHAPED,),
)


@transformation
def scale_by_adamp(
    *,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    delta: NonNegative = 0.1,
    nesterov: bool = False,
    axes: AxesLike = None,
    mu_dtype: DType = None,
    nu_dtype: DType = None,
) -> optax.GradientTransformation:
    """The direction of `adamp`: Adam's, projected; see there for the arguments."""
    first = optax.chain(ema(b1, debias=False, nesterov=nesterov, dtype=mu_dtype), debias(b1))
    adam = merge_leaves(divide, first, rms(b2, eps, dtype=nu_dtype))
    return project_radial(adam, delta=delta, eps=eps, axes=axes)


@optimizer(**PAPER, default=True)
@transformation
def adamp(
    learning_rate: LearningRate = 1e-3,
    *,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    mask: Mask = None,
    delta: NonNegative = 0.1,
    wd_ratio: Fraction = 0.1,
    nesterov: bool = False,
    axes: AxesLike = None,
    mu_dtype: DType = None,
    nu_dtype: DType = None,
) -> optax.GradientTransformation:
    """Adam without the part of each step that only grows scale-invariant weights.

    Where the gradient is orthogonal to the weights, as under a normalisation layer, the radial
    part of the step is removed and the decay is weakened.

    Rule:
      u = m/(1 − b1^t) / (√(v/(1 − b2^t)) + eps), m and v averages of g and g²
      cos = |⟨g, p⟩| / (|g|·|p|), its largest over the channels, then over the whole layer
      if cos < delta/√(numbers per row):   u ← u − ⟨u, p̂⟩p̂,  r = wd_ratio;   otherwise r = 1
      p ← p − learning_rate·(u + r·weight_decay·p)

    Against Adam:
      It removes the part of the step along the weights where that part only lengthens them, so a
      normalised layer's effective learning rate does not shrink by the way.

    When to use:
      Weights under batch or layer normalisation, as in convolutional networks. Not for models
      without normalisation: the test hardly ever holds, and what runs is AdamW.

    Tuning:
      AdamW's learning rate and decay; the authors' example has 1e-3 with weight_decay = 1e-2.

    Args:
      learning_rate: a number, or a schedule of the number of finished steps.
      b1: decay of the first moment, in [0, 1); the plain number 0 keeps no buffer for it.
      b2: decay of the second moment, in [0, 1).
      eps: added to the root of the second moment, and the floor of norms.
      weight_decay: decoupled decay.
      mask: which leaves to decay: a tree of booleans, or a function that makes one.
      delta: threshold of the test; 0 never projects.
      wd_ratio: factor on the decay of projected leaves.
      nesterov: Nesterov's first moment, b1·m + (1 − b1)·g.
      axes: which axes are outputs (a channel feeds one output); see `optzoo.primitives.axes`.
      mu_dtype: dtype of the first moment; float32 or wider by default.
      nu_dtype: dtype of the second moment; float32 or wider by default.

    Returns:
      The optimizer. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range, or `update` without parameters.

    References:
      Heo et al. 2020, arXiv 2006.08217; official code clovaai/AdamP, whose order of the tests
      (channels first) the paper does not spell out.
    """
    direction = scale_by_adamp(
        b1=b1,
        b2=b2,
        eps=eps,
        delta=delta,
        nesterov=nesterov,
        axes=axes,
        mu_dtype=mu_dtype,
        nu_dtype=nu_dtype,
    )
    decay = radial_decay(weight_decay, ratio=wd_ratio, delta=delta, eps=eps, axes=axes)
    decayed = merge_leaves(add, direction, only(mask, decay))
    return optax.chain(decayed, optax.scale_by_learning_rate(learning_rate))


@transformation
def scale_by_sgdp(
    *,
    momentum: Decay = 0.0,
    dampening: Decay = 0.0,
    nesterov: bool = False,
    eps: NonNegative = 1e-8,
    delta: NonNegative = 0.1,
    axes: AxesLike = None,
    mu_dtype: DType = None,
) -> optax.GradientTransformation:
    """The direction of `sgdp`: momentum, projected; see there for the arguments."""
    inner = heavy_ball(momentum, dampening=dampening, nesterov=nesterov, dtype=mu_dtype)
    projected = project_radial(inner, delta=delta, eps=eps, axes=axes)

    def update(updates, state, params=None):
        out, state = projected.update(updates, state, params)
        # The official code projects the momentum buffer in place unless nesterov makes a copy.
        return out, state if nesterov else state._replace(moment=optax.tree.cast(out, mu_dtype))

    return optax.GradientTransformation(projected.init, update)


@optimizer(**PAPER, default=True)
@transformation
def sgdp(
    learning_rate: LearningRate = 0.1,
    *,
    momentum: Decay = 0.0,
    dampening: Decay = 0.0,
    nesterov: bool = False,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    mask: Mask = None,
    delta: NonNegative = 0.1,
    wd_ratio: Fraction = 0.1,
    axes: AxesLike = None,
    mu_dtype: DType = None,
) -> optax.GradientTransformation:
    """SGD with momentum without the part of each step that only grows scale-invariant weights.

    Rule:
      m ← momentum·m + (1 − dampening)·g;   u = m, or g + momentum·m with nesterov
      u projected and r chosen as in adamp; without nesterov, the projected u is kept as m
      p ← p − learning_rate·(u + r·weight_decay/(1 − momentum)·p)

    Against Adam:
      It is no relation of Adam: SGD with momentum, without the part of the step that only lengthens
      the weights of normalised layers.

    When to use:
      Convolutional networks with batch normalisation that SGD trains well. Not for transformers or
      embeddings, which need a scale for each entry.

    Tuning:
      SGD's, with momentum = 0.9: the division by 1 − momentum makes the decay as strong as the same
      number is in SGD. The authors' example has 0.1 with weight_decay = 1e-5.

    Args:
      learning_rate: a number, or a schedule of the number of finished steps.
      momentum: decay of the momentum, in [0, 1).
      dampening: the fraction of the gradient left out of the momentum, in [0, 1).
      nesterov: look one step ahead.
      eps: floor of norms.
      weight_decay: decoupled decay.
      mask: which leaves to decay: a tree of booleans, or a function that makes one.
      delta: threshold of the test; 0 never projects.
      wd_ratio: factor on the decay of projected leaves.
      axes: which axes are outputs (a channel feeds one output); see `optzoo.primitives.axes`.
      mu_dtype: dtype of the momentum; float32 or wider by default.

    Returns:
      The optimizer. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range, or `update` without parameters.

    References:
      Heo et al. 2020, arXiv 2006.08217; official code clovaai/AdamP. That the projection reaches
      the momentum buffer is the code's behaviour; the paper does not say.
    """
    direction = scale_by_sgdp(
        momentum=momentum,
        dampening=dampening,
        nesterov=nesterov,
        eps=eps,
        delta=delta,
        axes=axes,
        mu_dtype=mu_dtype,
    )
    decay = radial_decay(
        weight_decay / (1 - momentum), ratio=wd_ratio, delta=delta, eps=eps, axes=axes
    )
    decayed = merge_leaves(add, direction, only(mask, decay))
    return optax.chain(decayed, optax.scale_by_learning_rate(learning_rate))
