"""Automatic mistakes in our own kernels (kernel_cases/mutants.py): the record of all, a sample of them judged here."""

import pytest
from kernel_cases.equivalent import EQUIVALENT, explained
from kernel_cases.mutants import CASES, CHECKS, judged, mutants_of
from kernel_cases.tally import FOLDER, Tally, fingerprint

REDO = "run scripts/mutate_kernels.py"


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize(("file", "start", "every"), [("router_topk", 23, 18), ("gated_delta", 3, 60)])
def test_a_sample_of_mutants_is_found(file, start, every):
    verdicts = list(judged(file, mutants_of(file)[start::every], CHECKS[:2]))  # by numbers and counted work
    assert len(verdicts) >= 2
    assert [verdict.mutant for verdict in verdicts if not verdict.by] == []


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("file", CASES)
def test_all_mutants_are_found(file):
    tally = Tally.of(file, list(judged(file, mutants_of(file))))
    assert tally.unexplained == []
    assert tally.rate >= 0.95


RECORDED = [file for file in CASES if (FOLDER / f"{file}.json").exists()]


@pytest.mark.parametrize("file", CASES)
def test_the_record_is_of_these_kernels(file):
    if file not in RECORDED:
        pytest.skip(f"the mutants of {file} are not judged yet: {REDO} {file}")
    tally = Tally.read(file)
    assert tally.fingerprint == fingerprint(file), f"{file}.metal has changed: {REDO}"
    assert tally.mutants + tally.found["compiler"] == len(mutants_of(file))
    assert tally.rate >= 0.95
    assert tally.unexplained == []


@pytest.mark.parametrize("file", RECORDED)
def test_explanations_are_of_survivors(file):
    survivors = {mutant.split(": ", 1)[1] for mutant in Tally.read(file).survivors}
    assert explained(file) == survivors
    assert set(EQUIVALENT) == set(CASES)
