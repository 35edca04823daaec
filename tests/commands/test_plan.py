"""`qwen35 plan`: the released model's arithmetic, named Macs, refusals."""

import json

import pytest

from qwen35_local.commands.plan import describe, lines
from qwen35_local.errors import MemoryPlanError, UsageError
from qwen35_local.experts.machines import MACHINES


def test_the_released_model_on_a_named_mac():
    found = describe("397b", None, None, "m3-max-48")
    text = "\n".join(lines(found))
    assert "an expert: 6,684,672 bytes; all: 205.35 GB; a token with none in memory reads 4.01 GB" in text
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


def test_eyes_are_in_the_plan(sighted, pristine):
    seeing, blind = ("\n".join(lines(describe(str(path), "2GB", 512, None))) for path in (sighted, pristine))
    assert "vision, pictures of 512 tokens" in seeing
    assert "vision" not in blind
    assert "vision, pictures of 1024 tokens" in "\n".join(lines(describe("397b", "16GB", None, None)))


def test_refusals():
    with pytest.raises(MemoryPlanError, match=r"and the budget is 6\.00 GB"):
        describe("397b", "6GB", None, None)
    with pytest.raises(UsageError, match="no machine 'm9'"):
        describe("397b", None, None, "m9")


def test_a_gguf_file(qwen35, sighted, tmp_path):
    file = tmp_path / "tiny.gguf"
    assert qwen35("gguf", str(sighted), str(file)).status == 0
    shown = qwen35("plan", "--model", str(file), "--memory", "4GB", "--gpu", "2GB", "--json")
    found = json.loads(shown.out)
    assert (found["gpu_layers"], found["cpu_experts"], found["layers"]) == (9, 0, 8)
    assert found["vision"] == "mmproj-tiny.gguf"
    assert found["free_bytes"] == {"memory": 4 * 10**9, "gpus": [2 * 10**9]}
    assert sum(found["reserved_bytes"].values()) == sum(found["needed_bytes"].values())
    text = qwen35("plan", "--model", str(file), "--memory", "4GB", "--gpu", "0").out
    assert "vision part mmproj-tiny.gguf" in text
    assert "all on the CPU" in text
    refused = qwen35("plan", "--model", str(file), "--memory", "400MB", "--gpu", "0")
    assert refused.status != 0
    assert refused.err.startswith("qwen35: tiny.gguf needs 0.5 GB of memory, 0.4 GB are free: take a smaller quant")
    for options in (("--model", str(file), "--machine", "m3-max-48"), ("--gpu", "24GB")):
        assert qwen35("plan", *options).status == 2


@pytest.mark.parametrize(
    ("context", "yarn", "kv_bits", "per_token"),
    [(262144, 1, None, 30720), (524288, 2, None, 30720), (1010000, 4, None, 30720), (1010000, 4, 8, 16320),
     (1010000, 4, 4, 8640)],
)  # fmt: skip
def test_long_contexts_are_planned_in_memory(context, yarn, kv_bits, per_token):
    """30 KiB a token in bfloat16, with room for a buffer that grows: 9.4 GB at 262,144, 39 GB at a million."""
    found = describe("397b", "64GB", context, None, kv_bits)
    assert (found["context"], found["yarn"], found["kv_bytes_per_token"]) == (context, yarn, per_token)
    (kv,) = (size for name, size in found["reserved_bytes"].items() if name.startswith("keys and values"))
    assert kv == pytest.approx(context * per_token * 1.25, rel=1e-3)
    assert found["total_bytes"] <= 64e9


def test_longer_contexts_than_yarn_has_are_refused():
    with pytest.raises(UsageError, match="from 1 to 1048576 tokens, with YaRN 4x, not 1048577"):
        describe("397b", "64GB", 1048577, None)
    with pytest.raises(MemoryPlanError, match="with a context of 1010000 tokens"):
        describe("397b", "24GB", 1010000, None)
