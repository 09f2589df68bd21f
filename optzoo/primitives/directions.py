"""Where to go: stateless and one-step-memory maps from gradients to directions."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.axes import Axes, AxesLike, map_with_axes
from optzoo.primitives.base import (
    Count,
    Decay,
    DType,
    Fraction,
    Mask,
    NonNegative,
    Positive,
    Tree,
    is_zero,
    require_params,
    transformation,
)
from optzoo.primitives.combine import gradient, select
from optzoo.primitives.norms import (
    layer_energy,
    layer_maximum,
    layer_sum,
    root,
    unit_norm,
)

KeptShare = Literal["mean", "plus_one"]


def take_sign(size: jax.Array, sign: jax.Array) -> jax.Array:
    """|size|·sign(sign): the magnitude of one array with the signs of another; 0 where sign is."""
    return jnp.sign(sign) * jnp.abs(size)


def agree(
    spec: Axes | None,
    update: jax.Array,
    toward: jax.Array,
    *,
    rescale: KeptShare = "mean",
    floor: jax.typing.ArrayLike = 1e-3,
) -> jax.Array:
    """An update where its signs are those of `toward`, enlarged for what is left out (cautious).

    Rule:
      k = 1 where both have one sign, otherwise 0;   u·k/max(Σk/n, floor), n numbers in the layer
      rescale = "plus_one":   u·k·n/(Σk + 1)

    Args:
      spec: the leaf's axes, counted from the front; with batch axes each layer has its own share.
      update, toward: arrays of one shape. Where either is 0 they do not agree.
      rescale: which share of kept entries to divide by.
      floor: of the mean.

    Returns:
      The update.
    """
    kept = ((jnp.conj(jnp.sign(update)) * jnp.sign(toward)).real > 0).astype(update.dtype)
    count = layer_energy(spec, kept)
    numbers = kept.size // max(count.size, 1)
    share = (
        jnp.maximum(count / max(numbers, 1), floor)
        if rescale == "mean"
        else (count + 1) / max(numbers, 1)
    )
    return update * (kept / share)


class PreviousGradientState(NamedTuple):
    """The gradient of the step before."""

    previous: Tree


@transformation
def friction(*, dtype: DType = None) -> optax.GradientTransformation:
    """How much each gradient entry still changes, as a brake between 1/2 and 1 (diffGrad).

    Rule:
      returns sigmoid(|g_prev − g|), with g_prev = 0 on the first step

    Args:
      dtype: dtype of the stored gradient; float32 or the parameters' wider dtype by default.

    Returns:
      A transformation with `PreviousGradientState` whose output is a factor in [1/2, 1].
    """

    def init(params):
        return PreviousGradientState(optax.tree.zeros_like(params, dtype=dtype))

    def update(updates, state, params=None):
        del params
        out = jax.tree.map(
            lambda g, previous: jax.nn.sigmoid(jnp.abs(previous.astype(g.dtype) - g)),
            updates,
            state.previous,
        )
        return out, PreviousGradientState(optax.tree.cast(updates, dtype))

    return optax.GradientTransformation(init, update)


@transformation
def extrapolate(
    strength: NonNegative, *, approximate: bool = True, dtype: DType = None
) -> optax.GradientTransformation:
    """The gradient and a part of how it has changed since the step before.

    Rule:
      returns g + strength·(g − g_prev), with g_prev = 0 on the first step

    Args:
      strength: how much of the change to add; the plain number 0 keeps no state.
      approximate: g_prev is the gradient of the step before. False: it is what `update` gets as
        `previous_grad`, this step's batch at the parameters of the step before, and no state.
      dtype: dtype of the stored gradient; float32 or the parameters' wider dtype by default.

    Returns:
      A transformation with `PreviousGradientState`.

    Raises:
      ValueError: for a strength out of range, or from `update` without the previous_grad it needs.
    """
    if is_zero(strength):
        return gradient

    def init(params):
        kept = optax.tree.zeros_like(params, dtype=dtype) if approximate else ()
        return PreviousGradientState(kept)

    def is_hidden(node):
        return isinstance(node, optax.MaskedNode)

    def update(updates, state, params=None, *, previous_grad=None, **extra_args):
        del params, extra_args
        if not approximate and previous_grad is None:
            raise ValueError(
                "extrapolate: approximate=False needs this batch's gradient at the parameters of "
                "the step before: call update(grads, state, params, previous_grad=...)"
            )
        # A partition hides leaves of the updates, but none of an extra argument.
        out = jax.tree.map(
            lambda g, previous: (
                g if is_hidden(g) else g + strength * (g - previous.astype(g.dtype))
            ),
            updates,
            state.previous if approximate else previous_grad,
            is_leaf=is_hidden,
        )
        return out, PreviousGradientState(optax.tree.cast(updates, dtype) if approximate else ())

    return optax.GradientTransformationExtraArgs(init, update)


@transformation
def clip_norm(limit: Positive = 1.0, *, axes: AxesLike = None) -> optax.GradientTransformation:
    """Scales each leaf down to a largest norm, leaf by leaf.

    Rule:
      g ← g / max(1, |g|/limit)

    Args:
      limit: the largest norm.
      axes: where a leaf stacks several layers, a spec with batch axes clips each by its own norm.

    Returns:
      A stateless transformation.

    Raises:
      ValueError: for a limit out of range.
    """

    def clipped(spec, g):
        return g / jnp.maximum(1, root(layer_energy(spec, g)) / limit)

    return optax.stateless(lambda updates, _: map_with_axes(clipped, axes, updates))


@transformation
def variance_reduced(
    gamma: NonNegative = 0.025,
    b1: Decay = 0.95,
    *,
    clip: Positive | None = 1.0,
    approximate: bool = True,
    axes: AxesLike = None,
    dtype: DType = None,
) -> optax.GradientTransformation:
    """MARS's corrected gradient, for a momentum with decay b1 to average.

    Rule:
      c = g + gamma·b1/(1 − b1)·(g − g_prev), with g_prev = 0 on the first step
      returns c / max(1, |c|/clip), the norm of one leaf

    Args:
      gamma: strength of the correction; 0 for none, and no state.
      b1: decay of the momentum that follows.
      clip: largest norm of a corrected gradient; None for no clip.
      approximate, dtype: as in `extrapolate`.
      axes: as in `clip_norm`.

    Returns:
      A transformation.

    Raises:
      ValueError: for an argument out of range.

    Source: Yuan et al. 2024, arXiv 2411.10438.
    """
    strength = gamma * b1 / (1 - b1)
    corrected = extrapolate(strength, approximate=approximate, dtype=dtype)
    return optax.chain(corrected, gradient if clip is None else clip_norm(clip, axes=axes))


@transformation
def damp(*, axes: AxesLike = None) -> optax.GradientTransformation:
    """Damps gradient entries by their own and the layer's largest size (Gravity).

    Rule:
      g ← g / (1 + (g·max|g|)²), the maximum over the layer

    Args:
      axes: where a leaf stacks several layers, a spec with batch axes gives each its own maximum.

    Returns:
      A stateless transformation.

    Source: Bahrami and Pouriyan Zadeh 2021, arXiv 2101.09192.
    """

    def damped(spec, g):
        return g / (1 + jnp.square(g * layer_maximum(spec, g)))

    return optax.stateless(lambda updates, _: map_with_axes(damped, axes, updates))


def remove_radial(
    spec: Axes | None,
    update: jax.Array,
    grad: jax.Array,
    param: jax.Array,
    *,
    delta: jax.typing.ArrayLike,
    eps: jax.typing.ArrayLike,
) -> tuple[jax.Array, jax.Array]:
    """Projects an update off the weights' direction where the weights look scale-invariant (AdamP).

    Rule, for the channels (one row an output) first, then for the whole layer as one row:
      cos = |⟨g, p⟩| / (max(|g|, eps)·max(|p|, eps)) a row
      if max cos < delta/√(numbers in a row):   h = p/(|p| + eps);   u ← u − h·⟨h, u⟩;   stop

    Args:
      spec: the leaf's axes, counted from the front; None (a vector or scalar) is never projected.
      update, grad, param: arrays of one shape; grad is the raw gradient.
      delta: threshold of the test.
      eps: floor of the norms.

    Returns:
      The update and whether it was projected, as an array that broadcasts against it.
    """
    if spec is None or not update.size:
        return update, jnp.zeros([], bool)
    factor, projected = jnp.zeros([], update.dtype), jnp.zeros([], bool)
    sums = [grad * param, jnp.square(grad), jnp.square(param), update * param]
    rows = []
    # One pass over the arrays: a layer's sums are sums of its channels', where the barrier keeps
    # the compiler from merging both into another pass.
    for summed in (spec.input, spec.output):
        sums = jax.lax.optimization_barrier([jnp.sum(x, axis=summed, keepdims=True) for x in sums])
        rows.append(sums)
    # The channels come last because their projection, where it fires, replaces the layer's.
    for alignment, grad_energy, param_energy, radial in reversed(rows):
        param_norm = root(param_energy)
        cosine = jnp.abs(alignment) / (
            jnp.maximum(root(grad_energy), eps) * jnp.maximum(param_norm, eps)
        )
        others = tuple(axis for axis in range(update.ndim) if axis not in spec.batch)
        numbers = update.size // param_norm.size
        fires = jnp.max(cosine, axis=others, keepdims=True) < delta / numbers**0.5
        norm = param_norm + eps
        factor = jnp.where(fires, radial / norm / norm, factor)
        projected = projected | fires
    return update - factor * param, projected


@transformation
def project_radial(
    tx: optax.GradientTransformation,
    *,
    delta: NonNegative = 0.1,
    eps: NonNegative = 1e-8,
    axes: AxesLike = None,
) -> optax.GradientTransformation:
    """The update of `tx` without its radial part where weights look scale-invariant.

    See `remove_radial` for the rule. The test uses the gradient that this transformation receives.

    Args:
      tx: makes the update to project.
      delta: threshold of the test; 0 never projects.
      eps: floor of the norms.
      axes: which axes are outputs; see `optzoo.primitives.axes`.

    Returns:
      A transformation with the state of `tx`; it needs the parameters.

    Raises:
      ValueError: for an argument out of range, or without parameters.
    """
    inner = optax.with_extra_args_support(tx)

    def update(updates, state, params=None, **extra_args):
        require_params(params, "project_radial")
        out, state = inner.update(updates, state, params, **extra_args)
        projected = map_with_axes(
            lambda spec, u, g, p: remove_radial(spec, u, g, p, delta=delta, eps=eps)[0],
            axes,
            out,
            updates,
            params,
        )
        return projected, state

    return optax.GradientTransformationExtraArgs(inner.init, update)


@transformation
def radial_decay(
    weight_decay: NonNegative,
    *,
    ratio: Fraction = 0.1,
    delta: NonNegative = 0.1,
    eps: NonNegative = 1e-8,
    axes: AxesLike = None,
) -> optax.GradientTransformation:
    """Weight decay that is weaker where `project_radial` projects, for a sum with its update.

    Rule:
      returns weight_decay·p, times ratio where p looks scale-invariant to the gradient

    Args:
      weight_decay: the decay, before the learning rate; the plain number 0 costs nothing.
      ratio: factor on scale-invariant weights, whose norm decay cannot change the function.
      delta, eps, axes: as in `project_radial`.

    Returns:
      A stateless transformation that needs the parameters.

    Raises:
      ValueError: for an argument out of range, or without parameters.
    """
    if is_zero(weight_decay):
        return optax.set_to_zero()

    def decay(spec, g, p):
        _, projected = remove_radial(spec, g, g, p, delta=delta, eps=eps)
        return weight_decay * jnp.where(projected, ratio, 1.0).astype(p.dtype) * p

    def update(updates, params):
        require_params(params, "radial_decay")
        return map_with_axes(decay, axes, updates, params)

    return optax.stateless(update)


@transformation
def remove_parallel(
    *, rescale: bool = True, mask: Mask = None, axes: AxesLike = None
) -> optax.GradientTransformation:
    """The gradient without its part along the weights (⊥Grad).

    Rule:
      q = g − ⟨p, g⟩/⟨p, p⟩·p a layer;   returns q·|g|/|q|, or q without rescale
      0 where |q| ≤ 4·ε·|g|, ε the dtype's rounding

    Args:
      rescale: give what is left the gradient's length.
      mask: which leaves to treat: a tree of booleans, or a function that makes one; None for all.
      axes: where a leaf stacks several layers, a spec with batch axes treats each alone.

    Returns:
      A stateless transformation that needs the parameters.

    Raises:
      ValueError: without parameters.

    Source: Prieto et al. 2025, arXiv 2501.04697, with pytorch_optimizer's guard.
    """

    def across(spec, g, p):
        # Numbers of at most 1, so that no square is too large or too small for its dtype.
        peaks = [layer_maximum(spec, x) for x in (g, p)]
        g, p = (x / jnp.where(peak > 0, peak, 1) for x, peak in zip((g, p), peaks, strict=True))
        # Sums of one order: where g is along p, both have the same rounding.
        along, energy = layer_sum(spec, (jnp.conj(p) * g).real), layer_energy(spec, p)
        q = g - along / jnp.where(energy > 0, energy, 1) * p
        size, left = root(layer_energy(spec, g)), root(layer_energy(spec, q))
        # What is left of a gradient along the weights is rounding, and no direction.
        some = left > 4 * jnp.finfo(g.dtype).eps * size
        length = size / jnp.where(some, left, 1) if rescale else jnp.ones_like(left)
        return peaks[0] * jnp.where(some, length, 0) * q

    def update(updates, params):
        require_params(params, "remove_parallel")
        return select(mask, map_with_axes(across, axes, updates, params), updates)

    return optax.stateless(update)


@transformation
def centralize(*, axes: AxesLike = None, conv_only: bool = False) -> optax.GradientTransformation:
    """Subtracts from each output unit's gradient its mean (gradient centralisation).

    Rule:
      g ← g − mean(g over the input axes), for leaves with at least two axes

    Args:
      axes: which axes are inputs; see `optzoo.primitives.axes`.
      conv_only: only kernels with more than one input axis besides a third (rank above 3).

    Returns:
      A stateless transformation.

    Source: Yong et al. 2020, arXiv 2004.01461.
    """

    def center(spec, g):
        if spec is None or (conv_only and g.ndim <= 3):
            return g
        return g - jnp.mean(g, axis=spec.input, keepdims=True)

    return optax.stateless(lambda updates, _: map_with_axes(center, axes, updates))


@transformation
def normalize(eps: Positive = 1e-8, *, times: Count = 1) -> optax.GradientTransformation:
    """Divides each leaf by its standard deviation (gradient normalisation of Ranger21).

    Rule:
      g ← g / (σ + eps) for leaves of more than two numbers, σ the deviation with n − 1 as divisor
      again, `times` in all: σ is then σ/(σ + eps), which needs no sum
      g stays where σ is 0

    Args:
      eps: added to the deviation.
      times: how often to do it.

    Returns:
      A stateless transformation.

    Raises:
      ValueError: for an argument out of range.
    """

    def scale(g):
        if g.size <= 2:
            return g
        deviation = jnp.std(g, ddof=1)
        factor = jnp.ones_like(deviation)
        for _ in range(times):
            factor = factor / (factor * deviation + eps)
        # Numbers that are all alike have no deviation to be measured by.
        return jnp.where(deviation == 0, 1, factor) * g

    return optax.stateless(lambda updates, _: jax.tree.map(scale, updates))


@transformation
def adaptive_clip(
    clip: Positive = 0.01,
    eps: Positive = 1e-3,
    *,
    grad_eps: Positive = 1e-6,
    axes: AxesLike = None,
) -> optax.GradientTransformation:
    """Clips each unit's gradient to a fraction of that unit's weight norm (AGC).

    Rule:
      limit = clip·max(|p|, eps) a unit;   where |g| > limit: g ← g·limit/max(|g|, grad_eps)

    Args:
      clip: the largest allowed ratio of norms.
      eps: floor of the weight norm.
      grad_eps: floor of the gradient norm.
      axes: a unit is everything that feeds one output; vectors and scalars are one unit.

    Returns:
      A stateless transformation that needs the parameters.

    Raises:
      ValueError: for an argument out of range, or without parameters.

    Source: Brock et al. 2021, arXiv 2102.06171, with Ranger21's constants.
    """

    def clipped(spec, g, p):
        limit = clip * jnp.maximum(unit_norm(spec, p), eps)
        norm = unit_norm(spec, g)
        return jnp.where(norm > limit, g * (limit / jnp.maximum(norm, grad_eps)), g)

    def update(updates, params):
        require_params(params, "adaptive_clip")
        return map_with_axes(clipped, axes, updates, params)

    return optax.stateless(update)
