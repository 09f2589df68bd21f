"""Parameters spread over devices: same numbers, states that follow, few collectives."""

import re
from collections import Counter
from typing import Any

import jax
from jax.sharding import AxisType

from optzoo.testing import mesh as meshes
from optzoo.testing.check import DoesNotApply, check, fail
from optzoo.testing.subject import Subject
from optzoo.testing.trees import agree, leaves_with_path

_COLLECTIVE = re.compile(
    r"\s(all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
)


@check(
    "automatic mesh axes: sharded equals unsharded, states follow the parameters",
    "jax.jit(tx.update)(sharded_grads, tx.init(sharded_params), sharded_params)",
)
def sharded_auto(subject: Subject) -> str:
    return _sharded(subject, AxisType.Auto)


@check(
    "explicit mesh axes: sharded equals unsharded, states follow the parameters",
    "with jax.set_mesh(jax.make_mesh((4, 2), ('data', 'model'))): "
    "jax.jit(tx.update)(sharded_grads, tx.init(sharded_params), sharded_params)",
)
def sharded_explicit(subject: Subject) -> str:
    return _sharded(subject, AxisType.Explicit)


def _sharded(subject: Subject, kind: AxisType) -> str:
    if jax.device_count() < meshes.DEVICES:
        raise DoesNotApply(
            f"needs {meshes.DEVICES} devices: on a CPU, jax.config.update('jax_num_cpu_devices', "
            f"{meshes.DEVICES}) before JAX's first use"
        )
    host_params, host_gradients = meshes.host_trees()
    expected = subject.run_compiled(host_params, host_gradients)
    mesh = meshes.make_mesh(kind)
    with jax.set_mesh(mesh):
        params = meshes.placed(host_params, mesh)
        gradients = [meshes.placed(gradient, mesh) for gradient in host_gradients]
        state = subject.tx.init(params)
        _follows("after init", state, params)
        step = jax.jit(subject.update)
        program = step.lower(gradients[0], state, params).compile()
        run = subject.run(params, gradients, state=state, step=step)
        _follows("after a step", run.state, params)
    host = [jax.device_get(update) for update in run.updates]
    agree("sharded updates", host, expected.updates, rtol=1e-3)
    return _count(subject, program.as_text() or "")


def _follows(when: str, state: Any, params: Any) -> None:
    """State leaves of a unique parameter's shape must lie where that parameter lies."""
    leaves = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim]
    common = Counter(leaf.shape for leaf in leaves)
    owners = {leaf.shape: leaf for leaf in leaves if common[leaf.shape] == 1}
    for path, leaf in leaves_with_path(state):
        owner = owners.get(getattr(leaf, "shape", None))
        if owner is not None and not leaf.sharding.is_equivalent_to(owner.sharding, leaf.ndim):
            fail(
                f"{when}, the state leaf {path} does not lie where its parameter lies: "
                f"{leaf.sharding} instead of {owner.sharding.spec}"
            )


def _count(subject: Subject, program: str) -> str:
    found = Counter(_COLLECTIVE.findall(program))
    traits, total = subject.traits, sum(found.values())
    bound = traits.collectives
    if bound is None and traits.couples_leaves is False and traits.shape_dependent is False:
        bound = 0
    words = ", ".join(f"{number} {name}" for name, number in found.items()) or "no collectives"
    if bound is not None and total > bound:
        fail(f"one step runs {words}; at most {bound} are claimed")
    return words
