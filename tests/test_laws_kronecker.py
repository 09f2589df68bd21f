"""Laws of SOAP's and Shampoo's numbers: singular factors, any scale, half precision, periods."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend.core import Literal, jaxprs_in_params
from laws import close, runner, same

import optzoo

STEPS = 7
SHAPES = {
    "column": (5, 1),
    "dead": (4, 3),
    "none": (0, 3),
    "one": (1, 1),
    "row": (1, 5),
    "square": (3, 3),
}
RULES = {
    "shampoo": optzoo.shampoo(0.1, every=2, start=1),
    "soap": optzoo.soap(0.1, every=2),
}
both = pytest.mark.parametrize("rule", RULES)


@functools.cache
def run(rule):
    """One for all tests, which then share what is compiled."""
    return runner(RULES[rule])


def gradients(dtype=jnp.float32):
    """Normal gradients of `SHAPES`; one unit of "dead" has none."""
    rng = np.random.default_rng(0)
    made = {name: rng.standard_normal((STEPS, *shape)) for name, shape in SHAPES.items()}
    made["dead"][..., 0] = 0
    return jax.tree.map(lambda g: jnp.asarray(g, dtype), made)


def zeros(grads):
    return jax.tree.map(lambda g: jnp.zeros_like(g[0]), grads)


def scaled(grads, scale):
    return jax.tree.map(lambda g: jnp.asarray(scale, g.dtype) * g, grads)


def by_rule(state):
    """The state in which a rule keeps its factors."""
    return state[0].made[1] if hasattr(state[0], "made") else state[0]


def matrices(state):
    """All factors and what is made of them."""
    held = by_rule(state)
    return held.factors, held.roots if hasattr(held, "roots") else held.basis


@both
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-6, 1e6, 1e18, 1e30])
def test_singular_factors_of_any_size_give_finite_steps(rule, scale):
    updates, _, state = run(rule)(zeros(gradients()), scaled(gradients(), scale))
    for leaf in jax.tree.leaves((updates, matrices(state))):
        assert np.isfinite(leaf).all()
    # What rounding turns into the directions of a dead unit stays below SOAP's eps, or does not.
    if rule == "shampoo" or scale <= 1e-6:
        assert np.abs(updates["dead"][..., 0]).max() <= 1e-6
    if rule == "soap":
        for q in jax.tree.leaves(by_rule(state).basis):
            close(jnp.swapaxes(q, -1, -2) @ q, jnp.broadcast_to(jnp.eye(q.shape[-1]), q.shape))


@both
def test_neither_the_scale_of_gradients_nor_their_precision_matters(rule):
    # Not of singular factors, in whose null space any basis is one of eigenvectors.
    def square(grads):
        return run(rule)(zeros(grads), grads)[0]["square"]

    updates = square(gradients())
    close(square(scaled(gradients(), 1e6)), updates, rtol=1e-2, atol=1e-4)
    with jax.enable_x64(True):
        close(square(gradients(jnp.float64)), updates, rtol=1e-2, atol=1e-4)


@both
def test_half_precision_gradients_have_float32_factors(rule):
    params = zeros(gradients(jnp.bfloat16))
    state = jax.eval_shape(RULES[rule].init, params)
    _, state = jax.eval_shape(RULES[rule].update, params, state, params)
    assert {leaf.dtype for leaf in jax.tree.leaves(by_rule(state).factors)} == {np.dtype("float32")}


@both
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_no_bad_number_comes_to_the_decompositions(rule, bad):
    grads = jax.tree.map(lambda g: g.at[2].set(bad), gradients())
    for leaf in jax.tree.leaves(matrices(run(rule)(zeros(grads), grads)[2])):
        assert np.isfinite(leaf).all()


@both
def test_a_period_goes_on_after_a_checkpoint(rule):
    tx = getattr(optzoo, rule)(0.1, every=4, stagger=True)
    step = jax.jit(lambda grads, carry: advanced(tx, grads, carry))
    grads = gradients()
    carry = kept = zeros(grads), tx.init(zeros(grads))
    for now in range(STEPS):
        gradient = jax.tree.map(lambda g, now=now: g[now], grads)
        if now > 2:
            kept = step(gradient, jax.tree.map(jnp.asarray, kept))
        carry = step(gradient, carry)
        if now == 2:
            kept = jax.tree.map(np.asarray, carry)
    same(kept, carry)


def advanced(tx, grads, carry):
    params, state = carry
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state


@both
def test_decompositions_wait_for_each_other(rule):
    # Batches of LAPACK's that run at the same time can lock up XLA's threads on CPUs.
    params = {f"w{n}": jnp.zeros((n, n + 3)) for n in range(2, 5)}
    tx = getattr(optzoo, rule)(0.1, every=3, stagger=True)
    program = jax.make_jaxpr(tx.update)(params, tx.init(params), params)
    assert decompositions(program.jaxpr) >= 6


def decompositions(jaxpr):
    """How many there are; each, or the branch it is in, hangs on the one before it."""
    behind, last, found = {}, None, 0
    for equation in jaxpr.eqns:
        inputs = (x for x in equation.invars if not isinstance(x, Literal))
        before = set().union(*(behind.get(x, set()) for x in inputs))
        inside = sum(map(decompositions, jaxprs_in_params(equation.params)))
        if inside or equation.primitive.name in ("eigh", "householder_product"):
            assert last is None or last in before
            found += inside or 1
            last = found
            before = before | {last}
        behind.update(dict.fromkeys(equation.outvars, before))
    return found
