"""Transformations that each break one promise of the conformance kit, by the check's name."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from optzoo.testing import Traits


def leafwise(fn):
    """A transformation from a function of one gradient leaf."""
    return optax.stateless(lambda updates, _: jax.tree.map(fn, updates))


def treewise(fn):
    """A transformation from a function of the gradients and the parameters."""
    return optax.stateless(fn)


def remembering(init, update):
    """A transformation from init(params) → state and update(gradients, state) → both."""
    return optax.GradientTransformation(init, lambda g, s, params=None: update(g, s))


def counting(start, step):
    return remembering(lambda _: start(), lambda g, count: (g, step(count)))


def remembers_calls():
    """Keeps its memory in Python, where no transformation sees it."""
    calls = itertools.count(1)
    return treewise(lambda g, _: optax.tree.scale(float(next(calls)), g))


def on_dicts_alone(updates, _):
    if type(updates) is dict:
        return {key: on_dicts_alone(value, _) for key, value in updates.items()}
    return -updates


def by_position(updates, _):
    leaves, structure = jax.tree.flatten(updates)
    return jax.tree.unflatten(structure, [i * leaf for i, leaf in enumerate(leaves)])


def every_pair(updates, _):
    leaves, structure = jax.tree.flatten(updates)
    return jax.tree.unflatten(
        structure, [sum((jnp.sum(0 * other) for other in leaves), leaf) for leaf in leaves]
    )


def rounded_moment():
    """A second moment that is stored in the parameters' dtype."""

    def update(g, v):
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
        return jax.tree.map(lambda g: -0.01 * g, g), v

    return remembering(functools.partial(jax.tree.map, jnp.zeros_like), update)


def double_memory():
    """State in JAX's default dtype, which is float64 in 64-bit mode."""

    def update(g, m):
        m = jax.tree.map(lambda m, g: 0.9 * m + g, m, g)
        return jax.tree.map(lambda m, g: m.astype(g.dtype), m, g), m

    return remembering(lambda p: jax.tree.map(lambda x: jnp.zeros(x.shape), p), update)


def needs_an_integer(learning_rate=0.1, *, power=2):
    return leafwise(lambda g: learning_rate * sum(g for _ in range(power)))


def needs_a_float(learning_rate=0.1):
    if not isinstance(learning_rate, float | jax.core.Tracer):
        raise TypeError("learning_rate must be a float")
    return optax.sgd(learning_rate)


def rounds_traced(learning_rate=0.16):
    factor = learning_rate if isinstance(learning_rate, float) else jnp.round(learning_rate, 1)
    return leafwise(lambda g: g * factor)


def noisy():
    def update(g, key):
        key, now = jax.random.split(key)
        return jax.tree.map(lambda g: g + jax.random.normal(now, g.shape, g.dtype), g), key

    return remembering(lambda _: jax.random.key(0), update)


def speechless():
    def update(g, state, params=None):
        if jax.tree.structure(g) != jax.tree.structure(params):
            raise ValueError("no")
        return g, state

    return optax.GradientTransformation(optax.init_empty_state, update)


def mute():
    """Needs the loss, and does not say so."""

    def update(g, state, params=None, **extra):
        if "value" not in extra:
            raise ValueError("no")
        return g, state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def one_norm(updates, _):
    return optax.tree.scale(1 / optax.tree.norm(updates), updates)


def own_norm(g):
    return g / jnp.linalg.norm(g)


def uncalled(g):
    return jax.pure_callback(lambda x: x, g, g)


def scalar_a_leaf():
    """One number a leaf, in a tree like the parameters."""
    return remembering(lambda p: jax.tree.map(lambda _: jnp.zeros([]), p), lambda g, s: (g, s))


def computes_at_once(learning_rate=0.1):
    rate = jnp.sqrt(learning_rate)
    return leafwise(lambda g: -rate * g)


def narrows_traced(learning_rate=0.1):
    rate = learning_rate
    if isinstance(rate, jax.core.Tracer):
        rate = rate.astype(jnp.float32).astype(rate.dtype)
    return leafwise(lambda g: -rate * g)


def state_if_decayed(learning_rate=0.1, weight_decay=0.0):
    sgd = optax.sgd(learning_rate)
    return optax.chain(optax.add_decayed_weights(weight_decay), sgd) if weight_decay else sgd


def where_typed(state, params):
    """Evaluation parameters that are forgotten where the state has lost its types."""
    typed = isinstance(state, optax.contrib.ScheduleFreeState)
    return optax.contrib.schedule_free_eval_params(state, params) if typed else params


def strict_arguments(updates, state, params=None, *, value=None):
    del params, value
    return updates, state


def broken_factory():
    return leafwise(lambda g: g.astype(jnp.float16))


