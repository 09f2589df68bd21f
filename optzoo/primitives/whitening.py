"""Whitening by a fitted preconditioner, and clipping what is whitened (PSGD)."""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.axes import AxesLike
from optzoo.primitives.base import (
    Decay,
    Fraction,
    NonNegative,
    Positive,
    Range,
    Schedule,
    Size,
    Tree,
    at,
    real,
    require,
    require_params,
    transformation,
)
from optzoo.primitives.fitting import (
    DIRECT,
    Bound,
    Fit,
    balanced,
    fitted,
    norm_bound,
    preconditioned,
)
from optzoo.primitives.kronecker import Layout, unit_size
from optzoo.primitives.moments import MomentState
from optzoo.primitives.stacks import automatic, map_equal

Skew = Annotated[float, Range("[0, inf)")]
When = Annotated[int | Schedule, Range("[1, inf)", schedule=True)]
"""Every so many steps, or a function of the number of finished steps that says whether."""


@transformation
def running_mean(decay: Decay) -> optax.GradientTransformation:
    """The mean of all gradients so far, which turns into an average that forgets.

    Rule:
      m ← b·m + (1 − b)·g, b = min((t − 1)/t, decay)

    Args:
      decay: in [0, 1).

    Returns:
      A transformation with `MomentState`.

    Raises:
      ValueError: for a decay out of range.
    """

    def update(updates, state, params=None):
        del params
        count = optax.safe_increment(state.steps)
        b = jnp.minimum(1 - 1 / real(count), decay)
        mean = jax.tree.map(
            lambda g, m: b.astype(g.dtype) * m + (1 - b).astype(g.dtype) * g, updates, state.moment
        )
        return mean, MomentState(count, mean)

    def init(params):
        return MomentState(jnp.zeros([], jnp.int32), optax.tree.zeros_like(params))

    return optax.GradientTransformation(init, update)


@transformation
def clip_amplitude(mean: Positive = 2.0, entry: Positive = 10.0) -> optax.GradientTransformation:
    """Shortens a leaf whose root mean square is too large, then cuts its entries.

    Args:
      mean: the largest root mean square.
      entry: the largest entry.

    Returns:
      A stateless transformation.

    Raises:
      ValueError: for an argument out of range.
    """

    def clipped(u):
        if not u.size:
            return u
        unit, size = unit_size(u)
        root = size * jnp.sqrt(jnp.mean(jnp.square(unit)))
        return jnp.clip(u * (mean / jnp.maximum(root, mean)), -entry, entry)

    return optax.stateless(lambda updates, _: jax.tree.map(clipped, updates))


class WhiteningState(NamedTuple):
    """The factors of each leaf and axis under its path, their smoothness, and what is whitened."""

    steps: jax.Array
    factors: Tree
    smoothness: Tree
    key: Any
    inner: optax.OptState


