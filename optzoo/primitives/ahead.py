"""Training ahead of the weights that are evaluated."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.base import Schedule, Tree, at, require_params, transformation
from optzoo.primitives.evaluation import where_kept


class AheadState(NamedTuple):
    """A wrapped optimizer and how far the training parameters are ahead of its weights."""

    inner: optax.OptState
    decay: optax.OptState
    steps: jax.Array
    ahead: Tree

    def eval_params(self, params: Tree) -> Tree:
        return where_kept(lambda ahead, y: y - ahead, self.ahead, params)

    def train_params(self, params: Tree) -> Tree:
        return where_kept(lambda ahead, w: w + ahead, self.ahead, params)


@transformation
def train_ahead(
    tx: optax.GradientTransformation,
    distance: jax.typing.ArrayLike | Schedule = 1.0,
    *,
    decay: optax.GradientTransformation | None = None,
) -> optax.GradientTransformation:
    """Steps the weights w with `tx`, but takes gradients where its last step would lead again.

    Rule:
      w ← w + u + d, u and d the updates of `tx` and of `decay` at w
      trains at y = w + distance·u, evaluates at w

    Args:
      tx: the optimizer, with its learning rate.
      distance: how many such steps ahead; a number, or a schedule of the number of finished steps.
      decay: a part of the step that is not looked ahead, such as a decay times the rate; it is
        handed zeros and w.

    Returns:
      A transformation with `AheadState`; `eval_params` gives w, `train_params` y again.

    Raises:
      ValueError: without parameters.
    """
    inner = optax.with_extra_args_support(tx)
    aside = optax.set_to_zero() if decay is None else decay

    def init(params):
        zeros = optax.tree.zeros_like(params)
        return AheadState(inner.init(params), aside.init(params), jnp.zeros([], jnp.int32), zeros)

    def update(updates, state, params=None, **extra_args):
        require_params(params, "train_ahead")
        weights = optax.tree.sub(params, state.ahead)
        step, inner_state = inner.update(updates, state.inner, weights, **extra_args)
        pull, decay_state = aside.update(optax.tree.zeros_like(params), state.decay, weights)
        far = jnp.asarray(at(distance, state.steps), float)
        ahead = jax.tree.map(lambda u: far.astype(u.dtype) * u, step)
        moves = moved_ahead(optax.tree.add(step, pull), ahead, state.ahead)
        count = optax.safe_increment(state.steps)
        return moves, AheadState(inner_state, decay_state, count, ahead)

    return optax.GradientTransformationExtraArgs(init, update)


def moved_ahead(step: Tree, ahead: Tree, before: Tree) -> Tree:
    """How training parameters move whose weights take a step, from `before` to `ahead` of them."""
    return jax.tree.map(lambda u, new, old: u + (new - old), step, ahead, before)
