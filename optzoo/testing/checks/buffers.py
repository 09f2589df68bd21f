"""Donation: a step may reuse the memory of the parameters and the state."""

import jax
import jax.numpy as jnp

from optzoo.testing.check import check, fail
from optzoo.testing.subject import Subject
from optzoo.testing.trees import agree, is_key, leaves_with_path


@check(
    "parameters and state can be donated from the first step on",
    "jax.jit(lambda p, s: tx.update(grads, s, p), donate_argnums=(0, 1))(params, tx.init(params))",
)
def donation(subject: Subject) -> None:
    def step(state, params, gradients):
        updates, state = subject.update(gradients, state, params)
        return updates, state, jax.tree.map(jnp.add, params, updates)

    donated = jax.jit(step, donate_argnums=(0, 1))
    params = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), subject.params)
    state = subject.tx.init(params)
    seen = []
    for gradients in subject.gradients:
        updates, state, params = donated(state, params, gradients)
        seen.append(updates)
    agree("with donated buffers the updates", seen, subject.first.run.updates)


@check(
    "no state leaf shares memory with a parameter or another state leaf",
    "state = tx.init(params); len({x.unsafe_buffer_pointer() for x in jax.tree.leaves(state)})",
)
def no_aliasing(subject: Subject) -> None:
    params = subject.params
    state = subject.tx.init(params)
    _distinct("after init", params, state)
    for gradients in subject.gradients[:2]:
        updates, state = subject.update(gradients, state, params)
        params = jax.tree.map(jnp.add, params, updates)
        _distinct("after an eager step", params, state)


def _distinct(when: str, params, state) -> None:
    owners: dict[int, str] = {}
    for kind, tree in (("params", params), ("state", state)):
        for path, leaf in leaves_with_path(tree):
            if not isinstance(leaf, jax.Array) or not leaf.size or is_key(leaf):
                continue
            pointer = leaf.addressable_shards[0].data.unsafe_buffer_pointer()
            other = owners.setdefault(pointer, f"{kind}{path}")
            if other != f"{kind}{path}":
                fail(f"{when}, {other} and {kind}{path} are one buffer, so donation fails")
