"""Hyper-parameters: where they are built, how they are given, and what they leave of the state."""

import inspect
from typing import Any

import jax
import numpy as np

from optzoo.testing.check import DoesNotApply, check
from optzoo.testing.subject import Subject, random_like
from optzoo.testing.trees import agree, cast, same_structure


def _factory(subject: Subject) -> Any:
    if subject.factory is None:
        raise DoesNotApply("needs a factory")
    return subject.factory


@check(
    "the factory may be called inside jit, and its product used outside",
    "made = []; jax.jit(lambda p: made.append(factory()))(params); made[0].init(params)",
)
def built_inside_jit(subject: Subject) -> None:
    _factory(subject)
    made = []

    @jax.jit
    def inside(params, gradients):
        made.append(subject.build())
        return subject.update(gradients, made[0].init(params), params, made[0])[0]

    first = [inside(subject.params, subject.gradients[0])]
    agree("built inside jit the updates", first, subject.eager.updates[:1])
    run = subject.run(subject.params, subject.gradients, tx=made[0])
    agree("built inside jit and used outside the updates", run.updates, subject.eager.updates)


@check(
    "a plain number and a traced array of the same value give the same updates, to every digit",
    "jax.config.update('jax_enable_x64', True); jax.jit(lambda h: factory(b2=h).update(grads, "
    "factory(b2=h).init(params), params))(0.9) against factory(b2=0.9)",
)
def static_equals_traced(subject: Subject) -> str:
    _factory(subject)
    if not subject.numbers:
        raise DoesNotApply("the factory has no numeric argument")
    # In float64 an argument of either kind has the same bits.
    with jax.enable_x64(True):
        params = cast(subject.params, np.float64)
        gradients = random_like(params, 2)

        def steps(numbers):
            return subject.run(params, gradients, tx=subject.build(**numbers)).updates

        traced = jax.jit(steps)({name: np.array(x) for name, x in subject.numbers.items()})
        agree("with traced arguments the updates", traced, jax.jit(lambda: steps({}))(), rtol=1e-11)
    return f"{len(subject.numbers)} arguments"


@check(
    "no number changes the structure of the state, but for a 0 that saves a whole moment",
    "jax.tree.structure(factory(weight_decay=0.0).init(params)) == "
    "jax.tree.structure(factory(weight_decay=0.1).init(params))",
)
def stable_tree(subject: Subject) -> str:
    factory = _factory(subject)
    # A rule that routes its leaves has moments of some only.
    moment = max((leaf.size for leaf in jax.tree.leaves(subject.params)), default=0)
    usual = jax.eval_shape(subject.tx.init, subject.params)
    saved = []
    for name, default in subject.numbers.items():
        for value in (type(default)(0), default + 1 if isinstance(default, int) else 0.5):
            try:
                tx = subject.build(**{name: value})
            except ValueError:  # out of its range
                continue
            state = jax.eval_shape(tx.init, subject.params)
            zero = state if value == 0 else usual if default == 0 else None
            if (
                zero is not None
                and _numbers_in(usual if value == 0 else state) - _numbers_in(zero) >= moment
            ):
                saved.append(f"{name} = 0")
                continue
            same_structure(f"with {name} = {value!r} the state", state, usual)
    _mask_changes_nothing(subject, factory, usual)
    return f"{', '.join(dict.fromkeys(saved))} saves a moment" if saved else ""


def _mask_changes_nothing(subject: Subject, factory: Any, usual: Any) -> None:
    if "mask" in inspect.signature(factory).parameters:
        tx = subject.build(mask=lambda tree: jax.tree.map(lambda _: True, tree))
        same_structure("with a mask the state", jax.eval_shape(tx.init, subject.params), usual)


def _numbers_in(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
