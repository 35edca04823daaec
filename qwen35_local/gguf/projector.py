"""Our vision tower -> the projector file ("mmproj") that llama.cpp's multimodal library reads. Pure.

Beside names one thing differs: the 3-D patch filter lies there as one 2-D filter for each of its two frames.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..media.rules import IMAGES, VIDEOS, Rules, check_values
from ..model.config import ModelConfig
from ..model.vision_config import VisionConfig
from .layout import Entry
from .source import Source

PROJECTOR = "qwen3vl_merger"
CLIPS = "qwen35_local.clips"  # llama.cpp has no keys for how clips are shown
CLIP_RULES = ("min_pixels", "max_pixels", "fps", "min_frames", "max_frames")
LAYER_NORM_EPS = 1e-6
# Ours, within a block -> theirs.
BLOCK = {
    "norm1": "ln1",
    "norm2": "ln2",
    "attn.qkv": "attn_qkv",
    "attn.proj": "attn_out",
    "mlp.linear_fc1": "ffn_up",
    "mlp.linear_fc2": "ffn_down",
}


def vision_of(config: ModelConfig) -> VisionConfig:
    """The tower's configuration; ConfigError if there is none, or one that llama.cpp does not have."""
    if config.vision is None:
        raise ConfigError("config.json has no vision_config: there is no vision part to write")
    if config.vision.temporal_patch_size != 2:
        raise ConfigError(
            f"temporal_patch_size of vision_config is {config.vision.temporal_patch_size}: llama.cpp has 2 only"
        )
    return config.vision


def entries(source: Source) -> Iterator[Entry]:
    """Every tensor of the file, in the order of the file."""
    c = vision_of(source.config)
    H, M = c.hidden_size, c.hidden_size * c.merge_size**2
    filters = "visual.patch_embed.proj.weight"
    shape = (H, c.in_channels, c.patch_size, c.patch_size)
    for frame, suffix in enumerate(("", ".1")):
        yield _exact(f"v.patch_embd.weight{suffix}", shape, lambda frame=frame: source.patch_filter(filters, c, frame))
    yield _vector(source, "v.patch_embd.bias", "visual.patch_embed.proj.bias", H)
    positions = (c.num_position_embeddings, H)
    yield _exact("v.position_embd.weight", positions, lambda: source.matrix("visual.pos_embed", *positions))
    sizes = {"attn.qkv": (3 * H, H), "attn.proj": (H, H)}
    sizes |= {"mlp.linear_fc1": (c.intermediate_size, H), "mlp.linear_fc2": (H, c.intermediate_size)}
    for i in range(c.depth):
        for ours, theirs in BLOCK.items():
            name, module = f"v.blk.{i}.{theirs}", f"visual.blocks.{i}.{ours}"
            yield from _linear(source, name, module, *sizes[ours]) if ours in sizes else _norm(source, name, module, H)
    yield from _norm(source, "v.post_ln", "visual.merger.norm", H)
    yield from _linear(source, "mm.0", "visual.merger.linear_fc1", M, M)
    yield from _linear(source, "mm.2", "visual.merger.linear_fc2", c.out_hidden_size, M)


def metadata(config: ModelConfig, name: str, pictures: Rules, clips: Rules) -> Mapping[str, Any]:
    """What llama.cpp reads of config.json and preprocessor_config.json, under its keys; what only we do, under ours."""
    c = vision_of(config)
    vision = {
        "image_size": c.side * c.patch_size,  # that of the learned grid
        "patch_size": c.patch_size,
        "embedding_length": c.hidden_size,
        "feed_forward_length": c.intermediate_size,
        "projection_dim": c.out_hidden_size,
        "block_count": c.depth,
        "attention.head_count": c.num_heads,
        "attention.layer_norm_epsilon": LAYER_NORM_EPS,
        "spatial_merge_size": c.merge_size,
        "image_mean": list(map(float, pictures.mean)),
        "image_std": list(map(float, pictures.std)),
        "image_min_pixels": pictures.min_pixels,
        "image_max_pixels": pictures.max_pixels,
        "is_deepstack_layers": [False] * c.depth,
    }
    return {
        "general.architecture": "clip",
        "general.type": "mmproj",
        "general.name": name,
        "clip.has_vision_encoder": True,
        "clip.projector_type": PROJECTOR,
        "clip.use_gelu": True,
        **{f"clip.vision.{key}": value for key, value in vision.items()},
        **{f"{CLIPS}.{key}": getattr(clips, key) for key in CLIP_RULES},
    }


def rules_of(values: Mapping[str, Any]) -> tuple[Rules, Rules]:
    """(for pictures, for clips) from a file's metadata; as released where it does not say. Raises ConfigError."""
    sizes = {key: values.get(f"clip.vision.{key}") for key in ("patch_size", "image_min_pixels", "image_max_pixels")}
    colours = {key: tuple(np.ravel(values[f"clip.vision.image_{key}"]).tolist()) for key in ("mean", "std")}
    merge = values.get("clip.vision.spatial_merge_size", IMAGES.merge_size)
    common = {"patch_size": sizes["patch_size"], "merge_size": merge, **colours}
    bounds = (sizes["image_min_pixels"] or IMAGES.min_pixels, sizes["image_max_pixels"] or IMAGES.max_pixels)
    clips = {key: values.get(f"{CLIPS}.{key}", getattr(VIDEOS, key)) for key in CLIP_RULES}
    for rules in ({"min_pixels": bounds[0], "max_pixels": bounds[1]}, clips):
        check_values({**rules, **common}, "the vision part")
    return replace(IMAGES, min_pixels=bounds[0], max_pixels=bounds[1], **common), replace(VIDEOS, **clips, **common)


def _exact(name: str, shape: tuple[int, ...], read: Callable[[], np.ndarray]) -> Entry:
    return Entry(name, shape, "exact", "F32", lambda: iter([read()]))


def _vector(source: Source, name: str, ours: str, size: int) -> Entry:
    return _exact(name, (size,), lambda: source.vector(ours, size))


def _norm(source: Source, name: str, ours: str, size: int) -> Iterator[Entry]:
    for part in ("weight", "bias"):
        yield _vector(source, f"{name}.{part}", f"{ours}.{part}", size)


def _linear(source: Source, name: str, ours: str, out: int, in_: int) -> Iterator[Entry]:
    def read() -> Iterator[np.ndarray]:
        yield source.matrix(ours, out, in_)

    yield Entry(f"{name}.weight", (out, in_), "matrix", source.packing(ours), read)
    yield _vector(source, f"{name}.bias", f"{ours}.bias", out)
