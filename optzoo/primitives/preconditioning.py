"""What keeps something of each matrix: Gram matrix, leading directions, sizes of outputs."""

import math
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.axes import AxesLike
from optzoo.primitives.base import (
    Decay,
    DType,
    Fraction,
    Key,
    NonNegative,
    Range,
    Tree,
    cast_like,
    random_key,
    transformation,
)
from optzoo.primitives.norms import packed, root, unpacked
from optzoo.primitives.orthogonal import Orthogonalizer, on_stacks
from optzoo.primitives.roots import Root, Side, gram, inverse_root, on_inputs
from optzoo.primitives.stacks import matrix_shapes, side_by_side, update_stacks


class GramState(NamedTuple):
    """The state of what is preconditioned, and the Gram matrix of each matrix, `packed` side by
    side."""

    inner: optax.OptState
    gram: jax.Array


@transformation
def precondition(
    tx: optax.GradientTransformation,
    decay: Decay | None = 0.8,
    *,
    inverse: Root | None = None,
    side: Side = "short",
    axes: AxesLike = None,
) -> optax.GradientTransformation:
    """One-sided preconditioning of what `tx` makes of the gradient.

    Rule, for a matrix with the gradient g and u from `tx`:
      K = g·gᵀ or gᵀ·g, on one side;   V ← decay·V + (1 − decay)·K;   R = V^(−1/2)
      returns R·u or u·R

    Matrices of equal shape go through one stacked call, spread over a mesh, as in `orthogonalize`.

    Args:
      tx: makes what is preconditioned: a momentum, or `gradient`.
      decay: of the average of Gram matrices, in [0, 1); None for their sum.
      inverse: maps a stack of V to one of R; `inverse_root()` by default.
      side: "in", "out" or the shorter; of squares, the inputs.
      axes: how leaves are matrices; see `optzoo.primitives.axes`. Leaves that are none get `tx`.

    Returns:
      A transformation with `GramState`.

    Raises:
      ValueError: for an argument out of range.
    """
    inner = optax.with_extra_args_support(tx)
    to_inverse = inverse_root() if inverse is None else inverse

    def shapes(tree):
        def square(fan_in, fan_out):
            return (fan_in if on_inputs(side, fan_in, fan_out) else fan_out,) * 2

        return matrix_shapes(square, axes, tree)

    def init(params):
        return GramState(inner.init(params), _packed_zeros(shapes(params)))

    def applied(u, g, v):
        k = gram(g, side)
        v = v + k if decay is None else decay * v + (1 - decay) * k
        r = to_inverse(v)
        return (r @ u if on_inputs(side, *u.shape[-2:]) else u @ r), g, v

    def update(updates, state, params=None, **extra_args):
        made, inner_state = inner.update(updates, state.inner, params, **extra_args)
        order = side_by_side(axes, updates)
        kept = unpacked(state.gram, shapes(updates), order)
        (out, _), (new,) = update_stacks(applied, axes, (made, updates), (kept,))
        return out, GramState(inner_state, packed(new, order))

    return optax.GradientTransformationExtraArgs(init, update)


class EvenState(NamedTuple):
    """The second moment of each output of each orthogonalised matrix, `packed` side by side."""

    energy: jax.Array


@transformation
def orthogonalize_evenly(
    decay: Decay,
    eps: NonNegative = 1e-10,
    *,
    orthogonalizer: Orthogonalizer | None = None,
    axes: AxesLike = None,
) -> optax.GradientTransformation:
    """`orthogonalize`, then the outputs of each matrix brought to one size over time (NorMuon).

    Rule, for the orthogonalised matrix o and every output's mean n of o² over what feeds it:
      v ← decay·v + (1 − decay)·n;   w = o/(√v + eps)
      returns |o|·w/(|w| + eps)

    It is `graft(gradient, o / unit_rms(decay))` after `orthogonalize`, in the same stacked call.

    Args:
      decay: of the second moment, in [0, 1).
      eps: added to the root and to the norm.
      orthogonalizer: maps a stack of matrices (k, m, n) to one of the same shape;
        `newton_schulz()` by default.
      axes: how leaves are matrices; see `optzoo.primitives.axes`. Leaves that are none pass.

    Returns:
      A transformation with `EvenState`.

    Raises:
      ValueError: for an argument out of range; from `update`, if the orthogonaliser changes the
        shape.
    """
    method = on_stacks(orthogonalizer)

    def shapes(tree):
        return matrix_shapes(lambda _, fan_out: (1, fan_out), axes, tree)

    def init(params):
        return EvenState(_packed_zeros(shapes(params)))

    def evened(u, v):
        o = method(u)
        squares = jnp.square(o)
        v = decay * v + (1 - decay) * jnp.mean(squares, axis=-2, keepdims=True)
        divisor = jnp.sqrt(v) + eps
        columns = jnp.sum(squares, axis=-2, keepdims=True)
        # |w| follows from the columns' norms, which saves a pass over the matrix.
        safe = jnp.where(divisor == 0, 1, divisor)
        both = jnp.concatenate([columns, columns / jnp.square(safe)], axis=-2)
        length, width = jnp.split(root(jnp.sum(both, axis=-1, keepdims=True)), 2, axis=-2)
        width = width + eps
        factor = length / (safe * jnp.where(width == 0, 1, width))
        return o * factor, v

    def update(updates, state, params=None):
        del params
        order = side_by_side(axes, updates)
        kept = unpacked(state.energy, shapes(updates), order)
        (out,), (energy,) = update_stacks(evened, axes, (updates,), (kept,))
        return out, EvenState(packed(energy, order))

    return optax.GradientTransformation(init, update)


