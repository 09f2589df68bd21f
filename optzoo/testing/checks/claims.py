"""Traits: what is claimed about a transformation, observed."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from optzoo.testing.check import DoesNotApply, check, fail
from optzoo.testing.subject import Subject, random_from, random_like
from optzoo.testing.trees import agree, all_finite, cast, is_key, is_random, numbers


def _settle(name: str, claimed: bool | None, observed: bool) -> str:
    if claimed not in (None, observed):
        fail(f"{name} is claimed to be {claimed}, but is {observed}")
    return name if observed else ""


@check(
    "without parameters update works, or raises an error that asks for them",
    "tx.update(grads, tx.init(params))",
)
def needs_params(subject: Subject) -> str:
    state = subject.tx.init(subject.params)
    extra = subject.extra_args(subject.params, subject.gradients[0])
    try:
        subject.tx.update(subject.gradients[0], state, **extra)
        needed = False
    except Exception as error:
        needed = True
        if "param" not in str(error):
            fail(f"without parameters update raises {type(error).__name__}, which asks for none")
    return _settle("needs_params", subject.traits.needs_params, needed)


@check(
    "without the loss, its functions or several gradients update works, or names the missing",
    "tx.update(grads, tx.init(params), params)",
)
def needs_arguments(subject: Subject) -> str:
    for name, error in subject.needs.items():
        if name not in str(error):
            fail(f"without {name} update raises {type(error).__name__}, which does not name it")
    claimed, found = subject.traits.needs, ", ".join(sorted(subject.needs))
    if claimed is not None and set(claimed) != set(subject.needs):
        said = ", ".join(sorted(claimed)) or "nothing"
        fail(f"update is claimed to need {said}, but needs {found or 'nothing'}")
    return found


@check(
    "gradients that lack a leaf raise an error that names it",
    "tx.update({'a': x}, tx.init({'a': x, 'b': y}), {'a': x, 'b': y})",
)
def mismatched_trees(subject: Subject) -> None:
    params = random_from({"kept": (4, 3), "missing_leaf": (4, 3)}, 8)
    state = subject.tx.init(params)
    gradients = {"kept": params["kept"]}
    try:
        subject.update(gradients, state, params)
    except Exception as error:
        if "missing_leaf" not in str(error):
            fail(f"gradients that lack a leaf raise {type(error).__name__} without its name")
    else:
        fail("gradients that lack a leaf raise nothing")


@check("stochastic means that a random key in the state changes the update", "two seeds")
def stochastic(subject: Subject) -> str:
    state = subject.tx.init(subject.params)
    if not is_random(state):
        return _settle("stochastic", subject.traits.stochastic, False)

    def other(leaf):
        if not is_random(leaf):
            return leaf
        if is_key(leaf):
            return jax.random.fold_in(leaf, 1)
        return leaf + jnp.ones_like(leaf)

    reseeded = jax.tree.map(other, state)
    run = subject.run(subject.params, subject.gradients, state=reseeded)
    return _settle("stochastic", subject.traits.stochastic, _differ(run, subject.eager))


def _differ(x: Any, y: Any, rtol: float = 0.0) -> bool:
    pairs = zip(jax.tree.leaves(x.updates), jax.tree.leaves(y.updates), strict=True)
    return not all(
        np.allclose(numbers(a), numbers(b), rtol=rtol, atol=0, equal_nan=True) for a, b in pairs
    )


def _doubles() -> tuple[Any, list[Any]]:
    """Parameters and gradients in float64, where no effect is too small to be seen.

    The gradients do not change the norm of a column, as those of scale-invariant weights do not:
    some rules treat such columns in their own way.
    """
    params = cast(random_from({"a": (4, 4), "b": (4, 4)}, 9), jnp.float64)

    def across(gradient, p):
        return gradient - p * (gradient * p).sum(0) / (p * p).sum(0)

    return params, [jax.tree.map(across, g, params) for g in random_like(params, 4, seed=10)]


@check(
    "coupled leaves: the update of a leaf depends on another leaf's gradient, as claimed",
    "tx.update({'a': x, 'b': y}, ...)['a'] against that with another y",
)
def couples_leaves(subject: Subject) -> str:
    with jax.enable_x64(True):
        params, gradients = _doubles()
        # A silent leaf, too: rules that normalise gradients do not see their size.
        others = [{**g, "b": g["b"] * (3.0 if i % 2 else 0.0)} for i, g in enumerate(gradients)]
        run, changed = (subject.run_compiled(params, grads) for grads in (gradients, others))
        observed = _differ(_only("a", run), _only("a", changed), rtol=1e-13)
    if subject.traits.stochastic is None and is_random(subject.eager.state):
        raise DoesNotApply("the update is random")
    return _settle("couples_leaves", subject.traits.couples_leaves, observed)


def _only(name: str, run: Any) -> Any:
    return run._replace(updates=[update[name] for update in run.updates])


@check(
    "shape: cutting or flattening a leaf changes the update, as claimed",
    "tx.update({'a': x}, ...) against tx.update({'a': x.ravel()}, ...) and two halves of x",
)
def shape_dependent(subject: Subject) -> str:
    if is_random(subject.eager.state):
        raise DoesNotApply("the update is random")

    def flat(tree):
        return jax.tree.map(jnp.ravel, tree)

    def cut(tree):
        return {f"{k}{i}": half for k, x in tree.items() for i, half in enumerate(_halves(x))}

    with jax.enable_x64(True):
        params, gradients = _doubles()
        run = subject.run_compiled(params, gradients)
        observed = False
        for change in (flat, cut):
            other = subject.run_compiled(change(params), list(map(change, gradients)))
            expected = run._replace(updates=list(map(change, run.updates)))
            observed = observed or _differ(expected, other, rtol=1e-9)
    return _settle("shape_dependent", subject.traits.shape_dependent, observed)


def _halves(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return x[: len(x) // 2], x[len(x) // 2 :]


@check(
    "complex parameters, where claimed: turning everything by a phase turns the updates, too",
    "tx.update(1j * grads, tx.init(1j * params), 1j * params) against 1j * tx.update(...)",
)
def takes_complex(subject: Subject) -> str:
    params = cast(subject.params, jnp.complex64)
    gradients = random_like(params, 3)

    def turned(tree):
        return jax.tree.map(lambda leaf: 1j * leaf, tree)

    try:
        run = subject.run_compiled(params, gradients)
        other = subject.run_compiled(turned(params), list(map(turned, gradients)))
        agree("turned updates", other.updates, turned(run.updates), rtol=1e-3)
        all_finite("the update is not finite", run.updates)
        observed = True
    except Exception:
        observed = False
    return _settle("takes_complex", subject.traits.takes_complex, observed)
