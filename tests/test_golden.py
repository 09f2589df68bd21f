"""Every rule equals its authors' code: recorded trajectories, replayed step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden.replay import (
    CONFIGURATIONS,
    FILES,
    FUNCTIONS,
    INDEX,
    build,
    deviation,
    flax_layout,
    in_torch_layout,
    laid_out,
    load,
    outputs,
    replay,
)

import optzoo

MATRICES = [name for name in CONFIGURATIONS if FILES[name].parent.name == "matrix"]
MEASURED_STEPS = [name for name, entry in CONFIGURATIONS.items() if "step_size" in entry]


def first_of_each_rule(names):
    """Recordings with marks: those after a rule's first one run with -m slow."""
    seen = set()
    for name in names:
        rule = CONFIGURATIONS[name]["optzoo"].get("call")
        yield name, pytest.mark.slow if rule in seen else ()
        seen.add(rule)


def in_both_precisions():
    """All recordings; in float32, where rounding hides much, one of each rule by default."""
    for name, marks in first_of_each_rule(CONFIGURATIONS):
        yield pytest.param(name, "float64", id=f"{name}-float64")
        yield pytest.param(name, "float32", id=f"{name}-float32", marks=marks)


@pytest.mark.parametrize(("name", "dtype"), [*in_both_precisions()])
def test_trajectory_is_the_recorded_one(name, dtype):
    configuration = CONFIGURATIONS[name]
    arrays = laid_out(name)
    kind = configuration.get("evaluation")
    params, evaluated = replay(
        configuration["optzoo"],
        arrays,
        dtype,
        optzoo.eval_params if kind else None,
        configuration.get("start_state"),
        configuration.get("after_first"),
        configuration.get("extra"),
    )
    tolerance = INDEX["tolerance"][dtype] | configuration.get(dtype, {})
    different = configuration.get("deviates", {"leaves": ()})

    def check(got, want):
        for leaf, parted in deviation(got, want, arrays["params0"], tolerance["rounding"]).items():
            if leaf in different["leaves"]:
                assert different["at_least"] <= parted[-1] <= different["at_most"], leaf
            else:
                assert np.max(parted) <= tolerance["displacement"], leaf

    check(params, arrays["params"])
    if kind:
        steps = arrays[f"{kind}_steps"][""]
        check({leaf: value[steps] for leaf, value in evaluated.items()}, arrays[kind])


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=marks) for name, marks in first_of_each_rule(MATRICES)]
)
def test_a_matrix_is_the_same_map_in_either_layout(name):
    configuration, arrays = CONFIGURATIONS[name], load(name)
    node = in_torch_layout(configuration["optzoo"])
    start = configuration.get("start_state")
    params, _ = replay(node, arrays, "float64", start_state=start)
    tolerance = INDEX["tolerance"]["float64"] | configuration.get("float64", {})
    parted = deviation(params, arrays["params"], arrays["params0"], tolerance["rounding"])
    different = configuration.get("deviates", {"leaves": ()})["leaves"]
    for leaf in parted.keys() - set(different):
        assert np.max(parted[leaf]) <= tolerance["displacement"], leaf


@pytest.mark.parametrize("name", MEASURED_STEPS)
def test_step_sizes_are_the_recorded_ones(name):
    measured = CONFIGURATIONS[name]["step_size"]
    arrays = flax_layout(load(name))
    recorded = arrays[measured["array"]]
    got = outputs(measured["optzoo"], arrays, "float64")
    for column, leaf in enumerate(CONFIGURATIONS[name]["leaves"]):
        want = recorded[leaf] if leaf in recorded else recorded[""][:, column]
        np.testing.assert_allclose(got[leaf] if isinstance(got, dict) else got, want, rtol=1e-10)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_give_the_recorded_values(name):
    function, arrays = FUNCTIONS[name], load(name)
    with jax.enable_x64(True):
        given = jnp.asarray(arrays["input"][function["input"]])
        for key, node in function["optzoo"].items():
            kind, _, part = key.partition("/")
            want = arrays[kind][part]
            got = build(node, {})(given)
            np.testing.assert_allclose(got, want, atol=function["tolerance"] * np.abs(want).max())


def test_a_node_may_name_what_composes():
    arguments = {"rule": "lookahead(sgd(momentum=0.0), period=2)", "learning_rate": 0.5}
    tx = build({"call": "optzoo.build", "arguments": arguments}, {})
    params = {"w": np.ones(2, np.float32)}
    updates, _ = tx.update(params, tx.init(params), params)
    np.testing.assert_array_equal(updates["w"], [-0.5, -0.5])
    schedule = build({"call": "optzoo.cosine", "positional": [1.0, 10]}, {})
    assert float(schedule(np.int32(1))) == 1.0


def test_every_recording_is_in_the_index(request):
    files = sorted((request.path.parent / "golden").rglob("*.npz"))
    assert files == sorted(FILES.values())
