"""`qwen35 plan`: the released model's arithmetic, named Macs, refusals."""

import json

import pytest

from qwen35_local.commands.plan import describe, lines
from qwen35_local.errors import MemoryPlanError, UsageError
from qwen35_local.experts.machines import MACHINES


def test_the_released_model_on_a_named_mac():
    found = describe("397b", None, None, "m3-max-48")
    text = "\n".join(lines(found))
    assert "an expert: 6,684,672 bytes; a token uncached: 4.011 GB; all: 205.35 GB" in text
    assert "PREDICTED, not measured" in text
    assert found["total_bytes"] <= found["budget_bytes"] == (48 << 30) * 65 // 100
    assert 40 < found["slots_per_layer"][0] < 80
    cold = found["predictions"]["at_hit_rates"]["0%"]
    assert cold["bytes_per_token"] == 4_010_803_200
    assert cold["decode_tps"][1] == pytest.approx(1.37, abs=0.01)
    json.dumps(found)


@pytest.mark.parametrize("machine", MACHINES)
def test_every_machine_of_the_table_has_a_plan(machine):
    found = describe("397b", None, None, machine)
    assert found["predictions"]["decode_tps"][0] <= found["predictions"]["decode_tps"][1]
    assert found["resident"] == (machine == "m3-ultra-512")


def test_this_machine_says_no_speeds():
    found = describe("397b", "16GB", 4096, None)
    assert found["predictions"] is None
    assert "name a Mac with --machine" in "\n".join(lines(found))


def test_few_experts_in_memory_are_said_to_be_slow():
    for machine, few in (("m4-24", True), ("m3-max-48", False)):
        found = describe("397b", None, None, machine)
        assert (min(found["slots_per_layer"]) < 20) == few
        assert any("fewer than 20, those of two tokens" in line for line in lines(found)) == few


def test_a_model_directory():
    found = describe("miniature", "2GB", None, None)
    assert found["resident"]
    assert not any("fewer than" in line for line in lines(found))


def test_refusals():
    with pytest.raises(MemoryPlanError, match=r"and the budget is 6\.00 GB"):
        describe("397b", "6GB", None, None)
    with pytest.raises(UsageError, match="no machine 'm9'"):
        describe("397b", None, None, "m9")