class LowRankState(NamedTuple):
    """What is still to be applied of each gradient, and the basis of each matrix, `packed`."""

    momentum: Tree
    basis: jax.Array


@transformation
def power_iteration(
    rank: Annotated[int, Range("[1, inf)")] | None = None,
    *,
    rank_fraction: Annotated[float, Range("(0, 1]")] = 0.5,
    momentum: Fraction = 0.95,
    power_iters: Annotated[int, Range("[1, inf)")] = 1,
    eps: NonNegative = 1e-8,
    longer_first: bool = True,
    key: Key = 0,
    axes: AxesLike = None,
    mu_dtype: DType = None,
) -> optax.GradientTransformation:
    """A nearly orthonormal update of low rank, with what it misses kept for later steps (Dion).

    Rule, for a matrix with its longer side first:
      M ← M + g;   P = orthonormal basis of M·Q;   R = Mᵀ·P
      M ← M − (1 − momentum)·P·Rᵀ;   Q ← R with columns of norm |column|/(|column| + eps)
      returns P·Qᵀ; where M is zero, P = 0 and Q stays

    Matrices of equal shape go through one stacked call, spread over a mesh, as in `orthogonalize`.

    Args:
      rank: columns of P and Q, at most the shorter side; None for rank_fraction.
      rank_fraction: the rank over the shorter side, rounded up.
      momentum: how much of what is applied stays in M.
      power_iters: how often P and R are found, each time from the last R.
      eps: added to the norms of Q's columns.
      longer_first: P has the longer side's rows (of squares, the outputs'); False: always the
        outputs'.
      key: a `jax.random` key, or an integer seed, of the normal start of Q.
      axes: how leaves are matrices; see `optzoo.primitives.axes`. Leaves that are none pass.
      mu_dtype: dtype of M; float32 or wider by default.

    Returns:
      A transformation with `LowRankState`.

    Raises:
      ValueError: for an argument out of range.
    """

    def inputs_first(fan_in, fan_out):
        return longer_first and fan_in > fan_out

    def shapes(tree):
        def basis(fan_in, fan_out):
            wanted = math.ceil(rank_fraction * min(fan_in, fan_out)) if rank is None else rank
            rows = fan_out if inputs_first(fan_in, fan_out) else fan_in
            return rows, min(wanted, fan_in, fan_out)

        return matrix_shapes(basis, axes, tree)

    def init(params):
        start = random_key(key)

        # The same draw for every matrix: stacked layers start as separate ones do.
        def drawn(leaf):
            if leaf.ndim < 2:
                return jnp.zeros(leaf.shape, leaf.dtype)
            normal = jax.random.normal(start, leaf.shape[-2:], leaf.dtype)
            return jnp.broadcast_to(normal, leaf.shape)

        basis = packed(jax.tree.map(drawn, shapes(params)))
        return LowRankState(optax.tree.zeros_like(params, dtype=mu_dtype), basis)

    def iterated(m, _, q):
        turned = not inputs_first(*m.shape[-2:])

        def turn(x):
            return jnp.swapaxes(x, -1, -2) if turned else x

        m, r = turn(m), q
        for _ in range(power_iters):
            p = jnp.linalg.qr(m @ r)[0]
            r = jnp.swapaxes(m, -1, -2) @ p
        still = jnp.all(m == 0, axis=(-2, -1), keepdims=True)
        p, r = jnp.where(still, 0, p), jnp.where(still, q, r)
        applied = (1 - momentum) * (p @ jnp.swapaxes(r, -1, -2))
        q = r / (_column_norms(r) + eps)
        return turn(applied), turn(p @ jnp.swapaxes(q, -1, -2)), q

    def update(updates, state, params=None):
        del params
        total = optax.tree.add(cast_like(state.momentum, updates), updates)
        kept = unpacked(state.basis, shapes(updates))
        (applied, out), (basis,) = update_stacks(iterated, axes, (total, updates), (kept,))
        # Here and not in the stack, so that M lies where the parameters lie.
        held = optax.tree.sub(total, applied)
        return out, LowRankState(optax.tree.cast(held, mu_dtype), packed(basis))

    return optax.GradientTransformation(init, update)


def _packed_zeros(shapes: Tree) -> jax.Array:
    return packed(jax.tree.map(lambda kept: jnp.zeros(kept.shape, kept.dtype), shapes))


def _column_norms(x: jax.Array) -> jax.Array:
    # A basis that has once become zero stays so, which an overflowing square must not bring about.
    largest = jnp.max(jnp.abs(x), axis=-2, keepdims=True, initial=0.0)
    safe = jnp.where(largest == 0, 1, largest)
    return largest * root(jnp.sum(jnp.square(x / safe), axis=-2, keepdims=True))
