"""Eyes of MLX conversions: the same answers from every layout in which a vision tower comes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from make_checkpoint import write_safetensors
from pictures import clip, picture

import qwen35_local
from qwen35_local.checkpoint.files import Checkpoint
from qwen35_local.checkpoint.names import canonical, is_zero_centred
from qwen35_local.engine import ImagePart, Message, TextPart, VideoPart
from qwen35_local.errors import MediaError
from qwen35_local.hub.progress import Meter
from qwen35_local.hub.recipe import recipe
from qwen35_local.hub.store import Parts, convert_directory

PARTS = (ImagePart(picture((96, 64))), VideoPart(clip(12, 3)), TextPart("What is this?"))


def as_mlx_vlm(source: Path, target: Path, tower: bool = True) -> Path:
    """A float32 checkpoint renamed and transposed as mlx-vlm's conversions are (as mlx-lm's without the tower)."""
    checkpoint = Checkpoint.open(source)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.safetensors*"))
    entries = []
    for name, tensor in checkpoint.tensors.items():
        ours = canonical(name)
        values = np.fromfile(tensor.file, np.float32, int(np.prod(tensor.shape)), offset=tensor.offset)
        values = values.reshape(tensor.shape)
        if ours.startswith("mtp.") or (ours.startswith("visual.") and not tower):
            continue
        if ours.startswith("visual."):
            name = "vision_tower." + ours.removeprefix("visual.")
            values = values.transpose(0, 2, 3, 4, 1) if values.ndim == 5 else values
        else:
            name = f"language_model.{ours}" if ours.startswith("lm_head") else f"language_model.model.{ours}"
            values = values.transpose(0, 2, 1) if ours.endswith("conv1d.weight") else values
            values = values + np.float32(1) if is_zero_centred(ours) else values
        if ours.endswith(".mlp.experts.gate_up_proj"):
            stem = name.replace(".experts.gate_up_proj", ".switch_mlp.{}_proj.weight")
            split = dict(zip((stem.format("gate"), stem.format("up")), np.split(values, 2, axis=1), strict=True))
        else:
            split = {name.replace(".experts.down_proj", ".switch_mlp.down_proj.weight"): values}
        entries += [(key, "F32", part.shape, np.ascontiguousarray(part).tobytes()) for key, part in split.items()]
    write_safetensors(target / "model.safetensors", entries)
    return target


def answer(path: Path) -> tuple[str, int]:
    with qwen35_local.open(path) as engine:
        assert engine.info.vision
        found = engine.complete([Message("user", PARTS)], temperature=0, max_tokens=8, thinking=False)
        return found.text, found.done.usage.prompt_tokens


def test_the_layout_of_mlx_vlm(sighted, tmp_path):
    assert answer(as_mlx_vlm(sighted, tmp_path / "mlx")) == answer(sighted)


def test_conversions_of_ours(sighted, tmp_path):
    """The tower comes along, unpacked, under mlx-vlm's names; what it sees moves the answer of packed experts."""
    meter = Meter(1, 1, "converted", quiet=True)
    out = convert_directory(sighted, tmp_path / "packed", recipe("mxfp4"), Parts(), meter)
    names = Checkpoint.open(out).tensors
    assert names["vision_tower.patch_embed.proj.weight"].shape == (144, 2, 16, 16, 3)
    logits = []
    with qwen35_local.open(out) as engine:
        assert engine.info.vision
        assert engine.info.quantization != "none"
        for seed in (1, 2):
            message = Message("user", (ImagePart(picture((96, 64), seed=seed)), TextPart("?")))
            done = list(engine.chat([message], max_tokens=1, top_logprobs=3, thinking=False))
            logits.append([event.logprobs for event in done if isinstance(event, qwen35_local.Text)])
    assert logits[0] != logits[1]


def test_a_conversion_that_left_the_tower_out(sighted, tmp_path):
    """Its config still tells of vision; text is as before."""
    blind = as_mlx_vlm(sighted, tmp_path / "blind", tower=False)
    assert "vision_config" in json.loads((blind / "config.json").read_text())
    with qwen35_local.open(blind) as engine, qwen35_local.open(sighted) as whole:
        assert not engine.info.vision
        with pytest.raises(MediaError, match="blind cannot see: it has no vision tower"):
            engine.complete([Message("user", PARTS)])
        texts = [each.complete("hello", temperature=0, max_tokens=8).reasoning for each in (engine, whole)]
        assert texts[0] == texts[1]
