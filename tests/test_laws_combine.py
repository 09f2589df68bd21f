"""Laws of the algebra: branches see the same gradient and keep to themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, strategies as st
from laws import STEPS, close, law, mapped, same, scales, seeds, tree

from optzoo import primitives as zoo

BRANCHES = (zoo.ema(0.5), optax.scale(3.0), zoo.momentum(0.9))
ALONE = tuple(mapped(branch) for branch in BRANCHES)
TOGETHER = mapped(zoo.merge(lambda *outputs: list(outputs), *BRANCHES))
LEAFWISE = mapped(zoo.merge_leaves(lambda a, b, c: a - b * c, *BRANCHES))


@law
@given(seeds)
def test_each_branch_does_what_it_does_alone(seed):
    params, grads = tree(seed), tree(seed + 1, steps=STEPS)
    close(TOGETHER(params, grads), [alone(params, grads) for alone in ALONE])


@law
@given(seeds)
def test_merge_leaves_is_merge_leaf_by_leaf(seed):
    params, grads = tree(seed), tree(seed + 1, steps=STEPS)
    a, b, c = (alone(params, grads) for alone in ALONE)
    close(LEAFWISE(params, grads), jax.tree.map(lambda a, b, c: a - b * c, a, b, c))


def test_the_state_is_that_of_the_branches():
    params = tree(0)
    want = tuple(branch.init(params) for branch in BRANCHES)
    same(zoo.merge(lambda *outputs: outputs, *BRANCHES).init(params), want)


@law
@given(seeds)
def test_one_scalar_broadcasts_over_the_tree(seed):
    params, grads = tree(seed), tree(seed + 1)
    scalar = optax.stateless(lambda updates, _: jnp.asarray(-2.0))
    tx = zoo.merge_leaves(zoo.multiply, zoo.gradient, scalar)
    same(tx.update(grads, tx.init(params))[0], jax.tree.map(lambda g: -2 * g, grads))


@law
@given(seeds)
def test_parameters_pass_whatever_the_gradient(seed):
    params, grads = tree(seed), tree(seed + 1)
    same(zoo.parameters.update(grads, zoo.parameters.init(params), params)[0], params)


def test_parameters_are_asked_for_where_they_are_missing():
    with pytest.raises(ValueError, match="needs the parameters"):
        zoo.parameters.update(tree(0), zoo.parameters.init(tree(0)))


@pytest.mark.parametrize("combinator", [zoo.merge, zoo.merge_leaves])
def test_nothing_to_merge_is_an_error(combinator):
    with pytest.raises(ValueError, match="at least one branch"):
        combinator(lambda *outputs: outputs)


@law
@given(seeds, st.sets(st.sampled_from(sorted(tree(0)))))
def test_only_is_zero_outside_the_mask(seed, kept):
    grads = tree(seed)
    mask = {name: name in kept for name in grads}
    tx = zoo.only(mask, optax.scale(2.0))
    want = {name: 2 * g if mask[name] else jnp.zeros_like(g) for name, g in grads.items()}
    same(tx.update(grads, tx.init(grads))[0], want)


@law
@given(seeds, scales)
def test_take_sign_keeps_one_magnitude_and_the_other_sign(seed, scale):
    size, sign = tree(seed, scale=scale), tree(seed + 1, zeros=0.3)

    def check(result, size, sign):
        np.testing.assert_array_equal(jnp.sign(result), jnp.sign(sign))
        np.testing.assert_array_equal(jnp.abs(result), jnp.where(sign == 0, 0, jnp.abs(size)))

    jax.tree.map(check, jax.tree.map(zoo.take_sign, size, sign), size, sign)
