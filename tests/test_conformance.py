"""Every optimizer and primitive passes every check of the conformance kit."""

import pytest
from subjects import BASES, PRIMITIVES, in_turn, primitive_subject, subject, wrapper_subject

import optzoo
from optzoo.testing import conformance_checks

# These run in tests/test_sharding.py, in processes with as many devices as they need; those on
# metadata say something on one device, too.
ELSEWHERE = {"sharded_auto", "sharded_explicit", "two_processes"}
METADATA = {"linen_metadata", "nnx_metadata"}
# What a wrapper most easily breaks for a sound inside, and cheap; all else runs with -m slow.
WRAPPING = {
    *("float32", "bfloat16", "x64_mode", "jit_equals_eager", "scan", "extra_args", "donation"),
    *("no_aliasing", "none_leaves", "empty_tree", "masked", "evaluation", "needs_params"),
    *("needs_arguments", "mismatched_trees", "stochastic", "traced_hyperparameters"),
}
# What looks at one thing in several ways.
ALIKE = (
    ("bfloat16_tracks_float32", "float16"),
    ("vmap_hyperparameters", "vmap_seeds"),
    ("dataclasses_", "frozen_dict", "nnx_state", "none_leaves", "renaming"),
    ("apply_if_finite", "chain", "inject_hyperparams", "masked", "multi_steps", "partition"),
)
CHECKS = [check for check in conformance_checks if check.name not in ELSEWHERE]


def every_rule():
    """Every check of every rule; of those that are alike, by default one in its turn."""
    for name in optzoo.REGISTRY.optimizers:
        for check in CHECKS:
            if check.name not in METADATA:
                alike = next((group for group in ALIKE if check.name in group), (check.name,))
                marks = in_turn(name, alike, check.name)
                yield pytest.param(name, check, id=f"{name}-{check}", marks=marks)


@pytest.mark.parametrize(("name", "check"), [*every_rule()])
def test_conformance(name, check):
    check(subject(name))


def around_bases():
    """Every check of every wrapper around every base; the default run has what wraps can break."""
    for name in optzoo.REGISTRY.wrappers:
        for base in BASES:
            for check in CHECKS:
                quick = base == "adamw" and check.name in WRAPPING
                marks = () if quick else pytest.mark.slow
                yield pytest.param(name, base, check, id=f"{name}-{base}-{check}", marks=marks)


@pytest.mark.parametrize(("name", "base", "check"), [*around_bases()])
def test_wrappers_conform(name, base, check):
    check(wrapper_subject(name, base))


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS, ids=str)
@pytest.mark.parametrize("primitive", PRIMITIVES)
def test_primitives_conform(primitive, check):
    check(primitive_subject(primitive))


@pytest.mark.slow
@pytest.mark.parametrize("name", optzoo.REGISTRY.optimizers)
def test_ten_thousand_leaves(name):
    (check,) = (check for check in conformance_checks if check.name == "many_leaves")
    check(subject(name, leaves=10_000))
