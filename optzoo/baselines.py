"""Optax's own rules by name, to stand beside the registry's; the one list of them."""

from typing import Any

import optax

from optzoo.registry import unpublished


def sgd(learning_rate: Any = 0.1, *, momentum: Any = 0.9):
    """Gradient descent with heavy-ball momentum."""
    return optax.sgd(learning_rate, momentum)


def adam(learning_rate: Any = 1e-3):
    """Adam at a constant learning rate."""
    return optax.adam(learning_rate)


def adamw(learning_rate: Any = 1e-3, *, weight_decay: Any = 1e-4):
    """AdamW at a constant learning rate."""
    return optax.adamw(learning_rate, weight_decay=weight_decay)


def lion(learning_rate: Any = 1e-4, *, weight_decay: Any = 1e-3):
    """Lion: the sign of an interpolation between momentum and gradient."""
    return optax.lion(learning_rate, weight_decay=weight_decay)


BASELINES = {rule.__name__: unpublished(rule) for rule in (sgd, adam, adamw, lion)}
