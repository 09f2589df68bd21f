import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optzoo import problems
from optzoo.compare import run
from optzoo.problems import PROBLEMS, Problem, base, problem
from optzoo.problems.text import PRINTABLE, encode

KEY = jax.random.key(0)


@pytest.fixture(scope="module", params=list(PROBLEMS))
def task(request) -> Problem:
    return PROBLEMS[request.param]()


def test_loss_is_a_finite_scalar_with_a_gradient(task):
    params = task.init(KEY)
    value, gradients = jax.jit(jax.value_and_grad(task.loss))(params, task.batch(KEY))
    assert value.shape == () and jnp.isfinite(value)
    assert any(jnp.any(leaf != 0) for leaf in jax.tree.leaves(gradients))
    assert jax.tree.structure(gradients) == jax.tree.structure(params)


def test_evaluation_reports_scalars_and_starts_unsolved(task):
    for split in ("validation", "test"):
        report = jax.jit(task.evaluate, static_argnums=1)(task.init(KEY), split)
        assert all(value.shape == () for value in report.values())
        assert report["loss"] > task.target


def test_seeds_differ_and_repeat(task):
    first, again, other = (task.init(jax.random.key(seed)) for seed in (0, 0, 1))
    same = jax.tree.map(lambda a, b: bool((a == b).all()), first, again)
    differs = jax.tree.map(lambda a, b: bool((a != b).any()), first, other)
    assert all(jax.tree.leaves(same)) and any(jax.tree.leaves(differs))


def test_describes_itself(task):
    assert task.name in PROBLEMS
    assert task.summary and "\n" not in task.summary
    assert task.steps > 0


def test_gradient_steps_lower_the_loss(task):
    params = task.init(KEY)
    before = task.evaluate(params, "validation")["loss"]

    @jax.jit
    def descend(params, key):
        gradients = jax.grad(task.loss)(params, task.batch(key))
        norm = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradients)) ** 0.5
        return jax.tree.map(lambda p, g: p - 0.02 * g / norm, params, gradients)

    for key in jax.random.split(KEY, 20):
        params = descend(params, key)
    assert task.evaluate(params, "validation")["loss"] < before


def test_minima_of_the_functions():
    valley = PROBLEMS["rosenbrock"]()
    assert valley.evaluate({"point": jnp.ones(2)}, "test")["loss"] == 0


def test_quadratic_noise_has_no_bias():
    bowl = PROBLEMS["quadratic"]()
    params = bowl.init(KEY)
    losses = jax.vmap(lambda key: bowl.loss(params, key))(jax.random.split(KEY, 4096))
    expected = bowl.evaluate(params, "validation")["loss"]
    np.testing.assert_allclose(losses.mean(), expected, atol=4 * losses.std() / 64)


def test_text_is_encoded_in_the_fixed_alphabet():
    assert [PRINTABLE[code] for code in encode("a\n~é€")] == ["a", "\n", "~", "?", "?"]


def test_registering_a_problem(monkeypatch):
    monkeypatch.setattr(base, "PROBLEMS", {})

    def bowl() -> Problem:
        """A bowl.

        More about it.
        """
        return Problem(lambda key: 1.0, lambda x, _: x**2, lambda x, _: {"loss": x**2}, 1, 0.0)

    built = problem(bowl)()
    assert (built.name, built.summary) == ("bowl", "A bowl")
    with pytest.raises(ValueError, match="registered already"):
        problem(bowl)


def test_the_documented_example_works():
    example = problems.__doc__.split("`mine.py`:\n")[1].split("\nThen ")[0]
    names = {}
    exec(textwrap.dedent(example), names)
    results = run([optax.sgd], [names["line"]], lrs=[0.1], seeds=1, steps=100)
    assert results.table["test_loss"][0] < 0.05
