"""Whitening by a fitted preconditioner, and clipping what is whitened (PSGD)."""

from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.axes import AxesLike
from optzoo.primitives.base import (
    Decay,
    Fraction,
    Key,
    NonNegative,
    Positive,
    Range,
    Schedule,
    Size,
    Tree,
    at,
    branch,
    common_dtype,
    random_key,
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
    rate_over,
    smoothed,
)
from optzoo.primitives.kronecker import Layout, require_real, unit_size
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
def clip_amplitude(
    mean: Positive = 2.0, entry: Positive = 10.0, *, whole: bool = False
) -> optax.GradientTransformation:
    """Shortens a leaf whose root mean square is too large, then cuts its entries.

    Args:
      mean: the largest root mean square.
      entry: the largest entry.
      whole: the root mean square is that of all leaves together.

    Returns:
      A stateless transformation.

    Raises:
      ValueError: for an argument out of range.
    """

    def roots(updates):
        squares, sizes = [], []
        for u in jax.tree.leaves(updates):
            unit, largest = unit_size(u)
            squares.append((jnp.sum(jnp.square(unit)), largest))
            sizes.append(max(u.size, 1))
        each = [
            largest * jnp.sqrt(total / size)
            for (total, largest), size in zip(squares, sizes, strict=True)
        ]
        if not whole or not each:
            return each
        parts = jnp.stack(each) * jnp.sqrt(jnp.asarray(sizes, each[0].dtype) / sum(sizes))
        unit, largest = unit_size(parts)
        return [largest * jnp.sqrt(jnp.sum(jnp.square(unit)))] * len(each)

    def update(updates, _):
        leaves, structure = jax.tree.flatten(updates)
        clipped = [
            jnp.clip(u * (mean / jnp.maximum(root.astype(u.dtype), mean)), -entry, entry)
            for u, root in zip(leaves, roots(updates), strict=True)
        ]
        return structure.unflatten(clipped)

    return optax.stateless(update)


