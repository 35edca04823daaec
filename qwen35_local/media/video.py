"""Encoded clips -> patches: frames chosen, sized and timed as the released processor does."""

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from .clips import ClipInfo, opened
from .images import fitted
from .rules import Rules, patches, smart_resize


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip, priced, not decoded. `indices` are the frames shown, `grid` (pairs, rows, columns) of patches, `seconds`
    the mean time of each pair."""

    data: bytes = field(repr=False)
    info: ClipInfo
    indices: tuple[int, ...]
    grid: tuple[int, int, int]
    seconds: tuple[float, ...]
    rules: Rules
    key: str
    notice: str = ""

    @property
    def size(self) -> tuple[int, int]:
        return self.info.size

    @property
    def rows(self) -> int:
        return self.grid[1] // self.rules.merge_size

    @property
    def columns(self) -> int:
        return self.grid[2] // self.rules.merge_size

    def patches(self) -> np.ndarray:
        """float32 [pairs * rows * columns * merge², patch_dim]."""
        return patches(self.pixels(), table(self.rules), self.rules)

    def pixels(self) -> np.ndarray:
        """uint8 [pairs * 2, height, width, 3]. One frame at a time is decoded to its full size."""
        step, P = self.rules.temporal_patch_size, self.rules.patch_size
        size = self.grid[2] * P, self.grid[1] * P
        frames = np.empty((self.grid[0] * step, size[1], size[0], 3), np.uint8)
        count = 0
        with opened(self.data) as reader:
            for count, picture in enumerate(reader.pictures(self.indices), 1):
                frames[count - 1] = fitted(picture, 1, size)
        frames[count:] = frames[count - 1]  # an odd tail is shown twice
        return frames


def look(data: bytes, rules: Rules, max_pixels: int | None = None) -> Clip:
    """The clip in these bytes: its container is read, no frame is decoded. Raises MediaError with one sentence."""
    with opened(data) as reader:
        info = reader.info
    indices = chosen_frames(info, rules)
    step = rules.temporal_patch_size
    count = max(len(indices), step)  # a single frame is shown twice
    least, most = rules.capped(max_pixels)
    w, h = smart_resize(*info.size, rules.factor, least, most, count, step)
    grid = (-(-count // step), h // rules.patch_size, w // rules.patch_size)
    seconds = pair_times(indices, info.fps, step)
    key = f"{hashlib.sha256(data).hexdigest()} {'x'.join(map(str, grid))}"
    return Clip(data, info, tuple(indices), grid, seconds, rules, key, _notice(info, indices, rules))


def chosen_frames(info: ClipInfo, rules: Rules) -> list[int]:
    """`fps` of every second, evenly spread; `min_frames` to `max_frames`, and no more than there are."""
    wanted = int(info.frames / info.fps * rules.fps)
    count = min(max(wanted, rules.min_frames), rules.max_frames, info.frames)
    return np.linspace(0, info.frames - 1, count).round().astype(int).tolist()


def pair_times(indices: list[int], fps: float, step: int) -> tuple[float, ...]:
    """Seconds: for each `step` frames the mean of the first's and the last's time; an odd tail repeats its frame."""
    padded = indices + indices[-1:] * (-len(indices) % step)
    return tuple((padded[i] / fps + padded[i + step - 1] / fps) / 2 for i in range(0, len(padded), step))


def _notice(info: ClipInfo, indices: list[int], rules: Rules) -> str:
    """A sentence if the clip is longer than what the model is shown of it at its usual rate."""
    duration = info.frames / info.fps
    if len(indices) < rules.max_frames or duration * rules.fps < rules.max_frames + 1:
        return ""
    return (
        f"a clip of {duration / 60:.0f} minutes is shown as {len(indices)} frames, "
        f"one every {duration / len(indices):.1f} seconds"
    )


@lru_cache(maxsize=4)
def table(rules: Rules) -> np.ndarray:
    """float32 [3, 256]: what each byte becomes. The video processor joins both steps into one, in float32."""
    scale = np.float32(1 / rules.rescale_factor)
    mean, std = (np.array(values, np.float32)[:, None] * scale for values in (rules.mean, rules.std))
    return ((np.arange(256, dtype=np.float32) - mean) / std).astype(np.float32)
