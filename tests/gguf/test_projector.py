"""Our vision part against the one that llama.cpp's converter writes (recorded)."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from make_checkpoint import write

from qwen35_local.errors import ConfigError
from qwen35_local.gguf.convert import Types, convert_vision, has_vision
from qwen35_local.gguf.header import Header, read_header
from qwen35_local.gguf.projector import rules_of
from qwen35_local.media.rules import IMAGES, VIDEOS, read_rules

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "gguf_mmproj.json").read_text())


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("seeing") / "tiny", "tiny", "F32", vision=True)


def written(checkpoint: Path, out: Path, matrices: str = "f32") -> Header:
    for _ in convert_vision(checkpoint, out, Types(matrices)):
        pass
    return read_header(out)


def test_tensors_and_metadata_are_those_of_the_official_converter(seeing, tmp_path):
    ours = written(seeing, tmp_path / "mmproj.gguf")
    assert ours.tensors.keys() == GOLDEN["tensors"].keys()
    for name, expected in GOLDEN["tensors"].items():
        tensor = ours.tensors[name]
        assert list(tensor.shape) == expected["shape"], name
        data = np.fromfile(tensor.file, np.uint8, tensor.nbytes, offset=tensor.offset)
        assert hashlib.sha256(data.tobytes()).hexdigest() == expected["sha256"], name
    for key, value in GOLDEN["metadata"].items():
        assert np.array_equal(ours.metadata[key], value), key
    assert ours.metadata["general.type"] == "mmproj"
    assert not any(ours.metadata["clip.vision.is_deepstack_layers"])


def test_matrices_have_the_type_asked_for_and_the_rest_is_exact(seeing, tmp_path):
    kinds = {name: t.type.name for name, t in written(seeing, tmp_path / "mmproj.gguf", "f16").tensors.items()}
    assert kinds["v.blk.0.attn_qkv.weight"] == kinds["mm.2.weight"] == "F16"
    assert kinds["v.patch_embd.weight"] == kinds["v.position_embd.weight"] == kinds["v.blk.2.ln1.bias"] == "F32"


def test_rules_come_back(seeing, tmp_path):
    assert rules_of(written(seeing, tmp_path / "mmproj.gguf").metadata) == read_rules(seeing)
    official = {**GOLDEN["metadata"]}
    pictures, clips = rules_of(official)
    assert (pictures.min_pixels, pictures.max_pixels) == (IMAGES.min_pixels, IMAGES.max_pixels)
    assert (clips.fps, clips.max_frames, clips.max_pixels) == (VIDEOS.fps, VIDEOS.max_frames, VIDEOS.max_pixels)


def test_channels_last_filters_are_turned(seeing, tmp_path, monkeypatch):
    """MLX conversions keep the patch filter as [out, frames, rows, columns, channels]."""
    from qwen35_local.gguf.source import Source

    released = Source._floats
    plain = written(seeing, tmp_path / "a.gguf").tensors
    monkeypatch.setattr(
        Source,
        "_floats",
        lambda self, name, index=None: (
            released(self, name, index).transpose(0, 2, 3, 4, 1) if "patch_embed.proj.weight" in name
            else released(self, name, index)
        ),
    )  # fmt: skip
    turned = written(seeing, tmp_path / "b.gguf").tensors
    for name in ("v.patch_embd.weight", "v.patch_embd.weight.1"):
        one, other = (
            np.fromfile(t[name].file, np.float32, t[name].nbytes // 4, offset=t[name].offset) for t in (plain, turned)
        )
        np.testing.assert_array_equal(one, other)


def test_without_a_tower_there_is_nothing_to_write(pristine, seeing, tmp_path):
    assert has_vision(seeing)
    assert not has_vision(pristine)
    with pytest.raises(ConfigError, match="no vision_config: there is no vision part to write"):
        written(pristine, tmp_path / "mmproj.gguf")
