"""Automatic mistakes in our own kernels (see kernel_cases/mutants.py): a sample here, all of them with `-m slow`."""

import pytest
from kernel_cases.mutants import CASES, CHECKS, EQUIVALENT, lines, survivors

pytestmark = pytest.mark.usefixtures("compiler")


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("file", "start", "every"), [("router_topk", 23, 18), ("gated_delta", 3, 60)])
def test_a_sample_of_mutants_is_found(file, start, every):
    _, left = survivors(file, slice(start, None, every), checks=CHECKS[:1])  # by numbers and counted work
    assert left == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("file", CASES)
def test_mutants_are_found(file):
    _, left = survivors(file, slice(None))
    assert left == []


def test_explanations_are_of_mutants_and_few():
    made = [line for file in CASES for line in lines(file)]
    assert set(EQUIVALENT) <= set(made)
    assert len(EQUIVALENT) <= 0.05 * len(made)
