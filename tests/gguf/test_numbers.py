"""Numbers that end llama.cpp's process, with the first token or picture, or hang the planning: each was tried on it."""

import re
from dataclasses import replace

import numpy as np
import pytest

from qwen35_local.errors import CheckpointError
from qwen35_local.gguf.header import read_header
from qwen35_local.gguf.model import ARCHITECTURE, GgufModel
from qwen35_local.gguf.numbers import check_language, check_vision

VISION = {
    "clip.vision.block_count": 3,
    "clip.vision.embedding_length": 64,
    "clip.vision.attention.head_count": 4,
    "clip.vision.attention.layer_norm_epsilon": 1e-6,
}


@pytest.fixture(scope="module")
def metadata(tiny_gguf):
    return read_header(tiny_gguf).metadata


def test_what_the_writer_writes_is_sound(metadata):
    check_language("a.gguf", ARCHITECTURE, metadata)
    check_vision("mmproj.gguf", VISION)
    check_language("a.gguf", ARCHITECTURE, {"general.architecture": ARCHITECTURE})  # missing keys are others' to miss


@pytest.mark.parametrize(
    ("key", "value", "must"),
    [
        ("block_count", 0, "from 1 to 512"),
        ("block_count", 2**30, "from 1 to 512"),
        ("block_count", 3, "4 at least, or no layer has attention"),
        ("nextn_predict_layers", 2**30, "from 0 to 8"),
        ("nextn_predict_layers", 9, "from 0 to 8"),
        ("context_length", 0, "above 0"),
        ("attention.head_count", 0, "above 0"),
        ("attention.head_count_kv", 0, "above 0"),
        ("attention.head_count_kv", -1, "above 0"),
        ("full_attention_interval", 0, "above 0"),
        ("full_attention_interval", 2**30, ""),
        ("expert_count", 0, "above 0"),
        ("expert_used_count", 0, "from 1 to 16"),
        ("expert_used_count", 99, "from 1 to 16"),
        ("rope.dimension_count", 0, "an even number from 2 to 64"),
        ("rope.dimension_count", 1, "an even number from 2 to 64"),
        ("rope.dimension_count", 17, "an even number from 2 to 64"),
        ("rope.dimension_count", 2**30, "an even number from 2 to 64"),
        ("rope.dimension_sections", np.array([0, 0, 0, 0]), "numbers above 0"),
        ("rope.dimension_sections", np.array([-3, -3, -2, 0]), "numbers above 0"),
        ("rope.freq_base", 0.0, "a number above 0"),
        ("rope.freq_base", float("nan"), "a number above 0"),
        ("attention.layer_norm_rms_epsilon", -1.0, "a number above 0"),
        ("attention.layer_norm_rms_epsilon", float("nan"), "a number above 0"),
        ("ssm.inner_size", 0, "above 0"),
        ("ssm.inner_size", 257, "heads of"),
        ("ssm.time_step_rank", 0, "above 0"),
    ],
)
def test_a_number_that_cannot_be(metadata, key, value, must):
    with pytest.raises(CheckpointError) as caught:
        check_language("a.gguf", ARCHITECTURE, {**metadata, f"{ARCHITECTURE}.{key}": value})
    sentence = str(caught.value)
    assert must in sentence
    assert re.fullmatch(r"a\.gguf is damaged: qwen35moe\.[a-z_.]+ is .+, which must be .+", sentence)


@pytest.mark.parametrize(
    ("key", "value", "must"),
    [
        ("block_count", 2**30, "512 at most"),
        ("attention.head_count", 0, "a divisor of the 64 channels"),
        ("attention.head_count", 3, "a divisor of the 64 channels"),
        ("attention.head_count", "4", "a divisor of the 64 channels"),
        ("attention.layer_norm_epsilon", -1.0, "a number above 0"),
        ("attention.layer_norm_epsilon", float("nan"), "a number above 0"),
    ],
)
def test_a_number_that_no_tower_has(key, value, must):
    with pytest.raises(CheckpointError, match=rf"mmproj\.gguf is damaged: clip\.vision\.{key} is .*{must}"):
        check_vision("mmproj.gguf", {**VISION, f"clip.vision.{key}": value})


def test_values_of_other_types_are_left_to_the_library(metadata):
    """It refuses them by their type, in one sentence."""
    for key in ("block_count", "rope.dimension_count", "rope.dimension_sections", "attention.head_count"):
        check_language("a.gguf", ARCHITECTURE, {**metadata, f"{ARCHITECTURE}.{key}": "x"})


def test_opening_a_model_checks_them(tiny_gguf, metadata, monkeypatch):
    header = read_header(tiny_gguf)
    bad = replace(header, metadata={**metadata, f"{ARCHITECTURE}.rope.dimension_count": 3})
    monkeypatch.setattr("qwen35_local.gguf.model.read_header", lambda path: bad)
    with pytest.raises(CheckpointError, match=r"rope\.dimension_count is 3"):
        GgufModel.open(tiny_gguf)
