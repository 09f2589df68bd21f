"""Losses that Optax does not have."""

import jax
import jax.numpy as jnp


def stablemax_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Cross-entropy with StableMax in place of softmax, for integer labels; one number a row.

    Rule:
      s(x) = x + 1 for x ≥ 0, 1/(1 − x) below;   loss = log Σ s(logits) − log s(logit of the label)

    It grows like the logarithm of the logits where softmax's is linear in them, so that growing
    logits neither lose digits nor lower the loss for long.

    Args:
      logits: (…, classes), in float32 or wider.
      labels: (…), integers.

    Returns:
      The losses, (…).

    Source: Prieto et al. 2025, arXiv 2501.04697.
    """
    above = logits >= 0
    # An infinite slope of the branch not taken would spoil that of the other.
    up, down = jnp.where(above, logits, 0), jnp.where(above, 0, logits)
    scores = jnp.where(above, 1 + up, 1 / (1 - down))
    chosen = jnp.where(above, jnp.log1p(up), -jnp.log1p(-down))
    own = jnp.take_along_axis(chosen, labels[..., None], axis=-1)[..., 0]
    return jnp.log(scores.sum(axis=-1)) - own
