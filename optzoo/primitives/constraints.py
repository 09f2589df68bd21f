"""Parameters that are put back where they belong after every step."""

import optax

from optzoo.primitives.base import require_params, transformation


@transformation
def constrain(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """Puts the parameters after the step through a map: the last link of a chain.

    Rule:
      u ← tx(p + u) − p

    Args:
      tx: the map, a stateless transformation such as `dualize`; it sees the new parameters.

    Returns:
      A transformation with the state of `tx`; it needs the parameters.

    Raises:
      ValueError: from `update` without parameters.
    """
    inner = optax.with_extra_args_support(tx)

    def update(updates, state, params=None, **extra_args):
        require_params(params, "constrain")
        moved = optax.tree.add(params, updates)
        placed, state = inner.update(moved, state, params, **extra_args)
        return optax.tree.sub(placed, params), state

    return optax.GradientTransformationExtraArgs(inner.init, update)
