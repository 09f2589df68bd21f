"""Every wrapper around every rule that it makes sense for: it trains, and is evaluated well."""

import jax
import jax.numpy as jnp
import optax
import pytest
from subjects import answered, factory, in_turn

import optzoo
from optzoo.primitives import lookahead, polynomial_average
from optzoo.registry import Trait

STEPS = 100


def names(*unwanted):
    """The rules without these traits: an average of an average, say, helps nobody."""
    return [
        name for name, entry in optzoo.REGISTRY.optimizers.items() if not entry.traits & {*unwanted}
    ]


PLAIN = names(Trait.AVERAGES)
PAIRS = {
    "schedule_free": (
        lambda tx: optzoo.schedule_free(tx, 1e-2),
        names(Trait.AVERAGES, Trait.SCHEDULED),
    ),
    "polynomial_average": (polynomial_average, PLAIN),
    "lookahead": (lookahead, PLAIN),
    "master_weights": (optzoo.master_weights, names()),
    "stochastic_round": (lambda tx: optzoo.stochastic_round(tx, 0), PLAIN),
}


def pairs():
    """All of them; the default run has one wrapper for each rule, each wrapper in its turn."""
    for name in optzoo.REGISTRY.optimizers:
        wrappers = [wrapper for wrapper, (_, rules) in PAIRS.items() if name in rules]
        for wrapper in wrappers:
            marks = in_turn(name, wrappers, wrapper)
            yield pytest.param(wrapper, name, id=f"{wrapper}-{name}", marks=marks)


@pytest.mark.parametrize(("wrapper", "name"), [*pairs()])
def test_pair_trains(wrapper, name):
    wrap, _ = PAIRS[wrapper]
    entry = optzoo.get(name)
    tx = optax.with_extra_args_support(wrap(answered(factory(entry, STEPS)(), entry)))
    dtype = jnp.bfloat16 if wrapper in ("master_weights", "stochastic_round") else jnp.float32
    target = jax.random.normal(jax.random.key(1), (8, 6))
    start = {"dense": {"kernel": jnp.ones((8, 6), dtype), "bias": jnp.ones(6, dtype)}}

    def loss(params):
        kernel, bias = (params["dense"][key].astype(jnp.float32) for key in ("kernel", "bias"))
        return jnp.sum((kernel - target) ** 2) + jnp.sum(bias**2)

    def step(carry, _):
        params, state = carry
        value, gradients = jax.value_and_grad(loss)(params)
        updates, state = tx.update(gradients, state, params, value=value, value_fn=loss)
        return (optax.apply_updates(params, updates), state), None

    @jax.jit
    def train(params):
        (params, state), _ = jax.lax.scan(step, (params, tx.init(params)), length=STEPS)
        return optzoo.eval_params(state, params)

    assert loss(train(start)) < loss(start)