class WhiteningState(NamedTuple):
    """The factors of each leaf and axis under its path, their smoothness, and what is whitened."""

    steps: jax.Array
    factors: Tree
    smoothness: Tree
    key: jax.Array | tuple[()]
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
    key: Key | None = None,
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
      ValueError: for an argument out of range; from `init`, for complex parameters; or from
        `update`, where newton finds neither probe and product nor value_fn.
    """
    inside = optax.with_extra_args_support(tx)
    layout = Layout(axes, lambda shape: tuple(size for size in shape if size != 1) or (1,), None)
    estimate = norm_bound() if bound is None else bound
    probed = newton or fit == "eq"
    pair = _pairs(newton, damping)

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
        require_real(params, "whiten")
        factors = start(params, jnp.asarray(1.0 if init_scale is None else init_scale, float))
        smoothness = jax.tree.map(lambda q: jnp.zeros(q.shape[:1], q.dtype), factors)
        steps = jnp.zeros([], jnp.int32)
        drawn = random_key(0 if key is None else key) if probed or key is not None else ()
        return WhiteningState(steps, factors, smoothness, drawn, inside.init(params))

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
        return branch(
            _due(every, steps).astype(jnp.int32),
            [
                lambda factors, smoothness, h, v: (factors, smoothness),
                lambda *trees: refit(steps, *trees),
            ],
            *(factors, smoothness, h, v),
        )

    def update(updates, state, params=None, **extra_args):
        moment, inner = inside.update(updates, state.inner, params, **extra_args)
        x = moment if fit_output else updates
        h, v, later = pair(x, state.key, params, extra_args)
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


def _pairs(newton: bool, damping: NonNegative):
    """A function that finds what to fit, and the probe or None, and splits the key, () for none."""

    def pair(x, key, params, extra_args):
        v = extra_args.get("probe")
        if not isinstance(key, tuple):
            key, now = jax.random.split(key)
            v = optax.tree.random_like(now, x, jax.random.normal) if v is None else v
        if newton:
            h = extra_args.get("product")
            if h is None:
                require_params(params, "psgd")
                value_fn = require(extra_args, "value_fn", "psgd")
                h = jax.jvp(jax.grad(value_fn), (params,), (v,))[1]
            return h, v, key
        if v is None:
            return x, x, key

        def damped(x, v):
            return x + (damping + jnp.finfo(x.dtype).eps * jnp.abs(x)) * v

        return jax.tree.map(damped, x, v), v, key

    return pair


class LowRankWhiteningState(NamedTuple):
    """U and V with a last axis of the rank, d, the smoothness of each, and what is whitened."""

    steps: jax.Array
    u: Tree
    v: Tree
    d: Tree
    smoothness: tuple[jax.Array, jax.Array, jax.Array]
    key: jax.Array
    inner: optax.OptState


@transformation
def whiten_low_rank(
    tx: optax.GradientTransformation,
    rank: Size = 10,
    *,
    fit_rate: Fraction = 0.1,
    fit_decay: Decay = 0.9,
    fit_first: bool = True,
    fit_output: bool = False,
    newton: bool = False,
    damping: NonNegative = 1e-9,
    init_scale: Positive | None = None,
    every: When = 1,
    turns: Schedule | None = None,
    key: Key | None = None,
) -> optax.GradientTransformation:
    """`whiten` with one P for all leaves: diagonal but for a low rank.

    Rule, with all numbers of a tree in one vector:
      P = Qᵀ·Q, Q = (I + U·Vᵀ)·diag(d);   a = Q·h, b = Q^(−T)·probe
      each fit moves d, and U or V in turn, along the relative gradient of hᵀPh + probeᵀP⁻¹probe

    Args:
      tx: makes what is whitened: a momentum, or `gradient`.
      rank: columns of U and V.
      fit_rate, fit_decay, fit_first: as for `optzoo.psgd`.
      fit_output: fit to the output of tx instead of the gradient.
      newton, damping, init_scale, every: as for `optzoo.psgd`.
      turns: a function of the number of finished steps that says whether U is moved; by default
        every other step.
      key: a `jax.random` key, or an integer seed, of the start of U and V and of the probes; 0 by
        default.

    Returns:
      A transformation with `LowRankWhiteningState`.

    Raises:
      ValueError: for an argument out of range, or from `update`, where newton finds neither probe
        and product nor value_fn.

    Source: Li 2024, arXiv 2402.11858; lixilinx/psgd_torch, LRAWhiten.
    """
    inside = optax.with_extra_args_support(tx)
    pair = _pairs(newton, damping)

    def init(params):
        key_u, key_v, later = jax.random.split(random_key(0 if key is None else key), 3)

        def drawn(key):
            wide = jax.tree.map(lambda p: jnp.zeros((*p.shape, rank), p.dtype), params)
            start = optax.tree.random_like(key, wide, jax.random.normal)
            total = _inner(start, start, 0) if jax.tree.leaves(start) else jnp.ones([])
            return jax.tree.map(lambda x: x * jnp.sqrt(0.1 / total).astype(x.dtype), start)

        scale = 1.0 if init_scale is None else init_scale
        d = jax.tree.map(lambda p: jnp.full_like(p, scale), params)
        first, *others = (jnp.zeros([], common_dtype(params)) for _ in range(3))
        smoothness = (first, others[0], others[1])
        return LowRankWhiteningState(
            jnp.zeros([], jnp.int32), drawn(key_u), drawn(key_v), d, smoothness, later,
            inside.init(params),
        )  # fmt: skip

    def refit(steps, u, v, d, smoothness, h, probe):
        uu, vv = _inner(u, u, 1), _inner(v, v, 1)
        rho = (jnp.trace(uu) / jnp.trace(vv)) ** (1 / 4)
        uu, vv = uu / rho**2, vv * rho**2
        e = 0.1 * (uu - vv) / (jnp.trace(uu) + jnp.trace(vv))
        u = _times(_scaled(u, 1 / rho), jnp.eye(rank, dtype=e.dtype) - e + e @ e / 2)
        v = _times(_scaled(v, rho), jnp.eye(rank, dtype=e.dtype) + e + e @ e / 2)
        a = _plus(u, v, _product(d, h))
        ph = _product(d, _plus(v, u, a))
        core = jnp.eye(rank, dtype=e.dtype) + _inner(v, u, 1)
        b = _quotient(probe, d)
        b = _less(b, v, jnp.linalg.solve(core.T, _inner(u, b, 1)))
        pv = _quotient(_less(b, u, jnp.linalg.solve(core, _inner(v, b, 1))), d)
        one, other = _product(ph, h), _product(probe, pv)
        new_d = smoothed(smoothness[0], _largest(one) + _largest(other), fit_decay)
        step = rate_over(fit_rate, new_d)
        moved_d = jax.tree.map(
            lambda d, x, y: d - step.astype(d.dtype) * (x - y) * d, d, one, other
        )

        def moved(mine, theirs, old, by_core):
            """U or V after its step; its relative gradient stands on the other's side."""
            left = _inner(a, theirs, 1), _inner(b, theirs, 1)
            sizes = [jnp.sqrt(_inner(x, x, 0)) for x in (a, b)]
            spans = [
                jnp.sqrt(jnp.maximum(row @ _inner(theirs, theirs, 1) @ row, 0)) for row in left
            ]
            now = smoothed(old, sizes[0] * spans[0] + sizes[1] * spans[1], fit_decay)
            rate = rate_over(fit_rate, now)

            def leaf(x, a, b):
                rows = [(row @ core if by_core else row).astype(x.dtype) for row in left]
                ends = (a, b) if by_core else (a + x @ rows[0], b + x @ rows[1])
                turn = jnp.tensordot(ends[0], rows[0], 0) - jnp.tensordot(ends[1], rows[1], 0)
                return x - rate.astype(x.dtype) * turn

            return jax.tree.map(leaf, mine, a, b), now

        turn = (steps % 2 == 0) if turns is None else jnp.asarray(at(turns, steps), bool)
        moved_u, new_u = moved(u, v, smoothness[1], True)
        moved_v, new_v = moved(v, u, smoothness[2], False)

        def choose(use, new, old):
            return jax.tree.map(lambda x, y: jnp.where(use, x, y), new, old)

        u, v = choose(turn, moved_u, u), choose(turn, v, moved_v)
        new_u, new_v = choose(turn, (new_u, smoothness[2]), (smoothness[1], new_v))
        return u, v, moved_d, (new_d, new_u, new_v)

    def fit_now(steps, u, v, d, smoothness, h, probe):
        def fit(u, v, d, smoothness):
            new = refit(steps, u, v, d, smoothness, h, probe)
            fine = jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(new)]).all()
            return jax.tree.map(lambda x, y: jnp.where(fine, x, y), new, (u, v, d, smoothness))

        due = _due(every, steps).astype(jnp.int32)
        return branch(due, [lambda *kept: kept, fit], u, v, d, smoothness)

    def whitened(u, v, d, x):
        return _product(d, _plus(v, u, _plus(u, v, _product(d, x))))

    def update(updates, state, params=None, **extra_args):
        moment, inner = inside.update(updates, state.inner, params, **extra_args)
        if not jax.tree.leaves(updates):
            return moment, state._replace(inner=inner)
        x = moment if fit_output else updates
        h, probe, later = pair(x, state.key, params, extra_args)
        d = state.d
        if init_scale is None:
            scale = _first_scale(h if newton else x, probe if newton else None, damping, whole=True)
            d = jax.tree.map(lambda d: jnp.where(state.steps == 0, scale.astype(d.dtype), d), d)
        kept = state.u, state.v, d, state.smoothness
        new = automatic(fit_now, kept, state.steps, *kept, h, probe)
        used = new if fit_first else kept
        out = automatic(whitened, moment, *used[:3], moment)
        steps = optax.safe_increment(state.steps)
        return out, LowRankWhiteningState(steps, *new, later, inner)

    return optax.GradientTransformationExtraArgs(init, update)


