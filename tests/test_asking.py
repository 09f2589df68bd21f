"""Rules that ask for more than a gradient get it everywhere, and say so where they do not."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from asking import RULES, curved, noisy
from subjects import answered, wrapped

import optzoo
from optzoo.compare import UserError, run
from optzoo.primitives import add, gradient, merge, merge_leaves, only
from optzoo.primitives.base import ASKED_FOR
from optzoo.problems import PROBLEMS, Problem
from optzoo.registry import ARGUMENTS, Trait, unpublished
from optzoo.testing import Subject, Traits, Violation, check_transformation, conformance_checks
from optzoo.testing.offers import offers
from optzoo.testing.subject import random_like, small_params

PARAMS = small_params()
(GRADIENT,) = random_like(PARAMS, 1)
ASKING = {rule: names for rule, names in RULES.items() if names}
# Whatever calls `update` in another way.
CHOSEN = {
    *("needs_arguments", "needs_params", "stochastic", "bfloat16", "jit_equals_eager", "scan"),
    *("vmap_seeds", "gradient_through_update", "extra_args", "chain", "masked", "partition"),
    *("multi_steps", "inject_hyperparams", "apply_if_finite", "donation", "zero_size"),
}
CHECKS = [check for check in conformance_checks if check.name in CHOSEN]


def subject(rule, needs=None):
    traits = Traits(needs=RULES[rule] if needs is None else needs, stochastic=rule is noisy)
    return Subject(rule, traits=traits)


def test_what_can_be_asked_for_has_one_list_each_side():
    names = [name for arguments in ARGUMENTS.values() for name in arguments]
    assert set(names) == set(ASKED_FOR) == set(offers(PARAMS, GRADIENT))


@pytest.mark.parametrize("rule", RULES)
def test_the_kit_hands_over_what_a_rule_asks_for(rule):
    report = check_transformation(subject(rule), checks=CHECKS)
    assert len(report.rows) == len(CHOSEN) and report.ok, report.table(100)


@pytest.mark.parametrize("rule", RULES)
def test_a_claim_to_need_nothing_or_something_else_is_found_out(rule):
    (check,) = (check for check in conformance_checks if check.name == "needs_arguments")
    assert check(subject(rule)) == ", ".join(sorted(RULES[rule]))
    for wrong in ((), ("value",), ("gradients", "loss_fn")):
        if wrong != RULES[rule]:
            with pytest.raises(Violation, match="is claimed to need"):
                check(subject(rule, wrong))


@pytest.mark.parametrize("rule", ASKING)
def test_a_missing_argument_is_named(rule):
    tx, extra = rule(), offers(PARAMS, GRADIENT)
    for name in ASKING[rule]:
        rest = {other: value for other, value in extra.items() if other != name}
        with pytest.raises(ValueError, match=rf"^{rule.__name__} needs {name}, .*{name}=…\)$"):
            tx.update(GRADIENT, tx.init(PARAMS), PARAMS, **rest)


AROUND = {
    "chain": lambda tx: optax.chain(optax.identity(), tx),
    "merge": lambda tx: merge(lambda a, b: a, tx, gradient),
    "merge_leaves": lambda tx: merge_leaves(lambda a, b: a, tx, gradient),
    "only": lambda tx: only(True, tx),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 5),
    "masked": lambda tx: optax.masked(tx, jax.tree.map(lambda _: True, PARAMS)),
    "partition": lambda tx: optax.partition({0: tx}, jax.tree.map(lambda _: 0, PARAMS)),
    **{name: lambda tx, name=name: wrapped(name, tx) for name in optzoo.REGISTRY.wrappers},
}


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("rule", ASKING)
def test_extra_arguments_flow_through(rule, around):
    tx, extra = AROUND[around](rule()), offers(PARAMS, GRADIENT)
    step = jax.jit(lambda state: tx.update(GRADIENT, state, PARAMS, **extra))
    # The second step, because a wrapper may use the first one to look.
    updates, _ = step(step(tx.init(PARAMS))[1])
    # Not all leaves, because a wrapper may hold some.
    assert any(jnp.any(leaf != 0) for leaf in jax.tree.leaves(updates))
    # A wrapper may ask for something itself.
    first = ASKING[rule][0]
    rest = {name: value for name, value in extra.items() if name != first}
    with pytest.raises(ValueError, match=f"needs {first}"):
        tx.update(GRADIENT, tx.init(PARAMS), PARAMS, **rest)


@pytest.mark.parametrize("rule", ASKING)
def test_plain_loops_of_the_tests_are_answered(rule):
    traits = frozenset(trait for trait, names in ARGUMENTS.items() if names == ASKING[rule])
    tx = answered(rule(), dataclasses.replace(unpublished(rule), traits=traits))
    updates, _ = tx.update(GRADIENT, tx.init(PARAMS), PARAMS)
    extra = offers(PARAMS, GRADIENT)
    want, _ = rule().update(GRADIENT, rule().init(PARAMS), PARAMS, **extra)
    jax.tree.map(np.testing.assert_array_equal, updates, want)


@pytest.mark.parametrize("name", [*optzoo.REGISTRY.optimizers, *optzoo.REGISTRY.wrappers])
def test_a_step_takes_the_gradients_that_are_declared(name):
    entry, taken = optzoo.get(name), []
    if not entry.traits & {Trait.VALUE_FN, Trait.OUTPUTS}:
        assert entry.gradients == 1
        return

    def step(params, gradients):
        extra = offers(params, gradients)

        @jax.custom_vjp
        def differentiated(params):
            return params

        def noted(params):
            taken.append(None)
            return params, None

        differentiated.defvjp(noted, lambda _, slopes: (slopes,))

        def value_fn(params):
            return extra["value_fn"](differentiated(params))

        made = wrapped(name, optax.sgd(0.1)) if entry.kind == "wrapper" else entry.factory()
        counted = extra | {"value_fn": value_fn}
        return made.update(gradients, made.init(params), params, **counted)

    jax.eval_shape(step, PARAMS, GRADIENT)
    assert entry.gradients == 1 + len(taken)


def test_offers_are_one_loss_with_the_gradient_at_hand():
    extra = offers(PARAMS, GRADIENT)
    jax.tree.map(np.testing.assert_allclose, jax.grad(extra["value_fn"])(PARAMS), GRADIENT)
    means = jax.tree.map(lambda leaf: leaf.mean(0), extra["gradients"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), means, GRADIENT)
    assert extra["value"] == extra["value_fn"](PARAMS)
    further = jax.tree.map(add, PARAMS, GRADIENT)
    np.testing.assert_allclose(
        extra["loss_fn"](extra["outputs_fn"](further)), extra["value_fn"](further), rtol=1e-6
    )


def several() -> Problem:
    """Two bowls, half a unit apart, to be lowered at once."""

    def distances(x, batch):
        return jnp.stack([jnp.sum((x - at) ** 2) for at in (1.0, 1.5)])

    def loss(params, batch):
        return distances(params["x"], batch).mean()

    return Problem(
        init=lambda key: {"x": jax.random.normal(key, (3,))},
        loss=loss,
        evaluate=lambda params, split: {"loss": loss(params, None)},
        objectives=lambda params, batch: distances(params["x"], batch),
        outputs=lambda params, batch: params["x"],
        criterion=lambda x, batch: distances(x, batch).mean(),
        steps=60,
        target=0.2,
    )


@pytest.mark.parametrize("rule", RULES)
def test_a_comparison_hands_over_what_a_rule_asks_for(rule):
    found = run([several], [rule], lrs=[0.3], seeds=1).frame
    assert found["test_loss"].item() < 0.25


def test_a_comparison_says_what_a_problem_lacks():
    with pytest.raises(UserError, match="'curved' on 'quadratic'.*curved needs outputs_fn"):
        run(["quadratic"], [curved])


@pytest.mark.parametrize("name", ["digits", "language", "logistic", "digits_bf16"])
def test_outputs_and_criterion_are_the_loss(name):
    task = PROBLEMS[name]()
    params, batch = task.init(jax.random.key(0)), task.draw(jax.random.key(1), jnp.asarray(0))
    assert task.criterion(task.outputs(params, batch), batch) == task.loss(params, batch)


def test_one_objective_is_a_gradient_with_one_row():
    task = PROBLEMS["quadratic"]()
    params, batch = task.init(jax.random.key(0)), task.draw(jax.random.key(1), jnp.asarray(0))
    gradients, extra = task.differentiate(params, batch)
    rows = jax.tree.map(lambda g: g[None], gradients)
    jax.tree.map(np.testing.assert_array_equal, extra["gradients"], rows)
    np.testing.assert_array_equal(extra["value"], extra["value_fn"](params))
