"""Rules in another basis: one that turns with the gradients.

The wrapped rule sees a leaf's numbers along directions in which they are hardly correlated.
Look here for element-wise rules on matrices, whose single numbers mean little by themselves.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.axes import AxesLike
from optzoo.primitives.base import Decay, Size, Tree, branch, transformation
from optzoo.primitives.kronecker import (
    Layout,
    Merge,
    is_kept,
    kept_finite,
    on_axis,
    renewal_shifts,
    require_real,
    second_moment,
    unit_size,
)
from optzoo.primitives.stacks import after, automatic, is_float, map_equal
from optzoo.registry import Trait, wrapper


class BasisState(NamedTuple):
    """Each axis's average second moment and basis, and the rule inside.

    `factors` and `basis` hold for each leaf, under its path, a tuple over its blocks of tuples
    over their axes, empty for an axis that stays as it is; their matrices have a leading axis of
    stacked layers.
    `turns` says of each array of `inner`, in one vector, whether it changes with the gradient's
    sign: then it is rotated with the basis, else only reordered.
    """

    steps: jax.Array
    factors: Tree
    basis: Tree
    turns: jax.Array
    inner: optax.OptState


@wrapper(
    title="SOAP: Improving and Stabilizing Shampoo using Adam",
    authors=(
        "Nikhil Vyas",
        "Depen Morwani",
        "Rosie Zhao",
        "Mujin Kwun",
        "Itai Shapira",
        "David Brandfonbrener",
        "Lucas Janson",
        "Sham Kakade",
    ),
    year=2024,
    arxiv="2409.11321",
    code="https://github.com/nikhilvyas/SOAP",
    traits=(Trait.SHAPED,),
)
@transformation
def in_basis(
    tx: optax.GradientTransformation,
    *,
    decay: Decay = 0.95,
    every: Size = 10,
    max_size: Size = 10_000,
    vectors: bool = False,
    merge: Merge | None = None,
    block: Size | None = None,
    stagger: bool = False,
    axes: AxesLike = None,
) -> optax.GradientTransformation:
    """Runs an element-wise rule in the eigenbasis of each axis's second moment, as SOAP does.

    Rule:
      G ← decay·G + (1 − decay)·F for each axis of a leaf, F being g·gᵀ over all other axes
      u = what tx makes of g and p, both turned by Qᵀ on every axis, turned back by Q
      Q ← the orthogonal factor of G·Q after each period, its columns in the order of QᵀGQ

    The first step moves nothing: it finds Q, the eigenvectors of G, the largest first. A step is
    made before its own gradient enters G.

    What tx keeps is turned along with a new basis where it changes with the gradient's sign, as a
    momentum does, and put into the new order where it does not, as a second moment. A second
    moment belongs to directions that hardly change; a momentum would lose its meaning.

    When to use:
      Around any element-wise rule, for matrices: `in_basis(optax.adam(3e-3))` is SOAP without its
      decay. Not around rules that look at matrices themselves.

    Args:
      tx: the rule. It is tried out once in `init`, on leaves of one number. What `update` gets
        beyond gradients and parameters is turned, too: functions of parameters, other gradients.
      decay: of the averages Gᵢ, in [0, 1).
      every: steps in a period, from one basis to the next.
      max_size: an axis longer than this keeps its identity: one side of an embedding, say.
      vectors: give leaves of one axis a basis, too.
      merge: maps the shape of a leaf to one with fewer axes; `merge_axes(limit)`, or any callable.
      block: cut longer axes into pieces with a basis each.
      stagger: spread the renewals of a period over its steps, by their cost; False: all at once.
      axes: which axes of a leaf stack separate layers; see `optzoo.primitives.axes`. All others
        get a basis.

    Returns:
      A transformation with `BasisState`.

    Raises:
      ValueError: for an argument out of range; from `init`, for complex parameters.

    References:
      Vyas et al. 2024, arXiv 2409.11321; official code nikhilvyas/SOAP. It finds bases in float32
      whatever the dtype; here they are as wide as the parameters, and float32 at least. A factor
      that a gradient would make infinite or NaN stays as it was.
    """
    inside = optax.with_extra_args_support(tx)
    layout = Layout(axes, merge, block)

    def start(view):
        whole = vectors or view.rank > 1
        for shape in view.shapes:
            yield tuple(
                (view.count, size, size) if whole and 1 < size <= max_size else () for size in shape
            )

    def init(params):
        require_real(params, "in_basis")

        def zeros():
            dtypes = [leaf.dtype for leaf in jax.tree.leaves(params)]
            blocks = [
                tuple(jnp.zeros(shape, dtype) if shape else () for shape in shapes)
                for view, dtype in zip(layout.tensors(params), dtypes, strict=True)
                for shapes in start(view)
            ]
            return layout.pack(blocks, params)

        return BasisState(
            jnp.zeros([], jnp.int32),
            zeros(),
            zeros(),
            _turning(inside, params),
            inside.init(params),
        )

    def turned(tree, basis, *, back):
        def turn(x, matrices):
            for axis, q in enumerate(matrices):
                if is_kept(q):
                    x = on_axis(q if back else q.T, x, axis)
            return x

        def all_blocks(tree, basis):
            blocks = zip(layout.split(tree), layout.unpack(basis, tree), strict=True)
            return layout.join(map_equal(turn, [*blocks]), tree)

        return automatic(all_blocks, tree, tree, basis)

    def averaged(updates, factors):
        def average(x, matrices):
            return tuple(
                kept_finite(decay * g + (1 - decay) * second_moment(x, axis), g)
                if is_kept(g)
                else ()
                for axis, g in enumerate(matrices)
            )

        blocks = zip(layout.split(updates), layout.unpack(factors, updates), strict=True)
        return layout.pack(map_equal(average, [*blocks]), updates)

    def renewed(steps, updates, factors, basis, turns, inner):
        held, structure = jax.tree.flatten(inner)
        views, owners = layout.tensors(updates), _owners(inner, updates)
        leaf_of = [leaf for leaf, view in enumerate(views) for _ in view.shapes]
        blocks = layout.unpack(factors, updates)
        bases = [[*axes] for axes in layout.unpack(basis, updates)]
        new: list[jax.Array] = []
        for shift, places in renewal_shifts(blocks, every if stagger else 1).items():
            touched = {leaf_of[block] for block, _ in places}
            mine = [number for number, owner in enumerate(owners) if owner in touched]
            whose = [owners[number] for number in mine]

            def unchanged(matrices, old, moments, flags):
                del matrices, flags
                return old, moments

            def found(matrices, old, moments, flags):
                del old, flags
                return map_equal(_eigenvectors, [(g,) for g in matrices], spread=True), moments

            def followed(matrices, old, moments, flags, places=places, whose=whose):
                made = map_equal(_power_step, [*zip(matrices, old, strict=True)], spread=True)
                moves = [[()] * len(axes) for axes in blocks]
                for (block, axis), (_, *move) in zip(places, made, strict=True):
                    moves[block][axis] = tuple(move)
                return [q for q, *_ in made], _carried(moments, flags, whose, views, moves)

            later = jnp.where((steps + shift) % every == 0, 2, 0)
            new, moments = branch(
                jnp.where(steps == 0, 1, later),
                [unchanged, found, followed],
                after(new, [blocks[block][axis] for block, axis in places]),
                [bases[block][axis] for block, axis in places],
                [held[number] for number in mine],
                [turns[number] for number in mine],
            )
            for (block, axis), q in zip(places, new, strict=True):
                bases[block][axis] = q
            for number, moment in zip(mine, moments, strict=True):
                held[number] = moment
        return layout.pack(map(tuple, bases), updates), structure.unflatten(held)

    def update(updates, state, params=None, **extra_args):
        first = state.steps == 0
        seen = None if params is None else turned(params, state.basis, back=False)
        extra = _seen_from(extra_args, lambda tree, back: turned(tree, state.basis, back=back))
        out, inner = inside.update(
            turned(updates, state.basis, back=False), state.inner, seen, **extra
        )
        out = turned(out, state.basis, back=True)
        out = jax.tree.map(lambda u: jnp.where(first, jnp.zeros_like(u), u), out)
        inner = jax.tree.map(lambda old, new: jnp.where(first, old, new), state.inner, inner)
        factors = automatic(averaged, state.factors, updates, state.factors)
        basis, inner = automatic(
            renewed,
            (state.basis, inner),
            *(state.steps, updates, factors, state.basis, state.turns, inner),
        )
        steps = optax.safe_increment(state.steps)
        return out, BasisState(steps, factors, basis, state.turns, inner)

    return optax.GradientTransformationExtraArgs(init, update)


def _seen_from(extra_args: dict[str, Any], turn: Callable[[Tree, bool], Tree]) -> dict[str, Any]:
    """The extra arguments of `update` for who sees parameters in the basis."""
    seen = dict(extra_args)
    for name in {"value_fn", "outputs_fn"} & seen.keys():
        seen[name] = lambda params, fn=seen[name]: fn(turn(params, True))
    if "grad" in seen:
        seen["grad"] = turn(seen["grad"], False)
    if jax.tree.leaves(seen.get("gradients")):
        seen["gradients"] = jax.vmap(lambda tree: turn(tree, False))(seen["gradients"])
    return seen


def _eigenvectors(g: jax.Array) -> jax.Array:
    """Eigenvectors, the largest first; those of a null space lie as near to the axes as they can.

    Any basis of a null space is one of eigenvectors: which one would depend on rounding, and with
    it on the number of devices, but later gradients see it.
    """
    size = len(g)
    ladder = jnp.arange(1, size + 1, dtype=g.dtype) / (size + 1)
    values, vectors = jnp.linalg.eigh(unit_size(g)[0])
    null = values <= size * jnp.finfo(g.dtype).eps * jnp.max(values)
    along = vectors.T @ (ladder[:, None] * vectors)
    settled = jnp.where(null[:, None] & null[None, :], along, jnp.diag(1 + ladder))
    basis = (vectors @ jnp.linalg.eigh(settled)[1])[:, ::-1]
    return kept_finite(basis, jnp.eye(size, dtype=g.dtype))


def _power_step(g: jax.Array, q: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The next basis, the order its columns come from, and the rotation from the old to it."""
    product = unit_size(g)[0] @ q
    order = jnp.argsort(jnp.sum(q * product, axis=0), descending=True)
    new = kept_finite(jnp.linalg.qr(product[:, order])[0], q)
    return new, order, new.T @ q


