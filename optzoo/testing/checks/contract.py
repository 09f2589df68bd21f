"""Types, structures and compilation: what a training loop relies on at every step."""

import jax
import jax.numpy as jnp

from optzoo.testing.check import DoesNotApply, check, fail
from optzoo.testing.subject import Subject, random_like
from optzoo.testing.trees import all_finite, cast, same_shapes, same_types


def _stable(subject: Subject, dtype) -> None:
    params = cast(subject.params, dtype)
    grads = random_like(params, 1)[0]
    state = jax.eval_shape(subject.tx.init, params)
    for step in ("first", "second"):
        updates, new_state = jax.eval_shape(subject.update, grads, state, params)
        same_shapes(f"on the {step} step the updates", updates, params, dtypes=True)
        same_types(f"on the {step} step state leaves", new_state, state)
        state = new_state


def _trains(subject: Subject, dtype, gradients: list) -> None:
    params = cast(subject.params, dtype)
    run = subject.run_compiled(params, gradients)
    all_finite(f"{jnp.dtype(dtype)} parameters get a non-finite update", run.updates)


@check("float32: updates like the parameters, a state that keeps its types", "train in float32")
def float32(subject: Subject) -> None:
    _stable(subject, jnp.float32)


@check(
    "bfloat16: updates like the parameters, a state that keeps its types",
    "p = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params); tx.update(p, tx.init(p), p)",
)
def bfloat16(subject: Subject) -> None:
    _stable(subject, jnp.bfloat16)


@check(
    "float16: as bfloat16, and finite although 1e-8 underflows",
    "p = jax.tree.map(lambda x: x.astype(jnp.float16), params); tx.update(p, tx.init(p), p)",
)
def float16(subject: Subject) -> None:
    _stable(subject, jnp.float16)
    params = cast(subject.params, jnp.float16)
    # The first of these, because averages of earlier gradients hide what a zero does.
    zeros = jax.tree.map(jnp.zeros_like, params)
    _trains(subject, jnp.float16, [zeros, *random_like(params, 2)])


@check(
    "float64: updates like the parameters, a state that keeps its types",
    "jax.config.update('jax_enable_x64', True); p = jax.tree.map(lambda x: x.astype(float), "
    "params); tx.update(p, tx.init(p), p)",
)
def float64(subject: Subject) -> None:
    with jax.enable_x64(True):
        _stable(subject, jnp.float64)


@check(
    "complex64 parameters work, where claimed",
    "p = jax.tree.map(lambda x: x.astype(jnp.complex64), params); tx.update(p, tx.init(p), p)",
)
def complex64(subject: Subject) -> None:
    if not subject.traits.takes_complex:
        raise DoesNotApply("complex parameters are not claimed")
    _stable(subject, jnp.complex64)
    params = cast(subject.params, jnp.complex64)
    _trains(subject, jnp.complex64, random_like(params, 2))


@check(
    "64-bit mode leaves float32 parameters and their state in float32",
    "jax.config.update('jax_enable_x64', True); tx.update(grads, tx.init(params), params)",
)
def x64_mode(subject: Subject) -> None:
    with jax.enable_x64(True):
        _stable(subject, jnp.float32)
        shapes = {leaf.shape for leaf in jax.tree.leaves(subject.params) if leaf.ndim}
        state = jax.eval_shape(subject.tx.init, subject.params)
        for leaf in jax.tree.leaves(state):
            if leaf.shape in shapes and leaf.dtype == jnp.float64:
                fail("64-bit mode doubles the memory: the state of float32 leaves is float64")


@check(
    "one compilation serves every step",
    "step = jax.jit(tx.update); s = tx.init(params); "
    "[s := step(grads, s, params)[1] for _ in range(3)]; assert step._cache_size() == 1",
)
def compiles_once(subject: Subject) -> None:
    traces = subject.first.traces
    if traces != 1:
        same_types("after a step state leaves", subject.first.run.state, _types(subject))
        fail(f"three steps compile {traces} times")


def _types(subject: Subject):
    return subject.tx.init(subject.params)
