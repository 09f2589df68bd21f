"""Optax's own rules by name, to stand beside the registry's; the one list of them."""

from typing import Any

import optax

from optzoo.registry import Range, unpublished


def sgd(learning_rate: Any = 0.1, *, momentum: Any = 0.9):
    """Gradient descent with heavy-ball momentum."""
    return optax.sgd(learning_rate, momentum)


def adam(learning_rate: Any = 1e-3, *, b1: Any = 0.9, b2: Any = 0.999):
    """Adam at a constant learning rate."""
    return optax.adam(learning_rate, b1, b2)


def adamw(learning_rate: Any = 1e-3, *, b1: Any = 0.9, b2: Any = 0.999, weight_decay: Any = 1e-4):
    """AdamW at a constant learning rate."""
    return optax.adamw(learning_rate, b1, b2, weight_decay=weight_decay)


def lion(learning_rate: Any = 1e-4, *, b1: Any = 0.9, b2: Any = 0.99, weight_decay: Any = 1e-3):
    """Lion: the sign of an interpolation between momentum and gradient."""
    return optax.lion(learning_rate, b1, b2, weight_decay=weight_decay)


BASELINES = {
    "sgd": unpublished(sgd),
    "adam": unpublished(adam),
    "adamw": unpublished(adamw),
    # Its rates are small, and its decays large by as much.
    "lion": unpublished(lion, ranges={"weight_decay": Range(1e-3, 10.0)}),
}
