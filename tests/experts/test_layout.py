"""Every layout's extents against the tensors that MLX itself loads."""

import itertools
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from pack_checkpoint import MODES, pack

from qwen35_local.checkpoint.files import Checkpoint, TensorInfo
from qwen35_local.checkpoint.names import canonical
from qwen35_local.errors import CheckpointError, ConfigError
from qwen35_local.experts.layout import LayerLayout, layer_layout
from qwen35_local.model.config import ModelConfig
from qwen35_local.model.weights import Weights

LAYOUTS = ("switch_mlp", "fused", "single")


def tensors_of(path: Path) -> dict[str, TensorInfo]:
    return {canonical(name): tensor for name, tensor in Checkpoint.open(path).tensors.items()}


def read(layout: LayerLayout, expert: int) -> list[bytes]:
    """The parts of one expert."""
    parts = [bytearray(part.nbytes) for part in layout.parts]
    for extent in layout.extents(expert):
        with extent.file.open("rb") as file:
            file.seek(extent.offset)
            parts[extent.part][extent.start : extent.start + extent.nbytes] = file.read(extent.nbytes)
    return [bytes(part) for part in parts]


@pytest.mark.parametrize(("mode", "layout"), list(itertools.product(MODES, LAYOUTS)))
def test_extents_are_what_the_loader_loads(released, tmp_path, mode, layout):
    path = pack(released, tmp_path, mode, layout)
    checkpoint = Checkpoint.open(path)
    weights = Weights(checkpoint, ModelConfig.from_dict(checkpoint.config), mx.float32)
    for layer in (0, 7):
        found = layer_layout(weights.tensors, f"layers.{layer}.mlp", 16)
        gate_up, down = weights.experts(f"layers.{layer}.mlp", 16, 64, 128)
        arrays = (*gate_up.parts, *down.parts)
        assert [part.shape for part in found.parts] == [array.shape[1:] for array in arrays]
        for expert in (0, 9, 15):
            for part, array in zip(read(found, expert), arrays, strict=True):
                assert part == np.array(array[expert].view(mx.uint8)).tobytes()
        assert found.nbytes == sum(array.nbytes for array in arrays)


def test_the_released_model_needs_the_known_bytes():
    """Geometry of the 397B in MXFP4; no file is touched, so none need exist."""
    file = Path("model-00001-of-00046.safetensors")
    tensors, offset = {}, 8 + 100_000

    def add(name: str, dtype: str, shape: tuple[int, ...]) -> None:
        nonlocal offset
        nbytes = int(np.prod(shape)) * {"U32": 4, "U8": 1}[dtype]
        tensors[name] = TensorInfo(name, dtype, shape, file, offset, nbytes)
        offset += nbytes

    for part, rows, inputs in (("gate_proj", 1024, 4096), ("up_proj", 1024, 4096), ("down_proj", 4096, 1024)):
        add(f"layers.0.mlp.switch_mlp.{part}.weight", "U32", (512, rows, inputs // 8))
        add(f"layers.0.mlp.switch_mlp.{part}.scales", "U8", (512, rows, inputs // 32))
    layout = layer_layout(tensors, "layers.0.mlp", 512)
    assert layout.expert_nbytes == 6_684_672
    assert 60 * 10 * layout.expert_nbytes == 4_010_803_200
    assert 60 * layout.nbytes == 205_353_123_840
    assert sum(extent.nbytes for extent in layout.extents(511)) == 6_684_672
    assert len(layout.pieces) == 1
    assert len(layout.pieces[0]) == 6


def test_refusals(packed):
    tensors = tensors_of(packed)
    with pytest.raises(ConfigError, match="asks for 17 experts"):
        layer_layout(tensors, "layers.0.mlp", 17)
    with pytest.raises(CheckpointError, match=r"no experts under layers\.9\.mlp"):
        layer_layout(tensors, "layers.9.mlp", 16)
    stem = "layers.0.mlp.switch_mlp"
    without = {name: tensor for name, tensor in tensors.items() if name != f"{stem}.up_proj.scales"}
    with pytest.raises(CheckpointError, match=r"up_proj\.scales"):
        layer_layout(without, "layers.0.mlp", 16)
    other = tensors[f"{stem}.down_proj.weight"]
    with pytest.raises(ConfigError, match="packed alike"):
        layer_layout(tensors | {f"{stem}.up_proj.weight": other}, "layers.0.mlp", 16)
    with pytest.raises(IndexError):
        layer_layout(tensors, "layers.0.mlp", 16).extents(16)


def test_one_expert_too_many_or_of_another_kind(released, tmp_path):
    tensors = tensors_of(pack(released, tmp_path, "mxfp4", "single"))
    with pytest.raises(ConfigError, match=r"says 15 experts, but the checkpoint has layers\.0\.mlp\.experts\.15"):
        layer_layout(tensors, "layers.0.mlp", 15)
    odd = {name: t for name, t in tensors.items() if not name.startswith("layers.0.mlp.experts.3.down_proj.scales")}
    with pytest.raises(ConfigError, match="packed differently"):
        layer_layout(odd, "layers.0.mlp", 16)
