"""The vision tower's part of config.json. Pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError


@dataclass(frozen=True, slots=True)
class VisionConfig:
    """The tower, under transformers' names. Patches are `temporal_patch_size` frames of `patch_size`² pixels, and
    `merge_size`² of them become one token of `out_hidden_size` channels."""

    depth: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    in_channels: int
    patch_size: int
    temporal_patch_size: int
    merge_size: int
    out_hidden_size: int
    num_position_embeddings: int

    @property
    def patch_dim(self) -> int:
        """Values of one patch: channel, frame, row, column."""
        return self.in_channels * self.temporal_patch_size * self.patch_size**2

    @property
    def side(self) -> int:
        """Of the square grid of learned positions."""
        return math.isqrt(self.num_position_embeddings)

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @classmethod
    def from_dict(cls, vision: Mapping[str, Any], hidden_size: int) -> "VisionConfig":
        """`hidden_size` is the language model's, which the tower must meet. Raises ConfigError."""
        if (act := vision.get("hidden_act", "gelu_pytorch_tanh")) != "gelu_pytorch_tanh":
            raise ConfigError(f"hidden_act {act!r} of vision_config is not supported: use gelu_pytorch_tanh")
        if vision.get("deepstack_visual_indexes"):
            raise ConfigError("deepstack_visual_indexes is not supported: the released tower has none")
        names = {name: name for name in cls.__dataclass_fields__} | {"merge_size": "spatial_merge_size"}
        defaults = {"in_channels": 3, "temporal_patch_size": 2, "merge_size": 2}
        config = cls(**{name: _positive(vision, theirs, defaults.get(name)) for name, theirs in names.items()})
        if config.side**2 != config.num_position_embeddings:
            raise ConfigError(f"num_position_embeddings {config.num_position_embeddings} is not a square")
        if config.hidden_size % (4 * config.num_heads):
            raise ConfigError(
                f"vision hidden_size {config.hidden_size} in {config.num_heads} heads: a head must be a multiple of 4"
            )
        if config.out_hidden_size != hidden_size:
            raise ConfigError(
                f"out_hidden_size of vision_config is {config.out_hidden_size}, the model's hidden_size {hidden_size}"
            )
        return config


def _positive(values: Mapping[str, Any], name: str, default: int | None) -> int:
    value = values.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{name} of vision_config must be a positive whole number, not {value!r}")
    return value