@transformation
def whiten(
    tx: optax.GradientTransformation,
    *,
    fit: Fit = "q0p5eq1p5",
    fit_rate: Fraction = 0.1,
    fit_decay: Decay = 0.9,
    fit_first: bool = True,
    fit_output: bool = False,
    newton: bool = False,
    damping: NonNegative = 1e-9,
    init_scale: Positive | None = None,
    every: When = 1,
    balance_every: When = 100,
    max_size: Size | None = None,
    max_skew: Skew = 1.0,
    bound: Bound | None = None,
    key: Any = None,
    axes: AxesLike = None,
) -> optax.GradientTransformation:
    """Multiplies what `tx` makes by a P that is fitted to the gradient: E[P·g·gᵀ·P] → I.

    See `optzoo.psgd` for the rule and the arguments.

    Args:
      tx: makes what is whitened: a momentum, or `gradient`.
      fit, fit_rate, fit_decay, fit_first: as for `optzoo.psgd`.
      fit_output: fit to the output of tx instead of the gradient.
      newton, damping, init_scale, every, balance_every: as for `optzoo.psgd`.
      max_size, max_skew, bound, key, axes: as for `optzoo.psgd`.

    Returns:
      A transformation with `WhiteningState`.

    Raises:
      ValueError: for an argument out of range, or from `update`, where newton finds neither probe
        and product nor value_fn.
    """
    inside = optax.with_extra_args_support(tx)
    layout = Layout(axes, lambda shape: tuple(size for size in shape if size != 1) or (1,), None)
    estimate = norm_bound() if bound is None else bound
    probed = newton or fit == "eq"

    def diagonal(size, numbers):
        return size <= 1 or (max_size and size > max_size) or size**2 > max_skew * numbers

    def start(params, scale):
        def one(view, dtype):
            (shape,) = view.shapes
            numbers = 1
            for size in shape:
                numbers *= size
            share = scale.astype(dtype) ** ((2 if fit in DIRECT else 1) / len(shape))
            for size in shape:
                if diagonal(size, numbers):
                    yield jnp.broadcast_to(share, (view.count, size))
                else:
                    eye = share * jnp.eye(size, dtype=dtype)
                    yield jnp.broadcast_to(eye, (view.count, size, size))

        leaves = zip(layout.tensors(params), jax.tree.leaves(params), strict=True)
        return layout.pack([tuple(one(view, leaf.dtype)) for view, leaf in leaves], params)

    def init(params):
        factors = start(params, jnp.asarray(1.0 if init_scale is None else init_scale, float))
        smoothness = jax.tree.map(lambda q: jnp.zeros(q.shape[:1], q.dtype), factors)
        steps = jnp.zeros([], jnp.int32)
        given = jax.random.key(key or 0) if isinstance(key, int | None) else key
        drawn = probed or key is not None
        return WhiteningState(
            steps, factors, smoothness, given if drawn else (), inside.init(params)
        )

    def whitened(factors, tree):
        parts = zip(layout.unpack(factors, tree), layout.split(tree), strict=True)
        return layout.join(map_equal(lambda q, x: preconditioned(fit, q, x), [*parts]), tree)

    def refit(steps, factors, smoothness, h, v):
        kept = zip(
            layout.unpack(factors, h),
            layout.unpack(smoothness, h),
            layout.split(h),
            layout.split(v) if probed else [()] * len(layout.split(h)),
            strict=True,
        )
        due = _due(balance_every, steps)

        def one(q, smooth, h, v):
            probe = v if probed else None
            q, smooth = fitted(fit, q, smooth, h, probe, fit_rate, fit_decay, estimate)
            even = balanced(q)
            return tuple(jnp.where(due, x, y) for x, y in zip(even, q, strict=True)), smooth

        made = map_equal(one, [*kept])
        return layout.pack([q for q, _ in made], h), layout.pack([s for _, s in made], h)

    def fit_now(steps, factors, smoothness, h, v):
        return jax.lax.cond(
            _due(every, steps),
            lambda *trees: refit(steps, *trees),
            lambda factors, smoothness, h, v: (factors, smoothness),
            *(factors, smoothness, h, v),
        )

    def pair(updates, x, state, params, extra_args):
        """What to fit, and the probe."""
        now, later = jax.random.split(state.key) if probed or key is not None else ((), ())
        v = extra_args.get("probe")
        if v is None and (probed or key is not None):
            v = optax.tree.random_like(now, updates, jax.random.normal)
        if newton:
            h = extra_args.get("product")
            if h is None:
                require_params(params, "psgd")
                value_fn = require(extra_args, "value_fn", "psgd")
                h = jax.jvp(jax.grad(value_fn), (params,), (v,))[1]
            return h, v, later
        if v is None:
            return x, x, later

        def damped(x, v):
            return x + (damping + jnp.finfo(x.dtype).eps * jnp.abs(x)) * v

        return jax.tree.map(damped, x, v), v, later

    def update(updates, state, params=None, **extra_args):
        moment, inner = inside.update(updates, state.inner, params, **extra_args)
        x = moment if fit_output else updates
        h, v, later = pair(updates, x, state, params, extra_args)
        factors = state.factors
        if init_scale is None:
            scale = _first_scale(h if newton else x, v if newton else None, damping)
            first = start(updates, scale)
            factors = jax.tree.map(
                lambda new, old: jnp.where(state.steps == 0, new, old), first, factors
            )

        kept = factors, state.smoothness
        new, smoothness = automatic(fit_now, kept, state.steps, *kept, h, v)
        used = new if fit_first else factors
        out = automatic(whitened, moment, used, moment)
        steps = optax.safe_increment(state.steps)
        return out, WhiteningState(steps, new, smoothness, later, inner)

    return optax.GradientTransformationExtraArgs(init, update)


def _due(when: When, steps: jax.Array) -> jax.Array:
    if callable(when):
        return jnp.asarray(at(when, steps), bool)
    return (steps + 1) % when == 0


def _first_scale(h: Tree, v: Tree | None, damping) -> jax.Array:
    """(max over leaves of mean h⁴ + damping⁴)^(−1/8), times (mean v²)^(1/4), over any range."""
    leaves = [leaf for leaf in jax.tree.leaves(h) if leaf.size]
    if not leaves:
        return jnp.ones([], float)
    dtype = jnp.result_type(*leaves)
    size = jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in leaves]).max()
    size = jnp.maximum(size, jnp.asarray(damping, dtype))
    size = jnp.where(size == 0, 1, size)
    fourth = jnp.stack([jnp.mean((leaf / size) ** 4) for leaf in leaves]).max()
    scale = (fourth + (damping / size) ** 4) ** (-1 / 8) / jnp.sqrt(size)
    if v is not None:
        probes = jax.tree.leaves(v)
        mean = sum(jnp.sum(jnp.square(p)) for p in probes) / sum(p.size for p in probes)
        scale = scale * mean ** (1 / 4)
    return jnp.where(jnp.isfinite(scale), scale, 1)
