"""Several objectives: one gradient from many, by weights that their inner products give."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.base import (
    Mask,
    Tree,
    common_dtype,
    require,
    same_structure,
    transformation,
)
from optzoo.primitives.combine import select
from optzoo.primitives.norms import layer_maximum, root
from optzoo.primitives.stacks import automatic


@dataclass(frozen=True)
class Objectives:
    """The gradients of a step's objectives, as weights see them.

    Attributes:
      gradients: a tree like the parameters, each leaf with a leading axis of objectives.
      peak: the largest number among them, 1 where that is 0: `products` and `norms` are those of
        gradients/peak, so that none overflows.
      extra_args: what `update` was given besides.
    """

    gradients: Tree
    peak: jax.Array
    extra_args: dict[str, Any]

    @property
    def count(self) -> int:
        """How many there are."""
        return int(jax.tree.leaves(self.gradients)[0].shape[0])

    def products(self, mask: Mask = None) -> jax.Array:
        """⟨g_i, g_j⟩/peak² over all leaves, or over those where the mask is True."""
        if callable(mask):
            # It judges leaves as the parameters have them, without the axis of objectives.
            mask = mask(jax.tree.map(lambda leaf: leaf[0], self.gradients))
        chosen = select(mask, self.gradients, jax.tree.map(jnp.zeros_like, self.gradients))

        def gramian(gradients, peak):
            leaves = [leaf / peak.astype(leaf.real.dtype) for leaf in gradients]
            parts = [
                jnp.tensordot(leaf.conj(), leaf, [[*range(1, leaf.ndim)]] * 2).real
                for leaf in leaves
            ]
            return functools.reduce(jnp.add, [part.astype(peak.dtype) for part in parts])

        like = jnp.zeros((self.count, self.count), self.peak.dtype)
        return automatic(gramian, like, jax.tree.leaves(chosen), self.peak)

    def norms(self, mask: Mask = None) -> jax.Array:
        """|g_i|/peak over all leaves, or over those where the mask is True."""
        return root(jnp.diagonal(self.products(mask)))


class Weights(NamedTuple):
    """How objectives are weighed, with a state of its own.

    Attributes:
      init: makes the state.
      weigh: objectives, state -> the weights, one for each objective, and the next state.
    """

    init: Callable[[], Any]
    weigh: Callable[[Objectives, Any], tuple[jax.Array, Any]]


class ObjectivesState(NamedTuple):
    """What the weights keep, and what makes the row beside the objectives."""

    weighing: Any
    beside: Any


@transformation
def weigh_objectives(
    weigh: Weights | Callable[[Objectives], jax.Array],
    *,
    beside: optax.GradientTransformation | None = None,
) -> optax.GradientTransformation:
    """One gradient from those of several objectives: Σ w_i·g_i.

    Rule:
      w = weigh(g_1, …, g_m), from their inner products over all leaves;   g ← Σ w_i·g_i

    To stand before a rule in a chain. The gradient that `update` gets is not used.

    Args:
      weigh: a function of `Objectives`, or `Weights` where a state is needed.
      beside: what makes one row more, after the objectives, from the first objective's gradient,
        such as its average.

    Returns:
      A transformation that needs `gradients` in `update`, with `ObjectivesState`.

    Raises:
      ValueError: for `update` without gradients, or with such as have no leading axis.
    """
    rule = weigh if isinstance(weigh, Weights) else _stateless(weigh)
    row = None if beside is None else optax.with_extra_args_support(beside)

    def init(params):
        return ObjectivesState(rule.init(), None if row is None else row.init(params))

    def update(updates, state, params=None, **extra_args):
        gradients = require(extra_args, "gradients", "weigh_objectives")
        _check(updates, gradients)
        if not jax.tree.leaves(updates):
            return updates, state
        kept = state.beside
        if row is not None:
            first = jax.tree.map(lambda leaf: leaf[0], gradients)
            more, kept = row.update(first, state.beside, params, **extra_args)
            gradients = jax.tree.map(
                lambda rows, one: jnp.concatenate([rows, one[None].astype(rows.dtype)]),
                gradients,
                more,
            )
        w, state = rule.weigh(Objectives(gradients, _peak(gradients), extra_args), state.weighing)

        def combined(w, gradients):
            return jax.tree.map(lambda g: jnp.tensordot(w.astype(g.dtype), g, 1), gradients)

        return automatic(combined, updates, w, gradients), ObjectivesState(state, kept)

    return optax.GradientTransformationExtraArgs(init, update)


def _stateless(function: Callable[[Objectives], jax.Array]) -> Weights:
    return Weights(lambda: (), lambda objectives, state: (function(objectives), state))


def _peak(gradients: Tree) -> jax.Array:
    dtype = jnp.finfo(common_dtype(gradients)).dtype
    largest = [layer_maximum(None, leaf).astype(dtype) for leaf in jax.tree.leaves(gradients)]
    peak = functools.reduce(jnp.maximum, largest)
    return jnp.where((peak > 0) & jnp.isfinite(peak), peak, 1)


def _check(updates: Tree, gradients: Tree) -> None:
    """Raises ValueError unless `gradients` are `updates` with one more axis, the same for all."""
    shapes = [[jnp.shape(leaf) for leaf in jax.tree.leaves(tree)] for tree in (updates, gradients)]
    same = same_structure(updates, gradients)
    counts = {shape[:1] for shape in shapes[1]}
    if not same or len(counts) > 1 or shapes[0] != [shape[1:] for shape in shapes[1]]:
        raise ValueError(
            "weigh_objectives: gradients must be like the gradient, each leaf with one more axis "
            f"in front, of objectives; got shapes {shapes[1]} for {shapes[0]}"
        )


def equal_norms(objectives: Objectives) -> jax.Array:
    """Weights under which every objective's gradient has norm 1, for `weigh_objectives`.

    With a class's examples for an objective each: per-class normalisation. Zero gradients stay.

    Source: Francazi et al. 2022, arXiv 2207.00391.
    """
    norms = objectives.norms() * objectives.peak
    return jnp.where(norms > 0, 1 / jnp.where(norms > 0, norms, 1), 0)


def least_quadratic(matrix: jax.Array, lower: jax.Array) -> jax.Array:
    """The v ≥ lower with the least vᵀ·matrix·v.

    Entries are free or at their bound; those on the wrong side change places, all at once while
    that lets their number fall, else the last one alone, which ends after finitely many changes
    (Júdice and Pires' block pivoting with Murty's rule). The answer is that of one linear system.

    Args:
      matrix: (m, m), positive definite.
      lower: (m,), the bounds.

    Returns:
      The minimum; not a number where the matrix is none.
    """
    size = len(lower)
    fixed = jax.lax.stop_gradient((matrix, lower))
    tiny = size * jnp.finfo(matrix.dtype).eps
    flat = tiny * jnp.max(jnp.abs(fixed[0])) * jnp.max(jnp.abs(fixed[1]))

    def above(free, matrix, lower):
        """How far the minimum over the free entries is above the bounds."""
        system = jnp.where(free[:, None] & free[None], matrix, jnp.eye(size, dtype=matrix.dtype))
        return jnp.linalg.solve(system, jnp.where(free, -matrix @ lower, 0))

    def wrong(free):
        over = above(free, *fixed)
        slope = fixed[0] @ (fixed[1] + over)
        return jnp.where(free, over < -tiny * jnp.max(jnp.abs(over)), slope < -flat)

    def change(carry):
        free, bad, fewest, patience, trips = carry
        count = jnp.sum(bad, dtype=jnp.int32)
        patience = jnp.where(count < fewest, 3, patience - 1)
        last = bad & (jnp.cumsum(bad[::-1])[::-1] == 1)
        free = free ^ jnp.where(patience >= 0, bad, last)
        return free, wrong(free), jnp.minimum(count, fewest), patience, trips + 1

    def unfinished(carry):
        _, bad, _, _, trips = carry
        # Rounding could let it go round in circles.
        return bad.any() & (trips < 20 * size)

    free = jnp.zeros(size, bool)
    counters = jnp.int32(size + 1), jnp.int32(3), jnp.int32(0)
    free, *_ = jax.lax.while_loop(unfinished, change, (free, wrong(free), *counters))
    answer = lower + jnp.maximum(above(free, matrix, lower), 0)
    return jnp.where(jnp.isfinite(matrix).all(), answer, jnp.nan)
