"""How the model is shown pictures and clips: sizes, patches, colours, frames. Pure but for reading two JSON files."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, MediaError

LONGEST_SIDES = 200  # the processor refuses pictures with one side more than this many times the other


@dataclass(frozen=True, slots=True)
class Rules:
    """The released processor's settings, defaults as released. Sizes are in pixels: of a picture, or of all frames of
    a clip together. Frames are for clips only."""

    min_pixels: int
    max_pixels: int
    patch_size: int = 16
    temporal_patch_size: int = 2
    merge_size: int = 2
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    rescale_factor: float = 1 / 255
    fps: float = 2.0
    min_frames: int = 4
    max_frames: int = 768
    at_once: int | None = None  # pixels of a picture or frame, where the memory has room for no more

    @property
    def factor(self) -> int:
        """Sides are multiples of this: the pixels of one token."""
        return self.patch_size * self.merge_size

    def fit(
        self, width: int, height: int, max_pixels: int | None = None, frames: int = 1, step: int = 1
    ) -> tuple[int, int, str]:
        """(width, height) as shown, and a sentence if that is less than asked for. `max_pixels` is a caller's limit,
        which is never less than one token. Raises MediaError."""
        most = min(self.max_pixels, max(max_pixels or self.max_pixels, self.factor**2))
        least = min(self.min_pixels, most)
        w, h = smart_resize(width, height, self.factor, least, most, frames, step)
        if self.at_once is None or w * h <= self.at_once:
            return w, h, ""
        most = self.at_once * frames
        w, h = smart_resize(width, height, self.factor, min(least, most), most, frames, step)
        return w, h, f"{width}x{height} pixels are shown as {w}x{h}: the memory has no room for more at once"


IMAGES = Rules(min_pixels=256 * 256, max_pixels=4096 * 4096)
VIDEOS = Rules(min_pixels=4096, max_pixels=25165824)


def read_rules(directory: Path) -> tuple[Rules, Rules]:
    """(for pictures, for clips) of a model directory; as released where a file is missing."""
    image, video = (_read(directory / f"{name}preprocessor_config.json") for name in ("", "video_"))
    return _rules(image, IMAGES), _rules(video or _without_size(image), VIDEOS)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path.name} cannot be read ({error}): fetch it again") from error
    if not isinstance(found, Mapping):
        raise ConfigError(f"{path.name} must be a JSON object")
    return found


def _without_size(values: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in values.items() if name not in ("size", "min_pixels", "max_pixels")}


def _rules(values: Mapping[str, Any], default: Rules) -> Rules:
    for name in ("do_resize", "do_rescale", "do_normalize"):
        if values.get(name, True) is not True:
            raise ConfigError(f"{name} {values[name]!r} in the preprocessor config is not supported")
    if (resample := values.get("resample", 3)) != 3:
        raise ConfigError(f"resample {resample!r} in the preprocessor config is not supported: only 3, bicubic, is")
    size = values.get("size") or {}
    chosen = {
        "min_pixels": values.get("min_pixels") or size.get("shortest_edge") or default.min_pixels,
        "max_pixels": values.get("max_pixels") or size.get("longest_edge") or default.max_pixels,
        "mean": tuple(values.get("image_mean") or default.mean),
        "std": tuple(values.get("image_std") or default.std),
    }
    names = ("patch_size", "temporal_patch_size", "merge_size", "rescale_factor", "fps", "min_frames", "max_frames")
    chosen |= {name: values.get(name) or getattr(default, name) for name in names}
    check_values(chosen, "the preprocessor config")
    return Rules(**chosen)


def check_values(chosen: Mapping[str, Any], where: str) -> None:
    """Values of `Rules` that a file gave, by name. Raises ConfigError."""
    for name, value in chosen.items():
        numbers = value if isinstance(value, tuple) else (value,)
        if not all(isinstance(number, int | float) and number > 0 for number in numbers) and name != "mean":
            raise ConfigError(f"{name} in {where} must be above 0, not {value!r}")
    if len(chosen["mean"]) != 3 or len(chosen["std"]) != 3:
        raise ConfigError(f"image_mean and image_std in {where} must be three numbers")


def smart_resize(
    width: int, height: int, factor: int, least: int, most: int, frames: int = 1, step: int = 1
) -> tuple[int, int]:
    """(width, height) as shown: multiples of `factor`, `least` to `most` pixels over all frames, shape kept as well as
    that allows. Halves round to even, as in the released processor. `step` frames make one patch."""
    if min(width, height) < 1:
        raise MediaError(f"a picture of {width}x{height} pixels shows nothing")
    if frames > 1 and min(width, height) < factor:  # small clips are enlarged first, pictures are not
        scale = max(factor / height, factor / width)
        width, height = int(width * scale), int(height * scale)
    if max(width, height) / min(width, height) > LONGEST_SIDES:
        raise MediaError(
            f"a picture of {width}x{height} pixels is too long: one side may be {LONGEST_SIDES} times the other at most"
        )
    w, h = (round(side / factor) * factor for side in (width, height))
    shown = round(frames / step) * step
    if shown * w * h > most:
        beta = math.sqrt(frames * width * height / most)
        w, h = (max(factor, math.floor(side / beta / factor) * factor) for side in (width, height))
    elif shown * w * h < least:
        beta = math.sqrt(least / (frames * width * height))
        w, h = (math.ceil(side * beta / factor) * factor for side in (width, height))
    return w, h


def patches(frames: np.ndarray, table: np.ndarray, rules: Rules) -> np.ndarray:
    """uint8 [F, height, width, 3], F a multiple of the temporal patch -> float32 [N, 3 * T * P * P].

    Rows go by time, block row, block column, row in the block, column in it; a row by channel, frame, row, column.
    `table` float32 [3, 256] holds what each byte of each channel becomes.
    """
    F, height, width, C = frames.shape
    P, M, T = rules.patch_size, rules.merge_size, rules.temporal_patch_size
    split = frames.reshape(F // T, T, height // P // M, M, P, width // P // M, M, P, C)
    order = split.transpose(8, 0, 2, 5, 3, 6, 1, 4, 7)  # channel; time, block row, column, row, column in it; T, P, P
    rows = np.empty((F // T * (height // P) * (width // P), C, T * P * P), np.float32)
    for channel in range(C):  # "clip" because the default checks indices, which bytes do not need, in a copy
        np.take(table[channel], order[channel].reshape(rows.shape[0], -1), out=rows[:, channel], mode="clip")
    return rows.reshape(len(rows), -1)
