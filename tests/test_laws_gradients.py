"""Laws of the rules that change, mix or add gradients."""

import optax
import pytest
from laws import STEPS, close, runner, tree

import optzoo
from optzoo import primitives

RATE = 1e-2


def example(seed):
    return tree(seed), tree(seed + 1, steps=STEPS)


SAME = {
    "qhm without its average": (optzoo.qhm(RATE, nu=0.0), optax.sgd(RATE)),
    "qhm of the average alone": (
        optzoo.qhm(RATE, momentum=0.9, nu=1.0),
        optax.sgd(RATE * (1 - 0.9), momentum=0.9),
    ),
    "qhm as Nesterov's": (
        optzoo.qhm(RATE, momentum=0.9, nu=0.9),
        optax.sgd(RATE * (1 - 0.9), momentum=0.9, nesterov=True),
    ),
    "qhadam of the averages alone": (
        optzoo.qhadam(RATE, b1=0.9, nu1=1.0),
        optax.chain(primitives.adam(), optax.scale_by_learning_rate(RATE)),
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_at_its_limits_a_rule_is_another(name):
    ours, known = map(runner, SAME[name])
    params, grads = example(0)
    close(ours(params, grads)[0], known(params, grads)[0])