BROKEN: dict[str, tuple[Any, dict[str, Any]]] = {
    "float32": (broken_factory, {}),
    "bfloat16": (leafwise(lambda g: g.astype(jnp.float32)), {}),
    "float16": (leafwise(lambda g: g / (jnp.abs(g) + jnp.asarray(1e-8, g.dtype))), {}),
    "float64": (leafwise(lambda g: g.astype(jnp.float32)), {}),
    "complex64": (leafwise(jnp.real), {"traits": Traits(takes_complex=True)}),
    "x64_mode": (double_memory(), {}),
    "compiles_once": (counting(lambda: 0.0, lambda c: jnp.asarray(c + 1, jnp.float32)), {}),
    "jit_equals_eager": (leafwise(lambda g: g if isinstance(g, jax.core.Tracer) else -g), {}),
    "deterministic": (remembers_calls(), {}),
    "scan": (counting(lambda: jnp.zeros([], jnp.int32), lambda c: c + 1.0), {}),
    "vmap_seeds": (leafwise(uncalled), {}),
    "traced_hyperparameters": (needs_an_integer, {}),
    "vmap_hyperparameters": (rounds_traced, {}),
    "gradient_through_update": (leafwise(lambda g: g * jnp.sqrt(jnp.sum(g - g))), {}),
    "eval_shape": (remembering(lambda p: float(p["dense"]["bias"][0]), lambda g, s: (g, s)), {}),
    "abstract_init": (remembering(lambda p: optax.tree.norm(p), lambda g, s: (g, s)), {}),
    "map_params": (remembering(lambda _: [jnp.zeros((8, 16))], lambda g, s: (g, s)), {}),
    "extra_args": (
        optax.GradientTransformationExtraArgs(optax.init_empty_state, strict_arguments),
        {},
    ),
    "built_inside_jit": (computes_at_once, {}),
    "static_equals_traced": (narrows_traced, {}),
    "stable_tree": (state_if_decayed, {}),
    "chain": (remembers_calls(), {}),
    "masked": (treewise(on_dicts_alone), {}),
    "partition": (treewise(on_dicts_alone), {}),
    "multi_steps": (remembers_calls(), {}),
    "inject_hyperparams": (needs_a_float, {}),
    "apply_if_finite": (remembers_calls(), {}),
    "evaluation": (optax.sgd(0.1), {"eval_params": lambda state, p: optax.tree.scale(0.5, p)}),
    "donation": (remembering(lambda params: params, lambda g, s: (g, s)), {}),
    "no_aliasing": (remembering(lambda params: params, lambda g, s: (g, s)), {}),
    "bfloat16_tracks_float32": (rounded_moment(), {}),
    "zero_gradients": (leafwise(lambda g: g / jnp.abs(g)), {}),
    "zero_parameters": (treewise(lambda g, p: jax.tree.map(jnp.multiply, g, p)), {}),
    "nan_gradient": (leafwise(lambda g: jnp.where(g > 0, -1.0, 1.0)), {}),
    "infinite_gradient": (leafwise(lambda g: jnp.where(jnp.isinf(g), 1.0, -g)), {}),
    "huge_gradients": (leafwise(lambda g: -g * g / (g * g + 1)), {}),
    "tiny_gradients": (leafwise(lambda g: jnp.where(g == 0, 0.0, g / (g * g))), {}),
    "counters_beyond_int32": (counting(lambda: jnp.zeros([], jnp.int32), lambda c: c + 1), {}),
    "empty_tree": (treewise(lambda g, _: [g, jax.tree.leaves(g)[0]][0]), {}),
    "none_leaves": (treewise(on_dicts_alone), {}),
    "zero_size": (leafwise(lambda g: g / jnp.max(jnp.abs(g))), {}),
    "every_rank": (leafwise(lambda g: -g[::-1]), {}),
    "renaming": (treewise(by_position), {}),
    "many_leaves": (treewise(every_pair), {"leaves": 32}),
    "dataclasses_": (treewise(on_dicts_alone), {}),
    "frozen_dict": (treewise(on_dicts_alone), {}),
    "nnx_state": (treewise(on_dicts_alone), {}),
    "linen_metadata": (scalar_a_leaf(), {}),
    "nnx_metadata": (scalar_a_leaf(), {}),
    "evaluation_restored": (
        optax.contrib.schedule_free_sgd(0.1, warmup_steps=1),
        {"eval_params": where_typed},
    ),
    "orbax": (counting(lambda: jnp.zeros([0]), lambda c: c), {}),
    "needs_params": (treewise(lambda g, p: {**g, "x": p["x"]}), {}),
    "needs_arguments": (mute(), {}),
    "mismatched_trees": (speechless(), {}),
    "stochastic": (noisy(), {"traits": Traits(stochastic=False)}),
    "couples_leaves": (treewise(one_norm), {"traits": Traits(couples_leaves=False)}),
    "shape_dependent": (leafwise(own_norm), {"traits": Traits(shape_dependent=False)}),
    "takes_complex": (leafwise(jnp.square), {"traits": Traits(takes_complex=True)}),
}

SHARDED_BROKEN: dict[str, tuple[Any, dict[str, Any]]] = {
    "sharded_auto": (treewise(one_norm), {"traits": Traits(collectives=0)}),
    "sharded_explicit": (
        treewise(
            lambda g, _: jax.tree.map(
                lambda x: x + jnp.sum(jnp.concatenate(list(map(jnp.ravel, jax.tree.leaves(g))))), g
            )
        ),
        {},
    ),
}
"""What is broken only where there are several devices."""

UNTRUE = {
    "evaluation": (
        optax.sgd(0.1),
        {"eval_params": lambda state, p: p, "traits": Traits(averages=True)},
    ),
    "needs_params": (optax.sgd(0.1), {"traits": Traits(needs_params=True)}),
    "needs_arguments": (optax.sgd(0.1), {"traits": Traits(needs=("value",))}),
    "stochastic": (optax.sgd(0.1), {"traits": Traits(stochastic=True)}),
    "couples_leaves": (optax.sgd(0.1), {"traits": Traits(couples_leaves=True)}),
    "shape_dependent": (optax.sgd(0.1), {"traits": Traits(shape_dependent=True)}),
    "takes_complex": (optax.sgd(0.1), {"traits": Traits(takes_complex=False)}),
}
"""Claims that sound transformations do not keep, by the check that finds out."""
