"""Numbers that real training meets: zeros, NaN, infinity, huge, tiny, and old counters."""

import jax
import jax.numpy as jnp
import numpy as np

from optzoo.testing.check import check, fail
from optzoo.testing.subject import Subject
from optzoo.testing.trees import all_finite, leaves_with_path, numbers


def _filled(subject: Subject, value: float):
    return jax.tree.map(lambda leaf: jnp.full_like(leaf, value), subject.params)


def _spoilt(subject: Subject, value: float):
    """The first gradient with `value` as the first number of each leaf."""

    def spoil(leaf):
        return leaf.at[(0,) * leaf.ndim].set(value) if leaf.size else leaf

    return jax.tree.map(spoil, subject.gradients[0])


@check(
    "a zero gradient, first or later, gives finite updates",
    "zeros = jax.tree.map(jnp.zeros_like, params); tx.update(zeros, tx.init(params), params)",
)
def zero_gradients(subject: Subject) -> None:
    zeros = _filled(subject, 0.0)
    grads = [zeros, zeros, *subject.gradients[:2], zeros]
    run = subject.run(subject.params, grads, step=subject.step)
    all_finite("a zero gradient leads to a non-finite update", run.updates)


@check(
    "zero parameters get finite updates and leave zero",
    "zeros = jax.tree.map(jnp.zeros_like, params); tx.update(grads, tx.init(zeros), zeros)",
)
def zero_parameters(subject: Subject) -> None:
    zeros = _filled(subject, 0.0)
    run = subject.run(zeros, [*subject.gradients] * 5, step=subject.step)
    all_finite("zero parameters get a non-finite update", run.updates)
    for path, leaf in leaves_with_path(run.params):
        if jnp.size(leaf) and not np.any(numbers(leaf)):
            fail(f"zero parameters never move: {path} is still 0 after 15 steps")


@check(
    "a NaN gradient becomes NaN or is skipped, never an ordinary step",
    "tx.update(jax.tree.map(lambda g: g.at[0].set(jnp.nan), grads), tx.init(params), params)",
)
def nan_gradient(subject: Subject) -> None:
    _honest(subject, jnp.nan, lambda update: not np.isfinite(update) or update == 0)


@check(
    "an infinite gradient becomes non-finite, is skipped, or is a step against its sign",
    "tx.update(jax.tree.map(lambda g: g.at[0].set(jnp.inf), grads), tx.init(params), params)",
)
def infinite_gradient(subject: Subject) -> None:
    _honest(subject, jnp.inf, lambda update: not np.isfinite(update) or update <= 0)
    _honest(subject, -jnp.inf, lambda update: not np.isfinite(update) or update >= 0)


def _honest(subject: Subject, value: float, honest) -> None:
    # On zero parameters no decay can hide what the gradient does.
    zeros = _filled(subject, 0.0)
    run = subject.run(zeros, [_spoilt(subject, value)], step=subject.step)
    for path, leaf in leaves_with_path(run.updates[0]):
        if leaf.size:
            update = numbers(leaf).flat[0]
            if not honest(update):
                fail(f"a gradient of {value} moves {path} by {update:.3g} as if nothing were wrong")


@check(
    "gradients of 1e30 give finite updates, then and afterwards",
    "huge = jax.tree.map(lambda p: jnp.full_like(p, 1e30), params); "
    "tx.update(huge, tx.init(params), params)",
)
def huge_gradients(subject: Subject) -> None:
    _survives(subject, 1e30)


@check(
    "gradients of 1e-30 give finite updates, then and afterwards",
    "tiny = jax.tree.map(lambda p: jnp.full_like(p, 1e-30), params); "
    "tx.update(tiny, tx.init(params), params)",
)
def tiny_gradients(subject: Subject) -> None:
    _survives(subject, 1e-30)


def _survives(subject: Subject, size: float) -> None:
    for grads in ([_filled(subject, size)], [subject.gradients[0], _filled(subject, -size)]):
        run = subject.run(subject.params, grads, step=subject.step)
        all_finite(f"a gradient of {size:g} gives a non-finite update", run.updates)
        # From the start, because the step itself may rightly have been a huge one.
        later = subject.run(
            subject.params, subject.gradients[:2], state=run.state, step=subject.step
        )
        all_finite(f"after a gradient of {size:g} updates are not finite", later.updates)


@check(
    "step counters beyond 2³¹ neither wrap nor break the update",
    "set the integer scalars of the state to 2**31 - 2 and take three steps",
)
def counters_beyond_int32(subject: Subject) -> str | None:
    def aged(leaf):
        return jnp.full_like(leaf, 2**31 - 2) if _is_counter(leaf) else leaf

    old = jax.tree.map(aged, subject.first.run.state)
    run = subject.run(subject.params, subject.gradients, state=old, step=subject.step)
    all_finite("after 2³¹ steps the update is not finite", run.updates)
    for path, leaf in leaves_with_path(run.state):
        if _is_counter(leaf) and int(leaf) < 0:
            fail(f"the counter {path} wraps to {int(leaf)} after 2³¹ steps")
    counters = sum(map(_is_counter, jax.tree.leaves(old)))
    return f"{counters} counters" if counters else "counts nothing"


def _is_counter(leaf) -> bool:
    return (
        isinstance(leaf, jax.Array)
        and leaf.ndim == 0
        and jnp.issubdtype(leaf.dtype, jnp.signedinteger)
        and jnp.iinfo(leaf.dtype).bits == 32
    )
