import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optzoo import problems
from optzoo.compare import run
from optzoo.compare.plan import select
from optzoo.problems import LARGE, PROBLEMS, Problem, base, large, problem
from optzoo.problems.half import SUFFIX
from optzoo.problems.landscapes import landscape
from optzoo.problems.large import language_model, rotated
from optzoo.problems.sequences import PRINTABLE, encode

KEY = jax.random.key(0)
SOLVED = [n for n, one in PROBLEMS.items() if one.group in ("landscapes", "stochastic")]
BATCHES = jax.random.split(KEY, 20)


def full_precision():
    """Each bfloat16 problem is another one's, cast; two of them stand for all."""
    halves = [name for name, one in PROBLEMS.items() if one.group == "bfloat16"]
    small = [name for name, one in PROBLEMS.items() if one.group != LARGE]
    return [name for name in small if name not in halves[2:]]


@pytest.fixture(scope="module", params=full_precision())
def task(request) -> Problem:
    return PROBLEMS[request.param]()


@pytest.fixture(scope="module")
def trained(task):
    """Starts of two seeds, the report on both splits, and losses along twenty short steps."""

    def train(keys):
        params = task.init(keys[0])

        def descend(params, key):
            value, gradients = jax.value_and_grad(task.loss)(params, task.batch(key))
            norm = sum(jnp.sum(jnp.square(leaf.astype("float32"))) for leaf in leaves(gradients))
            scale = 0.02 * jax.lax.rsqrt(norm)
            moved = jax.tree.map(lambda p, g: p - scale.astype(p.dtype) * g, params, gradients)
            return moved, (value, norm)

        after, (values, norms) = jax.lax.scan(descend, params, BATCHES)
        reports = {split: task.evaluate(params, split) for split in ("validation", "test")}
        first = task.batch(BATCHES[0])
        return params, task.init(keys[1]), reports, values, norms, task.loss(after, first)

    quickly = {"xla_backend_optimization_level": 0}
    return jax.jit(train, compiler_options=quickly)(jnp.stack([KEY, jax.random.key(1)]))


leaves = jax.tree.leaves


def test_loss_is_finite_and_has_a_gradient(trained):
    _, _, _, values, norms, _ = trained
    assert values.shape == (len(BATCHES),) and jnp.isfinite(values).all() and (norms > 0).all()


def test_evaluation_reports_scalars_and_starts_unsolved(task, trained):
    for report in trained[2].values():
        assert all(value.shape == () for value in report.values())
        assert report["loss"] > task.target > task.lowest


def test_seeds_start_apart(trained):
    first, other = trained[:2]
    assert any((a != b).any() for a, b in zip(leaves(first), leaves(other), strict=True))


def test_gradient_steps_lower_the_loss_on_their_batches(trained):
    assert trained[5] < trained[3][0]


@pytest.mark.parametrize("name", PROBLEMS)
def test_describes_itself(name):
    declared = PROBLEMS[name]
    assert declared.summary and "\n" not in declared.summary
    assert len(declared.description) > 2 * len(declared.summary), "what does it tell apart?"


@pytest.mark.parametrize("name", [n for n in SOLVED if PROBLEMS[n]().solution is not None])
def test_solutions_are_the_lowest_points(name):
    task = PROBLEMS[name]()
    evaluate = jax.jit(lambda params: task.evaluate(params, "test")["loss"])
    lowest = evaluate(task.solution)
    np.testing.assert_allclose(lowest, task.lowest, atol=1e-5)
    for key in jax.random.split(KEY, 8):
        start, tree = jax.flatten_util.ravel_pytree(task.solution)
        nearby = tree(start + 0.05 * jax.random.normal(key, start.shape))
        assert evaluate(nearby) > lowest


def test_problems_without_a_solution_are_those_with_real_data():
    unsolved = [name for name in SOLVED if PROBLEMS[name]().solution is None]
    assert unsolved == ["logistic", "least_squares"]


@pytest.mark.parametrize("name", [n for n in SOLVED if PROBLEMS[n]().box])
def test_paths_can_be_drawn(name):
    task = PROBLEMS[name]()
    left, right, bottom, top = task.box
    report = task.evaluate(task.solution, "validation")
    assert left < report["x"] < right and bottom < report["y"] < top


@pytest.mark.parametrize(
    ("name", "point", "value"),
    [
        ("rosenbrock", (0.0, 0.0), 1.0),
        ("beale", (0.0, 0.0), 14.203125),
        ("rastrigin", (0.5, 0.0), 20.25),
        ("styblinski_tang", (0.0, 0.0), 78.33233),
        ("himmelblau", (0.0, 0.0), 170.0),
        ("himmelblau", (-2.805118, 3.131312), 0.0),
        ("diffgrad_1", (0.2,), 0.05),
        ("diffgrad_1", (-1.0,), 0.49),
        ("diffgrad_3", (0.5,), 0.25),
        ("diffgrad_3", (0.4,), 0.35),
    ],
)
def test_landscapes_have_their_published_heights(name, point, value):
    task = PROBLEMS[name]()
    params = {"point": jnp.asarray(point)}
    np.testing.assert_allclose(task.evaluate(params, "test")["loss"], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["quadratic", "quadratic_aligned", "sensing", "deep_linear", "reddi"]
)
def test_noise_has_no_bias(name):
    task = PROBLEMS[name]()
    params = jax.jit(task.init)(KEY)

    @jax.jit
    def slope(key):
        """The gradient along a fixed direction."""
        gradients = jax.grad(task.loss)(params, task.batch(key))
        return sum(jnp.sum(leaf) for leaf in leaves(gradients))

    slopes = jax.lax.map(slope, jax.random.split(KEY, 4000), batch_size=100)
    exact = jax.grad(lambda p: task.evaluate(p, "test")["loss"])(params)
    expected = sum(jnp.sum(leaf) for leaf in leaves(exact))
    np.testing.assert_allclose(slopes.mean(), expected, atol=4 * slopes.std() / 63)


