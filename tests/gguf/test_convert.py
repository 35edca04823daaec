"""Our writer against llama.cpp's converter (recorded), and every packing of MLX against MLX."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import cast

import mlx.core as mx
import numpy as np
import pytest

from qwen35_local.checkpoint.files import Checkpoint
from qwen35_local.checkpoint.locate import MINIATURE
from qwen35_local.errors import ConfigError, TokenizerError, UsageError
from qwen35_local.gguf.convert import Types, convert
from qwen35_local.gguf.header import GgufTensor
from qwen35_local.gguf.layout import Entry
from qwen35_local.gguf.model import GgufModel
from qwen35_local.gguf.source import Source, unpack
from qwen35_local.model.config import ModelConfig

GOLDEN = Path(__file__).parent.parent / "golden" / "gguf_tiny.json"


def converted(path: Path, out: Path, matrices: str = "auto", experts: str = "auto") -> GgufModel:
    for _ in convert(path, out, Types(matrices, experts)):
        pass
    return GgufModel.open(out)


def data(tensor: GgufTensor) -> np.ndarray:
    return np.fromfile(tensor.file, np.uint8, tensor.nbytes, offset=tensor.offset)


def test_tensors_are_those_of_the_official_converter(pristine, tmp_path):
    ours = converted(pristine, tmp_path / "tiny.gguf", "f32", "f32").tensors
    theirs = json.loads(GOLDEN.read_text())["tensors"]
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        tensor = ours[name]
        # The converter leaves the shared gate as one row of a matrix; llama.cpp reads both forms.
        assert list(tensor.shape) == [n for n in expected["shape"] if n != 1], name
        if "values" in expected:
            np.testing.assert_allclose(data(tensor).view(np.float32), expected["values"], rtol=1e-6, err_msg=name)
        else:
            assert hashlib.sha256(data(tensor).tobytes()).hexdigest() == expected["sha256"], name


def test_auto_keeps_the_values_of_the_miniature(tmp_path):
    model = converted(MINIATURE, tmp_path / "miniature.gguf")
    kinds = {name: tensor.type.name for name, tensor in model.tensors.items()}
    assert kinds["blk.0.ffn_gate_exps.weight"] == "MXFP4"
    assert kinds["token_embd.weight"] == "BF16"
    assert kinds["blk.0.attn_norm.weight"] == kinds["blk.0.ffn_gate_inp.weight"] == "F32"
    # MXFP4 of llama.cpp: an exponent, then nibbles of values j and j + 16; of MLX: nibbles in order, exponents apart.
    blocks = data(model.tensors["blk.2.ffn_down_exps.weight"]).reshape(-1, 17)
    codes = np.concatenate([blocks[:, 1:] & 15, blocks[:, 1:] >> 4], 1)
    magnitudes = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    values = np.concatenate([magnitudes, -magnitudes])[codes] * np.exp2(blocks[:, :1].astype(float) - 127)
    arrays = cast(dict[str, mx.array], mx.load(str(MINIATURE / "model.safetensors")))
    name = "language_model.model.layers.2.mlp.switch_mlp.down_proj"
    wanted = mx.dequantize(arrays[f"{name}.weight"], arrays[f"{name}.scales"], group_size=32, bits=4, mode="mxfp4")
    np.testing.assert_array_equal(values.ravel(), np.array(wanted.astype(mx.float32)).ravel())


@pytest.mark.parametrize(
    ("mode", "bits", "group"),
    [*(("affine", bits, 64) for bits in (2, 3, 4, 5, 6, 8)), ("mxfp4", 4, 32), ("nvfp4", 4, 16), ("mxfp8", 8, 32)],
)
def test_packings_are_undone_as_mlx_does(mode, bits, group, tmp_path, pristine):
    weight = mx.array(np.random.default_rng(0).normal(size=(6, 128)).astype(np.float32))
    parts = mx.quantize(weight, group_size=group, bits=bits, mode=mode)
    wanted = np.array(mx.dequantize(*parts, group_size=group, bits=bits, mode=mode).astype(mx.float32))
    config = json.loads((pristine / "config.json").read_text())
    config["quantization"] = {"group_size": group, "bits": bits, "mode": mode}
    (tmp_path / "config.json").write_text(json.dumps(config))
    names = ("weight", "scales", "biases")[: len(parts)]
    arrays = {f"lm_head.{name}": part for name, part in zip(names, parts, strict=True)}
    arrays["layers.0.linear_attn.conv1d.weight"] = mx.zeros((8, 1, 4))
    mx.save_safetensors(str(tmp_path / "model.safetensors"), arrays)
    source = Source(Checkpoint.open(tmp_path), ModelConfig.from_dict(config))
    np.testing.assert_allclose(source.matrix("lm_head", 6, 128), wanted, rtol=1e-6, atol=1e-7)


def test_unpacking_reads_one_stream_of_bits():
    assert unpack(np.array([[0x76543210, 0xFEDCBA98]], np.uint32), 4).tolist() == [list(range(16))]
    stream = sum(value << (3 * at) for at, value in enumerate([5, 3, 7, 0, 1, 2, 6, 4] * 4))
    words = np.array([[stream >> (32 * at) & 0xFFFFFFFF for at in range(3)]], np.uint32)
    assert unpack(words, 3).tolist() == [[5, 3, 7, 0, 1, 2, 6, 4] * 4]


def test_matrices_and_experts_have_types_of_their_own(tmp_path, pristine):
    model = converted(pristine, tmp_path / "tiny.gguf", "q8_0", "mxfp4")
    kinds = {name.split(".", 2)[-1]: tensor.type.name for name, tensor in model.tensors.items()}
    assert kinds["ffn_up_exps.weight"] == "MXFP4"
    assert kinds["attn_q.weight"] == kinds["ssm_out.weight"] == "Q8_0"
    assert kinds["ssm_conv1d.weight"] == kinds["ffn_gate_inp.weight"] == kinds["attn_q_norm.weight"] == "F32"
    assert sum(model.expert_bytes) == 8 * 3 * 16 * 64 * 128 // 32 * 17
    assert model.trunk_bytes < model.nbytes


def test_rows_that_no_block_divides_stay_16_bit():
    entry = Entry("t", (4, 48), "matrix", "BF16", lambda: iter(()))
    assert Types("q8_0").of(entry).name == "F16"
    assert Types().of(entry).name == "BF16"
    assert Types().of(replace(entry, packing="affine", shape=(4, 64))).name == "Q8_0"


def test_a_file_appears_whole_or_not_at_all(pristine, tmp_path):
    out = tmp_path / "tiny.gguf"
    steps = convert(pristine, out)
    next(steps)
    assert [file.name for file in tmp_path.iterdir()] == ["tiny.gguf.part"]
    steps.close()
    assert list(tmp_path.iterdir()) == []


def test_refusals(pristine, tmp_path, model_dir):
    with pytest.raises(UsageError, match="GGUF type must be one of auto, f32, f16"):
        Types("q4_k")
    (model_dir / "tokenizer.json").unlink()
    with pytest.raises(TokenizerError, match=r"has no tokenizer\.json"):
        converted(model_dir, tmp_path / "out.gguf")
    config = json.loads((model_dir / "config.json").read_text())
    config["text_config"]["linear_key_head_dim"] = 16
    (model_dir / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="linear_key_head_dim 16 and linear_value_head_dim 32 differ"):
        converted(model_dir, tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()
