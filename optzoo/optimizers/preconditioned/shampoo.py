"""Shampoo: an inverse root of the gradients' second moment for each axis, in its three forms."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.axes import AxesLike
from optzoo.primitives.base import (
    Decay,
    DType,
    LearningRate,
    Mask,
    NonNegative,
    Size,
    is_zero,
    require_params,
    transformation,
)
from optzoo.primitives.combine import divide, merge
from optzoo.primitives.decay import add_decayed_weights
from optzoo.primitives.factors import apply_roots, kronecker_roots, lengthened
from optzoo.primitives.kronecker import Layout, Merge
from optzoo.primitives.moments import debias as debiased, ema, momentum, rms
from optzoo.primitives.powers import Power
from optzoo.registry import Trait, optimizer

MomentumForm = Literal["debiased", "ema", "sum"]
DecayForm = Literal["decoupled", "momentum", "gradient"]


class ShampooState(NamedTuple):
    """How many steps are finished, what makes the directions, and the momentum behind them."""

    steps: jax.Array
    made: optax.OptState
    momentum: optax.OptState


@transformation
def scale_by_shampoo(
    *,
    b1: Decay = 0.9,
    momentum_form: MomentumForm = "debiased",
    momentum_first: bool = True,
    nesterov: bool = False,
    b2: Decay | None = 0.999,
    debias: bool = True,
    initial: NonNegative = 0.0,
    eps: NonNegative = 1e-12,
    exponent: NonNegative | None = None,
    inverse: Power | None = None,
    every: Size = 1,
    stats_every: Size = 1,
    start: Size | None = None,
    stagger: bool = False,
    grafted: bool = True,
    graft: optax.GradientTransformation | None = None,
    graft_b2: Decay = 0.999,
    graft_eps: NonNegative = 1e-8,
    graft_blocks: bool = False,
    weight_decay: NonNegative = 0.0,
    decay_form: DecayForm = "decoupled",
    block: Size | None = 1024,
    merge_shape: Merge | None = None,
    max_size: Size | None = None,
    axes: AxesLike = None,
    mu_dtype: DType = None,
) -> optax.GradientTransformation:
    """The direction of `shampoo`; see there for the arguments."""
    begin = every if start is None else start
    # Both momenta run from the first step on, so that one can take over from the other.
    both = grafted and begin > 1

    def shape(dims):
        return (merge_shape(dims) if merge_shape else dims) or (1,)

    layout = Layout(axes, shape, block)
    whole = layout if graft_blocks else Layout(axes, shape, None)
    averaged = _averaged(b1, momentum_form, nesterov, mu_dtype)
    roots = kronecker_roots(
        layout,
        b2,
        exponent=exponent,
        eps=eps,
        inverse=inverse,
        debias=debias,
        initial=initial,
        first=begin if momentum_first else 1,
        every=every,
        stats_every=stats_every,
        max_size=max_size,
        stagger=stagger,
    )
    length = graft or rms(graft_b2, graft_eps)

    def directions(moment, roots, length):
        preconditioned = apply_roots(layout, roots, moment)
        if not grafted:
            return preconditioned, moment
        plain = length if graft else jax.tree.map(divide, moment, length)
        return lengthened(whole, preconditioned, plain), plain

    made = merge(
        directions,
        averaged if momentum_first else optax.identity(),
        roots,
        length if grafted else optax.identity(),
    )
    behind = optax.identity() if momentum_first else averaged

    def init(params):
        pair = (params, params if both else ())
        return ShampooState(jnp.zeros([], jnp.int32), made.init(params), behind.init(pair))

    def update(updates, state, params=None, **extra_args):
        steps = optax.safe_increment(state.steps)
        (first, plain), made_state = made.update(updates, state.made, params, **extra_args)
        pair = (first, plain if both else ())
        if decay_form == "momentum" and not is_zero(weight_decay):
            require_params(params, "weight decay")
            decayed = (params, params if both else ())
            pair = jax.tree.map(lambda u, p: u + weight_decay * p, pair, decayed)
        (first, plain), behind_state = behind.update(pair, state.momentum)
        if both:
            first = jax.tree.map(lambda u, a: jnp.where(steps < begin, a, u), first, plain)
        return first, ShampooState(steps, made_state, behind_state)

    return optax.GradientTransformationExtraArgs(init, update)


def _averaged(b1, form: MomentumForm, nesterov: bool, dtype) -> optax.GradientTransformation:
    if form == "sum":
        return momentum(b1, nesterov=nesterov, dtype=dtype)
    average = ema(b1, debias=False, nesterov=nesterov, dtype=dtype)
    if form == "ema" or is_zero(b1):
        return average
    return optax.chain(average, debiased(b1, ahead=int(nesterov)))


@optimizer(
    title="Shampoo: Preconditioned Stochastic Tensor Optimization",
    authors=("Vineet Gupta", "Tomer Koren", "Yoram Singer"),
    year=2018,
    arxiv="1802.09568",
    code="https://github.com/facebookresearch/optimizers",
    traits=(Trait.SHAPED,),
)
@transformation
def shampoo(
    learning_rate: LearningRate = 1e-3,
    *,
    b1: Decay = 0.9,
    momentum_form: MomentumForm = "debiased",
    momentum_first: bool = True,
    nesterov: bool = False,
    b2: Decay | None = 0.999,
    debias: bool = True,
    initial: NonNegative = 0.0,
    eps: NonNegative = 1e-12,
    exponent: NonNegative | None = None,
    inverse: Power | None = None,
    every: Size = 1,
    stats_every: Size = 1,
    start: Size | None = None,
    stagger: bool = False,
    grafted: bool = True,
    graft: optax.GradientTransformation | None = None,
    graft_b2: Decay = 0.999,
    graft_eps: NonNegative = 1e-8,
    graft_blocks: bool = False,
    weight_decay: NonNegative = 0.0,
    decay_form: DecayForm = "decoupled",
    mask: Mask = None,
    block: Size | None = 1024,
    merge_shape: Merge | None = None,
    max_size: Size | None = None,
    axes: AxesLike = None,
    mu_dtype: DType = None,
) -> optax.GradientTransformation:
    """A momentum whitened axis by axis, with steps as long as Adam's.

    Rule:
      L ← b2·L + (1 − b2)·F for each axis, F being g·gᵀ over all other axes;   d = momentum of g
      R = (L/(1 − b2^n) + eps·I)^(−1/(2k)) for k axes, made anew after each period
      u = d with R applied to every axis;   a = d/(√v + graft_eps), v being Adam's of g
      p ← p − learning_rate·(u·|a|/|u| + weight_decay·p), with a for u in the steps before start

    Against Adam:
      The direction is that of a second moment with all correlations along each axis, the length
      is Adam's. For square matrices the factors and roots are four numbers a weight more.

    When to use:
      Large batches, and where a run is worth a tuned optimizer. Not where there is no time to tune:
      `soap` has fewer arguments and bears longer periods.

    Tuning:
      Adam's learning rate and schedule are a good start. The defaults make roots in every step, as
      the sources do; every=10 to 100 costs little accuracy and nearly all of their time less.

    Args:
      learning_rate: a number, or a schedule of the number of finished steps.
      b1: decay of the momentum, in [0, 1); the plain number 0 keeps no buffer for it.
      momentum_form: "debiased" or "ema", b1·m + (1 − b1)·g with or without a correction for its
        start at zero; "sum", b1·m + g.
      momentum_first: average gradients, then apply the roots; False: the other way round.
      nesterov: look one step ahead.
      b2: decay of L, in [0, 1); None for the sum, as in 2018.
      debias: correct L for its start at zero.
      initial: L starts at initial·I.
      eps: added to L before the root.
      exponent: of the roots; None for 1/(2k).
      inverse: makes the powers: `eigen_power(eps)` by default, `newton_power()`, or any callable.
      every: steps in a period, from one root to the next.
      stats_every: steps from one change of L to the next.
      start: the first step that goes along u, counted from 1; None for the first period's last.
      stagger: spread the renewals of a period over its steps, by their cost; False: all at once.
      grafted: give u the length of a; False: its own.
      graft: makes a from the gradient: any rule. None for Adam, which shares its momentum with d.
      graft_b2: decay of Adam's v, in [0, 1).
      graft_eps: added to the root of Adam's v.
      graft_blocks: a length for each block; False: for the whole leaf.
      weight_decay: the decay, before the learning rate.
      decay_form: "decoupled" as above; "momentum": added to u and a before a momentum behind them;
        "gradient": added to g.
      mask: which leaves to decay, of all forms but "momentum": a tree of booleans, or a function
        that makes one.
      block: longer axes are cut into blocks with factors of their own; None: never.
      merge_shape: maps the shape of a leaf to one with fewer axes: `merge_axes(limit)`, or any
        callable.
      max_size: an axis longer than this keeps the diagonal of L only.
      axes: which axes of a leaf stack separate layers; see `optzoo.primitives.axes`. All others
        get factors, the two of a kernel and the four of a convolution.
      mu_dtype: dtype of the momentum; float32 or wider by default.

    Returns:
      The optimizer. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range; from `init`, for complex parameters.

    References:
      Gupta, Koren and Singer 2018, arXiv 1802.09568: b2=None, grafted=False, momentum_first=False,
      momentum_form="sum", every=1. Anil et al. 2020, arXiv 2002.09018, with code in
      google-research/precondition: the same with b2, debias=False, initial, `newton_power()`,
      nesterov, and a graft; a start of 5 there is 6 here. Shi et al. 2023, arXiv 2309.06497, with
      code in facebookresearch/optimizers: graft_blocks=True and, by default, b2=None and
      grafted=False; it counts periods from step 0, not from the start.
    """
    direction = scale_by_shampoo(
        b1=b1,
        momentum_form=momentum_form,
        momentum_first=momentum_first,
        nesterov=nesterov,
        b2=b2,
        debias=debias,
        initial=initial,
        eps=eps,
        exponent=exponent,
        inverse=inverse,
        every=every,
        stats_every=stats_every,
        start=start,
        stagger=stagger,
        grafted=grafted,
        graft=graft,
        graft_b2=graft_b2,
        graft_eps=graft_eps,
        graft_blocks=graft_blocks,
        weight_decay=weight_decay,
        decay_form=decay_form,
        block=block,
        merge_shape=merge_shape,
        max_size=max_size,
        axes=axes,
        mu_dtype=mu_dtype,
    )
    decay = add_decayed_weights(weight_decay, mask)
    order = {
        "decoupled": (direction, decay),
        "gradient": (decay, direction),
        "momentum": (direction,),
    }
    return optax.chain(*order[decay_form], optax.scale_by_learning_rate(learning_rate))
