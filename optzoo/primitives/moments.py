"""Averages of gradients over time: first moments, second moments, momentum."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.axes import AxesLike, is_function, map_with_axes
from optzoo.primitives.base import (
    Decay,
    DecayOrSchedule,
    DType,
    NonNegative,
    Schedule,
    Tree,
    at,
    cast_like,
    is_zero,
    real,
    real_dtype,
    transformation,
)
from optzoo.primitives.combine import copied, divide, gradient, merge_leaves
from optzoo.primitives.norms import abs_sq, layer_energy, packed, unpacked


class MomentState(NamedTuple):
    """A running average and how many steps it has seen."""

    steps: jax.Array
    moment: Tree


class SecondMomentState(NamedTuple):
    """A second moment, of entries or of layers, and its running maximum where asked for."""

    steps: jax.Array
    moment: Tree
    maximum: Tree


def _start(params: Tree, dtype: DType) -> MomentState:
    return MomentState(jnp.zeros([], jnp.int32), optax.tree.zeros_like(params, dtype=dtype))


def _start_squares(params: Tree, dtype: DType) -> MomentState:
    """`_start` of an average of |g|², which is real where the parameters are complex."""
    return MomentState(jnp.zeros([], jnp.int32), real_zeros(params, dtype))


def real_zeros(params: Tree, dtype: DType = None) -> Tree:
    """Where an average of real numbers starts, whether or not the parameters are complex."""
    return jax.tree.map(lambda p: jnp.zeros_like(p, dtype=dtype or real_dtype(p)), params)


def _with_squares(updates: Tree, moment: Tree, decay: Decay) -> Tree:
    return jax.tree.map(
        lambda g, v: (1 - decay) * abs_sq(g) + decay * v, updates, cast_like(moment, updates)
    )


def _stored(moment: Tree, dtype: DType) -> Tree:
    return optax.tree.cast(moment, dtype)


@transformation
def ema(
    decay: DecayOrSchedule,
    *,
    debias: bool = True,
    nesterov: bool = False,
    start: Tree | Callable[[Tree], Tree] | None = None,
    dtype: DType = None,
) -> optax.GradientTransformation:
    """The exponential moving average of the gradient (Adam's first moment).

    Rule:
      m ← decay·m + (1 − decay)·g;   returns m / (1 − decay^t), or m without debias
      nesterov: decay·m + (1 − decay)·g in place of m; debiased, m is divided by 1 − decay^(t+1)
      and g by 1 − decay^t

    Args:
      decay: in [0, 1), or a schedule of the 1-based step t. The plain number 0 keeps no state.
      debias: correct the average for its start at zero.
      nesterov: look one step ahead.
      start: the average before the first step, a tree like the parameters or a function that makes
        one from them; zeros by default. "first": the first gradient.
      dtype: dtype of the stored average; float32 or the parameters' wider dtype by default.

    Returns:
      A transformation with `MomentState`.

    Raises:
      ValueError: for a decay out of range, or debias together with a schedule or a start.
    """
    if is_zero(decay):
        return gradient
    for name, given in (
        ("decay is a schedule", callable(decay)),
        ("a start is given", start is not None),
    ):
        if given and debias:
            raise ValueError(f"ema: debias must be False where {name}; got debias=True")

    first = isinstance(start, str)
    if first and start != "first":
        raise ValueError(f"ema: start must be 'first', a tree, a function or None; got {start!r}")

    def init(params):
        state = _start(params, dtype)
        if start is None or first:
            return state
        moment = copied(start(params) if is_function(start) else start)
        return state._replace(moment=_stored(cast_like(moment, params), dtype))

    def update(updates, state, params=None):
        del params
        count = optax.safe_increment(state.steps)
        b = at(decay, real(count))

        def mixed(g, m):
            # A schedule's value has the widest dtype, which must not become the average's.
            share = jnp.asarray(b, g.real.dtype) if callable(decay) else b
            return (1 - share) * g + share * m

        moment = cast_like(state.moment, updates)
        if first:
            moment = jax.tree.map(lambda g, m: jnp.where(count == 1, g, m), updates, moment)
        moment = jax.tree.map(mixed, updates, moment)
        out = (
            optax.tree.bias_correction(moment, b, real(count) + int(nesterov)) if debias else moment
        )
        if nesterov:
            now = optax.tree.bias_correction(updates, b, real(count)) if debias else updates
            out = jax.tree.map(mixed, now, out)
        return out, MomentState(count, _stored(moment, dtype))

    return optax.GradientTransformation(init, update)


@transformation
def debias(decay: Decay, ahead: int = 0) -> optax.GradientTransformation:
    """Divides by 1 − decay^t: the correction of an average that started at zero.

    Args:
      decay: of the average, in [0, 1).
      ahead: steps to add to t, for an average that looks ahead.

    Returns:
      A transformation whose state is the step count.

    Raises:
      ValueError: for a decay out of range.
    """

    def update(updates, state, params=None):
        del params
        count = optax.safe_increment(state)
        return optax.tree.bias_correction(updates, decay, real(count) + ahead), count

    return optax.GradientTransformation(lambda _: jnp.zeros([], jnp.int32), update)


def adam_correction(b1: Decay, b2: Decay) -> Schedule:
    """Both of Adam's corrections as one factor of the step, where eps is beside the plain root.

    Rule:
      √(1 − b2^t)/(1 − b1^t), t = 1 before any step is finished

    Args:
      b1, b2: decays of the first and of the second moment, in [0, 1).

    Returns:
      A schedule of the number of finished steps.
    """

    def factor(finished: jax.Array) -> jax.Array:
        t = real(finished) + 1
        return jnp.sqrt(1 - b2**t) / (1 - b1**t)

    return factor


@transformation
def second_moment(decay: Decay, *, dtype: DType = None) -> optax.GradientTransformation:
    """The exponential moving average of the gradient's square (Adam's second moment).

    Rule:
      v ← decay·v + (1 − decay)·|g|²;   returns v / (1 − decay^t)

    Args:
      decay: in [0, 1).
      dtype: dtype of the stored moment; float32 or the parameters' wider dtype by default.

    Returns:
      A transformation with `MomentState` whose output is real, not an update.

    Raises:
      ValueError: for a decay out of range.
    """

    def update(updates, state, params=None):
        del params
        count = optax.safe_increment(state.steps)
        moment = _with_squares(updates, state.moment, decay)
        out = optax.tree.bias_correction(moment, decay, real(count))
        return out, MomentState(count, _stored(moment, dtype))

    return optax.GradientTransformation(lambda params: _start_squares(params, dtype), update)


@transformation
def rms(
    decay: Decay,
    eps: NonNegative = 1e-8,
    *,
    eps_root: NonNegative = 0.0,
    debias: bool = True,
    eps_on_debiased: bool = True,
    amsgrad: bool = False,
    dtype: DType = None,
) -> optax.GradientTransformation:
    """The root of the gradient's second moment, made a divisor by eps (Adam's denominator).

    Rule:
      v ← decay·v + (1 − decay)·|g|²;   c = 1 − decay^t, or 1 without debias
      returns √(v/c + eps_root) + eps, or (√(v + eps_root) + eps)/√c where eps_on_debiased is False
      amsgrad: the largest v so far in place of v

    Args:
      decay: in [0, 1).
      eps: added to the root.
      eps_root: added under the root.
      debias: correct the average for its start at zero.
      eps_on_debiased: add eps to the corrected root (Adam's paper) or to the raw one, where the
        correction enlarges it (Grams' and diffGrad's code).
      amsgrad: divide by the running maximum of the uncorrected moment, as torch.optim does; with
        debias False it is the paper's form. One more number a parameter; Optax takes the maximum of
        the corrected moment, which is another rule.
      dtype: dtype of the stored moment; float32 or the parameters' wider dtype by default.

    Returns:
      A transformation with `SecondMomentState` whose output is the divisor, not an update.

    Raises:
      ValueError: for an argument out of range.

    Source of amsgrad: Reddi et al. 2018, arXiv 1904.09237.
    """

    def init(params):
        maximum = _start_squares(params, dtype).moment if amsgrad else ()
        return SecondMomentState(*_start_squares(params, dtype), maximum)

    def update(updates, state, params=None):
        del params
        count = optax.safe_increment(state.steps)
        moment = _with_squares(updates, state.moment, decay)
        maximum = (
            jax.tree.map(jnp.maximum, cast_like(state.maximum, moment), moment) if amsgrad else ()
        )
        second = maximum if amsgrad else moment
        debiased = optax.tree.bias_correction(second, decay, real(count)) if debias else second
        if eps_on_debiased or not debias:
            out = jax.tree.map(lambda v: jnp.sqrt(v + eps_root) + eps, debiased)
        else:
            correction = jnp.sqrt(1 - decay ** real(count))
            out = jax.tree.map(
                lambda v: (jnp.sqrt(v + eps_root) + eps) / correction.astype(v.dtype), second
            )
        return out, SecondMomentState(count, _stored(moment, dtype), _stored(maximum, dtype))

    return optax.GradientTransformation(init, update)


@transformation
def rss(eps: NonNegative = 1e-10) -> optax.GradientTransformation:
    """The root of the sum of the gradient's squares, made a divisor by eps (AdaGrad's denominator).

    Rule:
      v ← v + |g|²;   returns √v + eps

    Args:
      eps: added to the root.

    Returns:
      A transformation with `MomentState` whose output is the divisor, not an update.

    Raises:
      ValueError: for an argument out of range.
    """

    def update(updates, state, params=None):
        del params
        total = jax.tree.map(lambda g, v: v + abs_sq(g), updates, state.moment)
        out = jax.tree.map(lambda v: jnp.sqrt(v) + eps, total)
        return out, MomentState(optax.safe_increment(state.steps), total)

    return optax.GradientTransformation(lambda params: _start(params, None), update)


def adam(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    *,
    eps_root: NonNegative = 0.0,
    debias: bool = True,
    eps_on_debiased: bool = True,
    amsgrad: bool = False,
    mu_dtype: DType = None,
    nu_dtype: DType = None,
) -> optax.GradientTransformationExtraArgs:
    """Adam's direction, the core that many rules start from: ema(b1) / rms(b2, eps).

    Arguments are those of `ema` and `rms`. Equal to `optax.scale_by_adam` bit for bit.
    Source: Kingma and Ba 2014, arXiv 1412.6980.
    """
    second = rms(
        b2,
        eps,
        eps_root=eps_root,
        debias=debias,
        eps_on_debiased=eps_on_debiased,
        amsgrad=amsgrad,
        dtype=nu_dtype,
    )
    return merge_leaves(divide, ema(b1, debias=debias, dtype=mu_dtype), second)


@transformation
def momentum(
    decay: DecayOrSchedule, *, dampening: Decay = 0.0, nesterov: bool = False, dtype: DType = None
) -> optax.GradientTransformation:
    """Heavy-ball momentum: a decaying sum of gradients.

    Rule:
      m ← decay·m + (1 − dampening)·g;   returns m, or with nesterov: g + decay·m

    Args:
      decay: in [0, 1), or a schedule of the 1-based step t.
      dampening: the fraction of the gradient left out of the sum, in [0, 1).
      nesterov: look one step ahead.
      dtype: dtype of the stored momentum; float32 or the parameters' wider dtype by default.

    Returns:
      A transformation with `MomentState`.

    Raises:
      ValueError: for an argument out of range.
    """

    def init(params):
        return _start(params, dtype)

    def update(updates, state, params=None):
        del params
        count = optax.safe_increment(state.steps)
        b = at(decay, real(count))
        moment = cast_like(state.moment, updates)
        moment = jax.tree.map(lambda g, m: b * m + (1 - dampening) * g, updates, moment)
        out = jax.tree.map(lambda g, m: g + b * m, updates, moment) if nesterov else moment
        return out, MomentState(count, _stored(moment, dtype))

    return optax.GradientTransformation(init, update)


@transformation
def layer_rms(
    decay: Decay,
    eps: NonNegative = 1e-8,
    *,
    eps_root: NonNegative = 0.0,
    amsgrad: bool = False,
    reinitialize: bool = True,
    axes: AxesLike = None,
) -> optax.GradientTransformation:
    """The root of a layer's average squared gradient norm, one number a layer (NovoGrad).

    Rule:
      n = |g|²;   v ← n on the first step, then decay·v + (1 − decay)·n
      returns √(v + eps_root) + eps; with amsgrad of the largest v so far

    Args:
      decay: in [0, 1); 0 uses the present norm alone.
      eps: added to the root.
      eps_root: added under the root.
      amsgrad: divide by the running maximum.
      reinitialize: start anew whenever v is exactly 0, as the authors' code does, so that a layer
        without a gradient at first starts with its first real one; False: only on step 1.
      axes: where a leaf stacks several layers, a spec with batch axes gives each its own norm.

    Returns:
      A transformation with `SecondMomentState` whose output is one divisor a layer.

    Raises:
      ValueError: for an argument out of range.
    """

    def energies(tree):
        return map_with_axes(layer_energy, axes, tree)

    def init(params):
        layers = jax.eval_shape(lambda tree: packed(energies(tree)), params)

        def zeros():
            return jnp.zeros(layers.shape, layers.dtype)

        return SecondMomentState(jnp.zeros([], jnp.int32), zeros(), zeros() if amsgrad else ())

    def update(updates, state, params=None):
        del params
        count = optax.safe_increment(state.steps)
        energy = energies(updates)
        n, v = packed(energy), state.moment
        fresh = v == 0 if reinitialize else count == 1
        moment = jnp.where(fresh, n, decay * v + (1 - decay) * n)
        maximum = jnp.maximum(state.maximum, moment) if amsgrad else ()
        divisor = jnp.sqrt((maximum if amsgrad else moment) + eps_root) + eps
        return unpacked(divisor, energy), SecondMomentState(count, moment, maximum)

    return optax.GradientTransformation(init, update)


@transformation
def unit_rms(
    decay: Decay,
    eps: NonNegative = 1e-8,
    *,
    eps_root: NonNegative = 0.0,
    unit: Literal["output", "input"] = "output",
    total: bool = False,
    axes: AxesLike = None,
) -> optax.GradientTransformation:
    """The root of the second moment of each output unit, one number an output (NorMuon).

    Rule:
      n = mean of |g|² over what feeds an output;   v ← decay·v + (1 − decay)·n
      returns √(v + eps_root) + eps; the start at zero is not corrected

    Args:
      decay: in [0, 1).
      eps: added to the root.
      eps_root: added under the root.
      unit: "input" for one number an input, over what it feeds.
      total: sum the squares instead of averaging them.
      axes: which axes are inputs and outputs; a leaf that is no matrix is one unit.

    Returns:
      A transformation with a `packed` `MomentState` whose output is one divisor a unit.

    Raises:
      ValueError: for an argument out of range.
    """

    def energy(spec, g):
        over = None if spec is None else spec.input if unit == "output" else spec.output
        return (jnp.sum if total else jnp.mean)(abs_sq(g), axis=over, keepdims=True)

    def energies(tree):
        return map_with_axes(energy, axes, tree)

    def init(params):
        units = jax.eval_shape(lambda tree: packed(energies(tree)), params)
        return MomentState(jnp.zeros([], jnp.int32), jnp.zeros(units.shape, units.dtype))

    def update(updates, state, params=None):
        del params
        mean = energies(updates)
        moment = decay * state.moment + (1 - decay) * packed(mean)
        divisor = unpacked(jnp.sqrt(moment + eps_root) + eps, mean)
        return divisor, MomentState(optax.safe_increment(state.steps), moment)

    return optax.GradientTransformation(init, update)


class PositiveNegativeState(NamedTuple):
    """Two momenta, one updated on even steps and one on odd steps."""

    steps: jax.Array
    even: Tree
    odd: Tree


@transformation
def positive_negative_momentum(
    decay: Decay, noise_decay: Decay, *, dtype: DType = None
) -> optax.GradientTransformation:
    """Two momenta updated in turn; the older is subtracted, which adds gradient noise (PNM).

    Rule:
      p ← decay²·(the momentum updated two steps ago) + (1 − decay²)·g;   n = last step's momentum
      returns (2p − n) / (√((1 + noise_decay)² + noise_decay²)·(1 − decay^t))

    Args:
      decay: in [0, 1).
      noise_decay: in [0, 1); fixes the norm of the added noise. Ranger21's code passes its b2.
      dtype: dtype of the stored momenta; float32 or the parameters' wider dtype by default.

    Returns:
      A transformation with `PositiveNegativeState`.

    Raises:
      ValueError: for an argument out of range.

    Source: Xie et al. 2021, arXiv 2103.17182, in the form of lessw2020/Ranger21.
    """

    def init(params):
        def zeros():
            return optax.tree.zeros_like(params, dtype=dtype)

        return PositiveNegativeState(jnp.zeros([], jnp.int32), zeros(), zeros())

    def update(updates, state, params=None):
        del params
        count = optax.safe_increment(state.steps)
        turn = count % 2 == 0

        # Each keeps its place: exchanging them would copy both.
        def renewed(mine, moment):
            return jax.tree.map(
                lambda g, m: jnp.where(mine, decay**2 * m + (1 - decay**2) * g, m),
                updates,
                cast_like(moment, updates),
            )

        even, odd = renewed(turn, state.even), renewed(~turn, state.odd)
        noise = jnp.sqrt((1 + noise_decay) ** 2 + noise_decay**2)
        norm = noise * (1 - decay ** real(count))

        def difference(even, odd):
            positive, negative = jnp.where(turn, even, odd), jnp.where(turn, odd, even)
            return (2 * positive - negative) / norm.astype(even.dtype)

        out = jax.tree.map(difference, even, odd)
        return out, PositiveNegativeState(count, _stored(even, dtype), _stored(odd, dtype))

    return optax.GradientTransformation(init, update)
