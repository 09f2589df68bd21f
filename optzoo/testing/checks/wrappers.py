"""Optax's combinators around a transformation."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optzoo.testing.check import DoesNotApply, check, fail
from optzoo.testing.subject import Run, Subject, random_like
from optzoo.testing.trees import agree, numbers


def _wrapped(subject: Subject, tx: Any, gradients=None, *, compiled: bool = False) -> Run:
    """A run inside a wrapper; `compiled` where it branches, which eagerly is slower."""
    gradients = subject.gradients if gradients is None else gradients
    step = jax.jit(partial(subject.update, tx=tx)) if compiled else None
    return subject.run(subject.params, gradients, tx=tx, step=step)


def _alternate(tree: Any) -> Any:
    """True for every other leaf, the first included."""
    leaves, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, [index % 2 == 0 for index in range(len(leaves))])


def _share(tree: Any, mask: Any) -> dict[str, Any]:
    """The leaves that a mask selects, by their paths."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    chosen = zip(leaves, jax.tree.leaves(mask), strict=True)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for (path, leaf), selected in chosen
        if selected
    }


def _multi_steps(subject: Subject, every: int) -> optax.GradientTransformationExtraArgs:
    """`gradient_transformation()` of the same would drop extra arguments."""
    steps = optax.MultiSteps(subject.tx, every)
    return optax.GradientTransformationExtraArgs(steps.init, steps.update)


def _maskable(subject: Subject) -> None:
    """Optax's masks reach neither into functions nor into extra arguments."""
    if subject.needs.keys() - {"value", "value_fn"}:
        raise DoesNotApply(f"Optax does not mask {', '.join(subject.needs)}")


def _alone(subject: Subject, mask: Any) -> list[dict[str, Any]]:
    """The updates of a run in which the other leaves do not exist."""
    gradients = [_share(gradient, mask) for gradient in subject.gradients]
    return subject.run(_share(subject.params, mask), gradients).updates


@check("chain changes nothing", "optax.chain(optax.identity(), tx)")
def chain(subject: Subject) -> None:
    run = _wrapped(subject, optax.chain(optax.identity(), subject.tx))
    agree("inside chain the updates", run.updates, subject.eager.updates)


@check("masked trains its leaves and lets the others' gradients pass", "optax.masked(tx, mask)")
def masked(subject: Subject) -> None:
    _maskable(subject)
    mask = _alternate(subject.params)
    others = jax.tree.map(lambda selected: not selected, mask)
    run = _wrapped(subject, optax.masked(subject.tx, mask))
    got = [_share(update, mask) for update in run.updates]
    agree("inside masked the updates", got, _alone(subject, mask))
    passed = [_share(update, others) for update in run.updates]
    raw = [_share(gradient, others) for gradient in subject.gradients]
    agree("beside masked the gradients", passed, raw, rtol=0)


@check(
    "partition trains each group alone",
    "optax.partition({True: tx, False: tx}, mask)",
)
def partition(subject: Subject) -> None:
    _maskable(subject)
    mask = _alternate(subject.params)
    others = jax.tree.map(lambda selected: not selected, mask)
    groups = {True: subject.tx, False: subject.tx}
    run = _wrapped(subject, optax.partition(groups, mask))
    for group in (mask, others):
        got = [_share(update, group) for update in run.updates]
        agree("inside partition the updates", got, _alone(subject, group))


@check(
    "MultiSteps over equal gradients takes the same steps",
    "optax.MultiSteps(tx, 2)",
)
def multi_steps(subject: Subject) -> None:
    doubled = [gradient for gradient in subject.gradients[:2] for _ in range(2)]
    run = _wrapped(subject, _multi_steps(subject, 2), doubled, compiled=True)
    agree("inside MultiSteps the updates", run.updates[1::2], subject.eager.updates[:2])


@check(
    "inject_hyperparams puts every numeric argument into the state",
    "optax.inject_hyperparams(factory)()",
)
def inject_hyperparams(subject: Subject) -> None:
    if subject.factory is None:
        raise DoesNotApply("needs a factory")
    # Without hyperparam_dtype, optax rounds arguments to the parameters' dtype.
    injected = optax.inject_hyperparams(
        subject.factory, static_args=subject.traits.static, hyperparam_dtype=jnp.float32
    )()
    run = _wrapped(subject, injected)
    agree("inside inject_hyperparams the updates", run.updates, subject.eager.updates)


@check(
    "apply_if_finite skips a bad step and goes on as if it had not been",
    "optax.apply_if_finite(tx, 5)",
)
def apply_if_finite(subject: Subject) -> None:
    first, second = subject.gradients[:2]
    bad = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), first)
    wrapper = optax.apply_if_finite(subject.tx, 5)
    run = _wrapped(subject, wrapper, [first, bad, second], compiled=True)
    got = [run.updates[0], run.updates[2]]
    agree("around a skipped step the updates", got, subject.eager.updates[:2])
    if any(np.any(numbers(leaf)) for leaf in jax.tree.leaves(run.updates[1])):
        fail("apply_if_finite applies a NaN step")


@check(
    "evaluation parameters are found inside every wrapper, and differ where claimed",
    "eval_params(optax.chain(tx).init(params), params)",
)
def evaluation(subject: Subject) -> str:
    find = subject.eval_params
    if find is None:
        raise DoesNotApply("no eval_params given")
    bare = find(subject.eager.state, subject.eager.params)
    # Some averages wait for a warm-up; some meet the parameters every few steps.
    later = subject.run(subject.params, random_like(subject.params, 10), step=subject.step)
    differs = any(
        not _equal(find(run.state, run.params), run.params) for run in (subject.eager, later)
    )
    if subject.traits.averages not in (None, differs):
        fail(f"eval_params {'differs' if differs else 'does not differ'} from the parameters")
    start = find(subject.tx.init(subject.params), subject.params)
    agree("before the first step the evaluation parameters", start, subject.params)
    everywhere = jax.tree.map(lambda _: True, subject.params)
    wrappers = {
        "chain": optax.chain(optax.identity(), subject.tx),
        "masked": optax.masked(subject.tx, everywhere),
        "partition": optax.partition({True: subject.tx}, everywhere),
        "MultiSteps": _multi_steps(subject, 1),
        "apply_if_finite": optax.apply_if_finite(subject.tx, 5),
    }
    if subject.factory is not None:
        wrappers["inject_hyperparams"] = optax.inject_hyperparams(
            subject.factory, static_args=subject.traits.static, hyperparam_dtype=jnp.float32
        )()
    for name, tx in wrappers.items():
        run = _wrapped(subject, tx, compiled=name in ("MultiSteps", "apply_if_finite"))
        got = find(run.state, run.params)
        agree(f"inside {name} the evaluation parameters", got, bare)
    return "averages" if differs else ""


def _equal(x: Any, y: Any) -> bool:
    pairs = zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True)
    return all(np.array_equal(numbers(a), numbers(b)) for a, b in pairs)