def _inner(x: Tree, y: Tree, ranks: int) -> jax.Array:
    """xᵀy summed over all leaves; the last axis of what has a rank stays."""

    def one(x, y):
        shared = min(x.ndim, y.ndim) - (ranks if x.ndim == y.ndim else 0)
        axes = tuple(range(shared))
        return jnp.tensordot(x, y, (axes, axes))

    return jax.tree.reduce(jnp.add, jax.tree.map(one, x, y))


def _times(x: Tree, matrix: jax.Array) -> Tree:
    return jax.tree.map(lambda leaf: leaf @ matrix.astype(leaf.dtype), x)


def _scaled(x: Tree, by: jax.Array) -> Tree:
    return jax.tree.map(lambda leaf: leaf * by.astype(leaf.dtype), x)


def _product(x: Tree, y: Tree) -> Tree:
    return jax.tree.map(jnp.multiply, x, y)


def _quotient(x: Tree, y: Tree) -> Tree:
    return jax.tree.map(jnp.divide, x, y)


def _plus(u: Tree, v: Tree, x: Tree) -> Tree:
    """(I + U·Vᵀ)·x."""
    return _less(x, u, -_inner(v, x, 1))


def _less(x: Tree, u: Tree, row: jax.Array) -> Tree:
    """x − U·row."""
    return jax.tree.map(lambda x, u: x - u @ row.astype(x.dtype), x, u)


def _largest(x: Tree) -> jax.Array:
    tops = [jnp.max(jnp.abs(leaf), initial=0.0) for leaf in jax.tree.leaves(x)]
    return jnp.stack(tops).max()


def _due(when: When, steps: jax.Array) -> jax.Array:
    if callable(when):
        return jnp.asarray(at(when, steps), bool)
    return (steps + 1) % when == 0


def _first_scale(h: Tree, v: Tree | None, damping, *, whole: bool = False) -> jax.Array:
    """(max over leaves of mean h⁴ + damping⁴)^(−1/8), times (mean v²)^(1/4), over any range.

    With `whole` the mean is one over all leaves.
    """
    leaves = [leaf for leaf in jax.tree.leaves(h) if leaf.size]
    if not leaves:
        return jnp.ones([], float)
    dtype = jnp.result_type(*leaves)
    size = jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in leaves]).max()
    size = jnp.maximum(size, jnp.asarray(damping, dtype))
    size = jnp.where(size == 0, 1, size)
    fourths = jnp.stack([jnp.sum((leaf / size) ** 4) for leaf in leaves])
    sizes = jnp.asarray([leaf.size for leaf in leaves], fourths.dtype)
    fourth = fourths.sum() / sizes.sum() if whole else jnp.max(fourths / sizes)
    scale = (fourth + (damping / size) ** 4) ** (-1 / 8) / jnp.sqrt(size)
    if v is not None:
        probes = jax.tree.leaves(v)
        mean = sum(jnp.sum(jnp.square(p)) for p in probes) / sum(p.size for p in probes)
        scale = scale * mean ** (1 / 4)
    return jnp.where(jnp.isfinite(scale), scale, 1)
