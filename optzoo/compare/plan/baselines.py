"""The rules of Optax that a comparison can run beside the registry's; the one list of them."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from optzoo.registry import Entry, Factory


def unpublished(factory: Factory, *, default: bool = False) -> Entry:
    """An entry for a factory that is not in the registry: it can be run, but has no paper."""
    return Entry(
        factory,
        title="",
        authors=(),
        year=0,
        arxiv=None,
        url="",
        code=None,
        traits=frozenset(),
        default=default,
    )


def warmup_cosine(learning_rate: Any, total_steps: int) -> optax.Schedule:
    """A linear warm-up from 0 over the first tenth of a run, then cosine decay to 0."""
    warmup = max(1, total_steps // 10)

    def schedule(count: Any) -> jax.Array:
        step = jnp.asarray(count, jnp.float32)
        share = jnp.clip((step - warmup) / max(1, total_steps - warmup), 0, 1)
        return learning_rate * jnp.minimum(step / warmup, (1 + jnp.cos(jnp.pi * share)) / 2)

    return schedule


def sgd(learning_rate: Any = 0.1, *, momentum: Any = 0.9):
    """Gradient descent with heavy-ball momentum."""
    return optax.sgd(learning_rate, momentum)


def adam(learning_rate: Any = 1e-3):
    """Adam at a constant learning rate."""
    return optax.adam(learning_rate)


def adamw(learning_rate: Any = 1e-3, *, weight_decay: Any = 1e-4):
    """AdamW at a constant learning rate."""
    return optax.adamw(learning_rate, weight_decay=weight_decay)


def adamw_cosine(learning_rate: Any = 1e-3, *, weight_decay: Any = 1e-4, total_steps: int):
    """AdamW with a linear warm-up over the first tenth and cosine decay to zero."""
    return adamw(warmup_cosine(learning_rate, total_steps), weight_decay=weight_decay)


def lion(learning_rate: Any = 1e-4, *, weight_decay: Any = 1e-3):
    """Lion: the sign of an interpolation between momentum and gradient."""
    return optax.lion(learning_rate, weight_decay=weight_decay)


# What times to the target are told against; named as a rule under that schedule always is.
REFERENCE = "adamw+cosine"
_RULES: dict[str, Factory] = {
    "sgd": sgd,
    "adam": adam,
    "adamw": adamw,
    REFERENCE: adamw_cosine,
    "lion": lion,
}
BASELINES = {name: unpublished(rule, default=True) for name, rule in _RULES.items()}
