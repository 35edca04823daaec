"""Which build a machine is given, and what it is told when there is none."""

import pytest

from qwen35_local.commands.expect import expectation, known_as
from qwen35_local.errors import StorageError, UsageError
from qwen35_local.hub.catalog import BUILDS, GB, MODELS, find_build
from qwen35_local.hub.machine import Machine, this_machine

MAC = Machine("apple", "Apple M4 Max", 64 << 30)
BOX = Machine("cuda", "NVIDIA RTX 4090", 192 << 30, 24 << 30)
SERVER = Machine("cpu", "AMD EPYC", 512 << 30)
LAPTOP = Machine("cpu", "laptop", 30 << 30)


@pytest.mark.parametrize(
    ("machine", "name", "build"),
    [
        (MAC, "397b", "397b:4bit"),
        (MAC, "397B:MXFP4", "397b:mxfp4"),
        (MAC, "35b", "35b:8bit"),
        (BOX, "397b", "397b:UD-IQ4_XS"),
        (SERVER, "397b", "397b:Q8_0"),
        (SERVER, "397b:ud-q4_k_xl", "397b:UD-Q4_K_XL"),
        (SERVER, "122b", "122b:Q4_K_M"),
        (SERVER, "35b", "35b:Q8_0"),
        (LAPTOP, "35b", "35b:UD-Q3_K_XL"),
    ],
)
def test_choice(machine, name, build):
    assert find_build(name, machine, 2000 * GB).full_name == build


def test_less_disk_takes_a_smaller_quant():
    assert find_build("397b", SERVER, 130 * GB).full_name == "397b:UD-IQ2_M"


def test_refusals_have_both_numbers_and_advice():
    with pytest.raises(StorageError, match=r"needs 225 GB of disk, 100 GB are free\. `qwen35 download 122b` would fit"):
        find_build("397b", MAC, 100 * GB)
    with pytest.raises(StorageError, match=r"needs 127 GB of memory, it has 32 GB\. `qwen35 download 35b` would fit"):
        find_build("397b", LAPTOP, 2000 * GB)
    with pytest.raises(StorageError, match=r"35b` would fit; `qwen35 download 397b:4bit` would run on the CPU by MLX"):
        find_build("397b", LAPTOP, 2000 * GB)
    with pytest.raises(StorageError, match=r"`qwen35 download 35b` would fit$"):
        find_build("397b", LAPTOP, 100 * GB)
    small = Machine("cpu", "box", 16 << 30)
    with pytest.raises(StorageError, match=r"needs 25 GB of memory, it has 17 GB\. `qwen35 download 35b:4bit` would"):
        find_build("35b", small, 2000 * GB)
    with pytest.raises(StorageError, match=r"needs 25 GB of memory, it has 17 GB\.$"):
        find_build("35b", small, 10 * GB)
    with pytest.raises(UsageError, match="choose 397b, 122b, 35b, or use --repo"):
        find_build("70b", MAC, 2000 * GB)
    with pytest.raises(UsageError, match="has no build 'q9'"):
        find_build("397b:q9", MAC, 2000 * GB)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("kind", ["apple", "cuda", "cpu"])
def test_every_model_has_a_build_for_every_kind_of_machine(model, kind):
    """With memory and disk for it; and without, a sentence."""
    assert find_build(model, Machine(kind, "large", 1024 << 30), 2000 * GB).model == model
    with pytest.raises(StorageError, match="does not fit this machine"):
        find_build(model, Machine(kind, "tiny", 2 << 30), 2000 * GB)
    with pytest.raises(StorageError, match="does not fit this machine"):
        find_build(model, Machine(kind, "large", 1024 << 30), 1 * GB)


def test_builds_are_distinct():
    assert len({build.full_name for build in BUILDS}) == len({build.directory for build in BUILDS}) == len(BUILDS)


def test_expectations_are_predictions_of_known_machines():
    assert known_as(MAC) == "m4-max-64"
    assert known_as(BOX) is None
    assert "predicted (not measured)" in expectation(find_build("397b", MAC, 2000 * GB), MAC)
    assert "llama.cpp" in expectation(find_build("397b", BOX, 2000 * GB), BOX)


def test_this_machine():
    machine = this_machine()
    assert machine.memory > 1 << 28
    assert machine.chip
