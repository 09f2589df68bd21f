"""JAX's transformations, applied to an update."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optzoo.testing import mesh as meshes
from optzoo.testing.check import DoesNotApply, check, fail
from optzoo.testing.subject import Subject, random_like
from optzoo.testing.trees import agree, all_finite, leaves_with_path, numbers, same_types


def _stacked(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _unstacked(tree, index):
    return jax.tree.map(lambda leaf: leaf[index], tree)


@check(
    "compiled and eager steps agree",
    "jax.jit(tx.update)(grads, tx.init(params), params) against tx.update(...)",
)
def jit_equals_eager(subject: Subject) -> None:
    agree("compiled and eager updates", subject.first.run.updates, subject.eager.updates)


@check(
    "equal inputs give equal bits",
    "jax.jit(tx.update)(grads, tx.init(params), params), twice",
)
def deterministic(subject: Subject) -> None:
    again = subject.run(subject.params, subject.gradients, step=subject.step)
    agree("two identical runs", again, subject.first.run, rtol=0)
    state = jax.eval_shape(subject.tx.init, subject.params)
    programs = [
        jax.make_jaxpr(partial(subject.update, tx=tx))(subject.gradients[0], state, subject.params)
        for tx in (subject.tx, subject.build())
    ]
    texts = {str(program) for program in programs}
    if len(texts) > 1:
        fail("two traces of one update give different programs")


@check(
    "the step works inside lax.scan",
    "jax.lax.scan(lambda s, g: tx.update(g, s, params)[::-1], tx.init(params), stacked_grads)",
)
def scan(subject: Subject) -> None:
    def body(carry, gradient):
        params, state = carry
        update, state = subject.update(gradient, state, params)
        return (optax.apply_updates(params, update), state), update

    start = (subject.params, subject.tx.init(subject.params))
    _, updates = jax.lax.scan(body, start, _stacked(subject.gradients))
    agree("inside scan the updates", updates, _stacked(subject.first.run.updates))


@check(
    "vmap over seeds equals one run after the other",
    "jax.vmap(lambda p, g: tx.update(g, tx.init(p), p)[0])(stacked_params, stacked_grads)",
)
def vmap_seeds(subject: Subject) -> None:
    seeds = [random_like(subject.params, 3, seed=seed) for seed in (2, 3)]

    def two_steps(trees):
        params, *gradients = trees
        return subject.run(params, gradients).updates

    together = jax.jit(jax.vmap(two_steps))(_stacked(seeds))
    for index, (params, *gradients) in enumerate(seeds):
        alone = subject.run(params, gradients, step=subject.step).updates
        agree("under vmap the updates", _unstacked(together, index), alone)


def _untraceable(subject: Subject) -> dict[str, Exception]:
    """The numeric arguments of the factory that cannot be traced, and why."""
    found = {}

    def once(**arguments):
        tx = subject.build(**arguments)
        state = tx.init(subject.params)
        return subject.update(subject.gradients[0], state, subject.params, tx)[0]

    for name, value in subject.numbers.items():
        try:
            jax.eval_shape(once, **{name: jnp.asarray(value)})
        except Exception as error:
            found[name] = error
    return found


def _numbers(subject: Subject) -> dict[str, float]:
    if subject.factory is None:
        raise DoesNotApply("needs a factory")
    if not subject.numbers:
        raise DoesNotApply("the factory has no numeric argument")
    return subject.numbers


@check(
    "every numeric argument of the factory may be a traced array",
    "jax.jit(lambda h: factory(b2=h).update(grads, factory(b2=h).init(params), params))(0.9)",
)
def traced_hyperparameters(subject: Subject) -> str:
    names = _numbers(subject)
    broken = _untraceable(subject)
    for name, error in broken.items():
        kind = type(error).__name__
        rest = f" (and {', '.join(list(broken)[1:])})" if len(broken) > 1 else ""
        fail(
            f"{name}{rest} cannot be traced: {kind}",
            f"jax.eval_shape(lambda h: factory({name}=h).update(grads, "
            f"factory({name}=h).init(params), params), {names[name]!r})",
        )
    return f"{len(names)} arguments"


@check(
    "vmap over every numeric argument equals one run after the other",
    "jax.vmap(lambda h: factory(b2=h).update(grads, factory(b2=h).init(params), params)[0])(b2s)",
)
def vmap_hyperparameters(subject: Subject) -> str:
    names = dict(_numbers(subject))
    for name in _untraceable(subject):
        del names[name]
    if not names:
        raise DoesNotApply("no numeric argument can be traced")
    rows = [names, *({**names, name: _other(value)} for name, value in names.items())]

    def steps(arguments):
        tx = subject.build(**arguments)
        return subject.run(subject.params, subject.gradients[:2], tx=tx).updates

    together = jax.jit(jax.vmap(steps))({name: np.array([r[name] for r in rows]) for name in names})
    for index, row in enumerate(rows):
        changed = "the defaults" if index == 0 else f"another {list(names)[index - 1]}"
        alone = steps(row)
        agree(f"under vmap and with {changed} the updates", _unstacked(together, index), alone)
    return f"{len(names)} arguments"


def _other(value: float) -> float:
    """A value near a default and inside any range that holds it, as far as one can guess."""
    if isinstance(value, int):
        return value + 1
    return 0.9 * value if value else 1e-3


@check(
    "gradients flow through an update",
    "jax.grad(lambda g: optax.tree.norm(tx.update(g, state, params)[0]))(grads)",
)
def gradient_through_update(subject: Subject) -> None:
    state = subject.step(subject.gradients[0], subject.tx.init(subject.params), subject.params)[1]

    def size(gradients, params):
        updates, _ = subject.update(gradients, state, params)
        return sum(jnp.vdot(u, u).real for u in jax.tree.leaves(updates))

    slopes = jax.jit(jax.grad(size, argnums=(0, 1)))(subject.gradients[1], subject.params)
    all_finite("the derivative of an update is not finite", slopes)


@check(
    "eval_shape of init gives the state's shapes without computing",
    "jax.eval_shape(tx.init, params)",
)
def eval_shape(subject: Subject) -> None:
    same_types(
        "the state's leaves by eval_shape",
        jax.eval_shape(subject.tx.init, subject.params),
        jax.eval_shape(lambda state: state, subject.tx.init(subject.params)),
    )


@check(
    "init takes shapes for parameters, or says what to call where it needs the numbers",
    "tx.init(jax.eval_shape(lambda: params))",
)
def abstract_init(subject: Subject) -> str:
    shapes = jax.eval_shape(lambda: subject.params)
    try:
        state = subject.tx.init(shapes)
    except ValueError as error:
        if "out_shardings" not in str(error):
            fail(f"init of shapes raises ValueError, which does not name the way out: {error}")
        return "needs the numbers"
    real = subject.tx.init(subject.params)
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(state)):
        same_types("from shapes the state's leaves", state, jax.eval_shape(lambda: real))
    else:
        agree("from shapes the state's leaves", state, real, rtol=0)
    return ""


@check(
    "optax.tree.map_params reaches every state leaf that is shaped like its parameter",
    "optax.tree.map_params(tx, lambda x: None, tx.init(params))",
)
def map_params(subject: Subject) -> None:
    # Several layers of one size, so that no few numbers of each happen to be as many as a leaf's.
    params, _ = meshes.host_trees()
    shapes = {leaf.shape for leaf in jax.tree.leaves(params) if leaf.ndim}
    state = subject.tx.init(params)
    mapped = optax.tree.map_params(subject.tx, lambda leaf: jnp.full_like(leaf, 7), state)
    for path, leaf in leaves_with_path(mapped):
        if jnp.shape(leaf) in shapes and not (numbers(leaf) == 7).all():
            fail(f"map_params misses the state leaf {path}, so nothing can shard or cast it")


@check(
    "extra arguments meant for others are ignored",
    "optax.chain(tx, optax.identity()).update(grads, state, params, surplus=1.0)",
)
def extra_args(subject: Subject) -> None:
    def surplus(gradients, state, params):
        extra: Any = {**subject.extra_args(params, gradients), "surplus_of_another": 1.0}
        return subject.tx.update(gradients, state, params, **extra)

    run = subject.run(subject.params, subject.gradients[:1], step=surplus)
    agree("with extra arguments the updates", run.updates, subject.eager.updates[:1])
