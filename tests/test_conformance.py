"""Every optimizer and primitive passes every check of the conformance kit."""

import pytest
from subjects import PRIMITIVES, primitive_subject, subject

import optzoo
from optzoo.testing import conformance_checks

# These run in tests/test_sharding.py, in processes with as many devices as they need.
ELSEWHERE = {"sharded_auto", "sharded_explicit", "two_processes"}
CHECKS = [check for check in conformance_checks if check.name not in ELSEWHERE]


@pytest.mark.parametrize("check", CHECKS, ids=str)
@pytest.mark.parametrize("name", optzoo.REGISTRY.optimizers)
def test_conformance(name, check):
    check(subject(name))


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
