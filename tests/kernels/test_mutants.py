"""Automatic mistakes in our own kernels (see kernel_cases/mutants.py): a sample here, all of them with `-m slow`."""

import pytest
from kernel_cases.mutants import CASES, EQUIVALENT, lines, survivors

pytestmark = pytest.mark.usefixtures("compiler")


@pytest.mark.parametrize(
    ("file", "every"), [("router_topk", 18), ("expert_mlp", 50), ("delta_inputs", 40), ("gated_delta", 75)]
)
def test_a_sample_of_mutants_is_found(file, every):
    _, left = survivors(file, slice(5, None, every))
    assert left == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("file", CASES)
def test_mutants_are_found(file):
    total, left = survivors(file, slice(None))
    assert left == []
    assert len([line for line in EQUIVALENT if line in lines(file)]) <= 0.05 * total


def test_every_explanation_is_of_a_mutant():
    assert set(EQUIVALENT) <= {line for file in CASES for line in lines(file)}
