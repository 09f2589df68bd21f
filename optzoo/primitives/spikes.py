"""Gradients that are suddenly too large: what cuts them, entry by entry or layer by layer."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.axes import AxesLike, map_with_axes
from optzoo.primitives.base import (
    Decay,
    DecayOrSchedule,
    NonNegative,
    Tree,
    at,
    real,
    transformation,
)
from optzoo.primitives.norms import layer_maximum, layer_norm, packed, unpacked


class ClipState(NamedTuple):
    """The state of what the clipped gradients go to, and how many there were."""

    steps: jax.Array
    inner: optax.OptState


@transformation
def clip_spikes(
    tx: optax.GradientTransformation,
    second_moment: Callable[[Any], Tree],
    *,
    threshold: NonNegative,
    active: Callable[[jax.Array], jax.Array],
    clip_unseen: bool = True,
) -> optax.GradientTransformation:
    """Clips entries that are large beside the second moment that `tx` keeps of them.

    Rule:
      c = √(threshold·v), v before this step;   g ← g where |g| ≤ c, else c·sign(g)

    Args:
      tx: what the clipped gradient goes to.
      second_moment: finds the tree v in the state of `tx`.
      threshold: the square of how many times the root of v an entry may be; 0 clips nothing.
      active: whether the step after so many finished ones clips.
      clip_unseen: clip entries whose v is 0, which then stay 0; False lets them pass.

    Returns:
      A transformation with `ClipState`.

    Raises:
      ValueError: for a negative threshold.
    """
    inner = optax.with_extra_args_support(tx)

    def init(params):
        return ClipState(jnp.zeros([], jnp.int32), inner.init(params))

    def update(updates, state, params=None, **extra_args):
        clips = active(state.steps) & (jnp.asarray(threshold) > 0)

        def clip(g, v):
            # All that is asked of v is its limit, so that v itself may be replaced in place.
            limit = jnp.sqrt(threshold * v)
            over = clips & (jnp.abs(g) > limit)
            if not clip_unseen:
                over &= limit > 0
            return jnp.where(over, limit * jnp.sign(g), g)

        clipped = jax.tree.map(clip, updates, second_moment(state.inner))
        out, inner_state = inner.update(clipped, state.inner, params, **extra_args)
        return out, ClipState(optax.safe_increment(state.steps), inner_state)

    return optax.GradientTransformationExtraArgs(init, update)


class PeakState(NamedTuple):
    """The average of each layer's largest entry, `packed`."""

    steps: jax.Array
    peak: jax.Array


@transformation
def clip_to_average_peak(
    decay: Decay = 0.999, *, axes: AxesLike = None
) -> optax.GradientTransformation:
    """Scales down entries beyond the usual largest entry of their layer (AdaClip).

    Rule:
      M = max|g|;   T ← decay·T + (1 − decay)·M;   limit = T/(1 − decay^t)
      g ← g·limit/M where |g| > limit

    Entries just above the limit end below those just under it: they are scaled, not cut.

    Args:
      decay: of the average, in [0, 1).
      axes: a spec with batch axes gives each stacked layer its own limit.

    Returns:
      A transformation with `PeakState`.

    Raises:
      ValueError: for a decay out of range.
    """

    def peaks(tree):
        return map_with_axes(layer_maximum, axes, tree)

    def init(params):
        layers = jax.eval_shape(lambda tree: packed(peaks(tree)), params)
        return PeakState(jnp.zeros([], jnp.int32), jnp.zeros(layers.shape, layers.dtype))

    def update(updates, state, params=None):
        del params
        count = optax.safe_increment(state.steps)
        largest = peaks(updates)
        peak = decay * state.peak + (1 - decay) * packed(largest)
        limit = optax.tree.bias_correction(peak, decay, real(count))

        def clip(g, m, limit):
            over = jnp.abs(g) > limit
            return jnp.where(over, g * (limit / jnp.where(m > 0, m, 1)), g)

        out = jax.tree.map(clip, updates, largest, unpacked(limit, largest))
        return out, PeakState(count, peak)

    return optax.GradientTransformation(init, update)


class NormAverageState(NamedTuple):
    """How many norms of each layer count, their mean and root mean square, all `packed`."""

    steps: jax.Array
    seen: jax.Array
    mean: jax.Array
    rms: jax.Array


@transformation
def stabilize_norm(
    decay: DecayOrSchedule,
    square_decay: Decay,
    eps: NonNegative = 1e-8,
    *,
    floor: NonNegative = 0.0,
    debias: bool = True,
    skip_unusable: bool = False,
    axes: AxesLike = None,
) -> optax.GradientTransformation:
    """Gives each layer's gradient the norm that its own history of norms suggests (AdaGN).

    Rule:
      r = |g|;   A ← decay·A + (1 − decay)·r;   B ← square_decay·B + (1 − square_decay)·r²
      g ← g·(A/(1 − decay^n)) / (√(B/(1 − square_decay^n)) + eps) / max(r, floor)

    Args:
      decay: of the norms, in [0, 1), or a schedule of the 1-based step.
      square_decay: of the squared norms, in [0, 1).
      eps: added to the root.
      floor: the smallest norm to divide by.
      debias: correct the averages for their start at zero.
      skip_unusable: let a layer's gradient whose norm is 0 or not finite pass as it is and leave
        it out of the averages; its n counts the others alone.
      axes: a spec with batch axes gives each stacked layer its own norm.

    Returns:
      A transformation with `NormAverageState`.

    Raises:
      ValueError: for an argument out of range.
    """

    def norms(tree):
        return map_with_axes(layer_norm, axes, tree)

    def init(params):
        layers = jax.eval_shape(lambda tree: packed(norms(tree)), params)
        seen = jnp.zeros(layers.shape, jnp.int32)
        zeros = [jnp.zeros(layers.shape, layers.dtype) for _ in range(2)]
        return NormAverageState(jnp.zeros([], jnp.int32), seen, *zeros)

    def update(updates, state, params=None):
        del params
        count = optax.safe_increment(state.steps)
        layers = norms(updates)
        r = packed(layers)
        b = jnp.asarray(at(decay, real(count)), r.dtype)
        usable = (r > 0) & jnp.isfinite(r) if skip_unusable else jnp.full(r.shape, True)
        seen = jnp.where(usable, optax.safe_increment(state.seen), state.seen)
        mean = jnp.where(usable, b * state.mean + (1 - b) * r, state.mean)
        # The root is kept and scaled, for squares may overflow where norms do not.
        top = jnp.maximum(state.rms, r)
        unit = jnp.where((top > 0) & jnp.isfinite(top), top, 1)
        square = square_decay * (state.rms / unit) ** 2 + (1 - square_decay) * (r / unit) ** 2
        rms = jnp.where(usable, unit * jnp.sqrt(square), state.rms)

        n = real(seen).astype(r.dtype)
        first, second = (1 - b**n, 1 - square_decay**n) if debias else (1, 1.0)
        usual = (mean / first) / (rms / jnp.sqrt(second) + eps)
        divisor = jnp.maximum(r, floor)
        scaled = usable & (divisor > 0)
        divisors = unpacked(jnp.where(scaled, divisor, 1), layers)
        factors = unpacked(jnp.where(scaled, usual, 1), layers)
        # In this order: usual/divisor may overflow.
        out = jax.tree.map(lambda g, d, f: g / d * f, updates, divisors, factors)
        return out, NormAverageState(count, seen, mean, rms)

    return optax.GradientTransformation(init, update)