def test_zipf_cannot_be_learnt_better_than_its_entropy():
    task = PROBLEMS["zipf"]()
    words, following = task.batch(KEY)
    assert words.shape == following.shape
    uniform = jax.tree.map(lambda x: jnp.zeros(x.shape), jax.eval_shape(task.init, KEY))
    assert task.lowest < task.evaluate(uniform, "test")["loss"] < jnp.log(128) + 1e-3


def test_half_problems_differ_in_precision_alone():
    full, half = PROBLEMS["digits"](), PROBLEMS["digits" + SUFFIX]()
    params = jax.jit(half.init)(KEY)
    assert {leaf.dtype.name for leaf in leaves(params)} == {"bfloat16"}
    wide = jax.tree.map(lambda leaf: leaf.astype("float32"), params)
    assert half.evaluate(params, "test") == full.evaluate(wide, "test")
    neural = [name for name, one in PROBLEMS.items() if one.group == "neural"]
    assert [n + SUFFIX for n in neural] == [n for n in PROBLEMS if n.endswith(SUFFIX)]


def test_networks_that_normalise_by_batch_keep_no_statistics_among_their_parameters():
    task = PROBLEMS["digits_norm"]()
    params = jax.jit(task.init)(KEY)
    assert set(params) >= {"norm_0", "norm_1"} and "batch_stats" not in params
    image, label = task.batch(KEY)
    few, all_of_them = (jax.jit(task.loss)(params, (image[:n], label[:n])) for n in (8, 64))
    assert jnp.isfinite(few) and jnp.isfinite(all_of_them)


def test_text_is_encoded_in_the_fixed_alphabet():
    assert [PRINTABLE[code] for code in encode("a\n~é€")] == ["a", "\n", "~", "?", "?"]


def test_the_language_model_has_a_million_parameters_nearly_all_in_matrices(monkeypatch):
    shapes = jax.eval_shape(PROBLEMS["gpt"]().init, KEY)
    sizes = [leaf.size for leaf in leaves(shapes)]
    blocks = [leaf.size for leaf in leaves(shapes) if leaf.shape in ((128, 128), (128, 512))]
    assert 0.95e6 < sum(sizes) < 1.05e6 and sum(blocks) > 0.6e6
    monkeypatch.setattr(base.Declared, "__call__", lambda declared: declared.name)
    assert "gpt" not in select.problems(["all"]) and "gpt" in select.problems([LARGE])


def test_a_small_language_model_learns_from_text_that_is_not_tested():
    size = {"width": 16, "depth": 1, "heads": 2, "context": 16, "batch_size": 4}
    task = language_model(**size, steps=1, target=3.0)

    @jax.jit
    def descend(params, key):
        gradients = jax.grad(task.loss)(params, task.batch(key))
        return jax.tree.map(lambda p, g: p - 0.3 * g, params, gradients)

    params = jax.jit(task.init)(KEY)
    evaluate = jax.jit(task.evaluate, static_argnums=1)
    before = evaluate(params, "test")["loss"]
    np.testing.assert_allclose(before, np.log(len(PRINTABLE)), atol=0.1)
    for key in BATCHES:
        params = descend(params, key)
    assert evaluate(params, "test")["loss"] < before - 0.3
    training, *held_out = (
        {piece.tobytes() for piece in text.reshape(-1, large.PIECE)} for text in large._pieces()
    )
    assert all(held_out) and not any(pieces & training for pieces in held_out)


def test_rotary_positions_make_scores_depend_on_distances_alone():
    query, key = jax.random.normal(KEY, (2, 8))
    turned = [rotated(jnp.tile(x, (1, 6, 1, 1)))[0, :, 0] for x in (query, key)]
    scores = jnp.einsum("id,jd->ij", *turned)
    for distance in range(-5, 6):
        along = jnp.diagonal(scores, distance)
        np.testing.assert_allclose(along, along[0], rtol=1e-4)
    np.testing.assert_allclose(scores[0, 0], query @ key, rtol=1e-5)
    assert jnp.ptp(scores) > 1


def test_landscapes_without_a_box_report_no_place():
    task = landscape(jnp.sum, (1.0,), (0.0,), steps=1, target=0.5)
    assert set(task.evaluate(task.solution, "test")) == {"loss"}


def test_registering_a_problem(monkeypatch):
    monkeypatch.setattr(base, "PROBLEMS", {})

    def bowl() -> Problem:
        """A bowl.

        More about it.
        """
        return Problem(lambda key: 1.0, lambda x, _: x**2, lambda x, _: {"loss": x**2}, 1, 0.0)

    assert problem("bowls")(bowl) is bowl
    built = base.PROBLEMS["bowl"]()
    assert (built.name, built.summary) == ("bowl", "A bowl")
    with pytest.raises(ValueError, match="registered already"):
        problem("bowls")(bowl)


def test_the_documented_example_works():
    example = problems.__doc__.split("`mine.py`:\n")[1].split("\nThen ")[0]
    names = {}
    exec(textwrap.dedent(example), names)
    results = run([names["line"]], [optax.sgd], lrs=[0.1], seeds=1, steps=100)
    assert results.table["test_loss"][0] < 0.05