def _carried(moments, flags, owners, views, moves) -> list[jax.Array]:
    """Arrays that a rule keeps of each leaf, after the moves of all blocks' axes."""
    rest = iter(moves)
    of_leaf = [[tuple(next(rest)) for _ in view.shapes] for view in views]
    parts = [
        (piece, made, jnp.broadcast_to(flag, piece.shape[:1]))
        for x, flag, owner in zip(moments, flags, owners, strict=True)
        for piece, made in zip(views[owner].split(x), of_leaf[owner], strict=True)
    ]
    done = iter(map_equal(_moved, parts))
    return [
        views[owner].join([next(done) for _ in views[owner].shapes], x.shape)
        for x, owner in zip(moments, owners, strict=True)
    ]


def _moved(x: jax.Array, moves: tuple[Tree, ...], turns: jax.Array) -> jax.Array:
    ordered = rotated = x
    for axis, move in enumerate(moves):
        if move:
            order, rotation = move
            ordered = jnp.take(ordered, order, axis)
            rotated = on_axis(rotation, rotated.astype(rotation.dtype), axis)
    return jnp.where(turns, rotated.astype(x.dtype), ordered)


def _owners(inner: optax.OptState, params: Tree) -> list[int | None]:
    """Of which leaf, by number, each array of a state is a picture; None for all others."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    places = {path: (number, leaf.shape) for number, (path, leaf) in enumerate(leaves)}

    def owner(path, x):
        for start in range(len(path) + 1):
            number, shape = places.get(path[start:], (None, None))
            if number is not None and shape == x.shape and is_float(x):
                return number
        return None

    return [owner(path, x) for path, x in jax.tree_util.tree_leaves_with_path(inner)]


def _turning(tx: optax.GradientTransformationExtraArgs, params: Tree) -> jax.Array:
    """For each array of tx's state whether it changes with the gradient's sign.

    What cannot be tried out, because it asks for more than gradients, is taken to change.
    """
    one = jax.tree.map(lambda leaf: jnp.ones([1] * leaf.ndim, leaf.dtype), params)
    start = tx.init(one)
    try:
        (_, up), (_, down) = (
            tx.update(optax.tree.scale(sign, one), start, one) for sign in (1, -1)
        )
    except ValueError:
        return jnp.ones(len(jax.tree.leaves(start)), bool)

    def differs(x, y):
        return jnp.any(x != y) if is_float(x) else jnp.zeros([], bool)

    pairs = zip(jax.tree.leaves(up), jax.tree.leaves(down), strict=True)
    return jnp.stack([jnp.zeros([], bool), *(differs(x, y) for x, y in pairs)])[1:]
