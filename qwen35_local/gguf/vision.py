"""The vision part of a GGUF model: found beside it, and checked, since llama.cpp may abort on a wrong one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError, ConfigError
from ..media.rules import Rules
from .header import Header, read_header
from .model import VISION_PREFIX, GgufModel
from .numbers import check_vision
from .projector import PROJECTOR, rules_of

PREFERRED = ("F16", "BF16", "Q8_0", "F32")  # of several: the quickest that costs nothing


@dataclass(frozen=True, slots=True)
class VisionPart:
    """A checked file. `rules` are (for pictures, for clips)."""

    path: Path
    nbytes: int
    rules: tuple[Rules, Rules]

    @classmethod
    def open(cls, path: Path, width: int) -> "VisionPart":
        """`width` is the language model's hidden size, which the tower must meet. Raises CheckpointError."""
        header = read_header(path)
        _check_kind(header)
        if (found := _number(header, "projection_dim")) != width:
            raise ConfigError(f"{path.name} makes features of {found} channels, the model's hidden size is {width}")
        check_vision(path.name, header.metadata)
        shapes = dict(_shapes(header, width))
        for name, shape in shapes.items():
            if name not in header.tensors:
                raise CheckpointError(f"{path.name} has no tensor {name}")
            if (has := header.tensors[name].shape) != shape:
                raise CheckpointError(f"{path.name}: {name} is {list(has)}, its metadata ask for {list(shape)}")
        return cls(path, header.size, rules_of(header.metadata))


def find_vision(model: GgufModel) -> VisionPart | None:
    """The vision part of `model`: in its directory, or the one above, as repositories have it; None if there is none.

    Raises CheckpointError if the one beside the model is of no use; further up it may be another model's.
    """
    width = model.number("embedding_length")
    directory = model.path.absolute().parent
    if (near := _best(directory, model.name)) is not None:
        return VisionPart.open(near, width)
    if (above := _best(directory.parent, model.name)) is not None:
        try:
            return VisionPart.open(above, width)
        except CheckpointError:
            return None
    return None


def _best(directory: Path, name: str) -> Path | None:
    """The file named after the model, else the type that comes first in `PREFERRED`."""
    files = sorted(directory.glob(f"{VISION_PREFIX}*.gguf"))
    named = [file for file in files if file.stem == f"{VISION_PREFIX}-{name}"]
    others = [file for kind in PREFERRED for file in files if file.stem.upper().endswith(f"-{kind}")]
    return next(iter([*named, *others, *files]), None)


def _check_kind(header: Header) -> None:
    values = header.metadata
    if values.get("general.architecture") != "clip" or not values.get("clip.has_vision_encoder"):
        raise ConfigError(f"{header.path.name} is not the vision part of a model, which its name says")
    kind = values.get("clip.vision.projector_type", values.get("clip.projector_type"))
    if kind != PROJECTOR:
        raise ConfigError(f"{header.path.name} is the vision part of another model: it has {kind!r}, not {PROJECTOR!r}")
    if np.any(values.get("clip.vision.is_deepstack_layers", ())):
        raise ConfigError(f"{header.path.name} has deepstack layers, which Qwen3.5 has not: it is of another model")
    if not {"clip.vision.image_mean", "clip.vision.image_std"} <= values.keys():
        raise ConfigError(f"{header.path.name} does not say how pictures are normalised: fetch it again")


def _number(header: Header, key: str) -> int:
    value = header.metadata.get(f"clip.vision.{key}")
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{header.path.name} lacks clip.vision.{key}, or it is no whole number: {value!r}")
    return value


def _shapes(header: Header, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """What every tensor must be, by the metadata."""
    H, I, P = (_number(header, key) for key in ("embedding_length", "feed_forward_length", "patch_size"))  # noqa: E741
    merged = H * _number(header, "spatial_merge_size") ** 2
    side = _number(header, "image_size") // P
    layers: Mapping[str, Any] = {"attn_qkv": (3 * H, H), "attn_out": (H, H), "ffn_up": (I, H), "ffn_down": (H, I)}
    for suffix in ("", ".1"):
        yield f"v.patch_embd.weight{suffix}", (H, 3, P, P)
    yield "v.position_embd.weight", (side**2, H)
    linear = {
        f"v.blk.{i}.{name}": shape for i in range(_number(header, "block_count")) for name, shape in layers.items()
    }
    linear |= {"mm.0": (merged, merged), "mm.2": (width, merged)}
    for name, shape in linear.items():
        yield f"{name}.weight", shape
        yield f"{name}.bias", shape[:1]
    norms = [f"v.blk.{i}.{name}" for i in range(_number(header, "block_count")) for name in ("ln1", "ln2")]
    for name in (
        *(f"{norm}.{part}" for norm in [*norms, "v.post_ln"] for part in ("weight", "bias")),
        "v.patch_embd.bias",
    ):
        yield name, (H,)
