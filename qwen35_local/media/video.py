"""Encoded clips -> patches: frames chosen, sized and timed as the released processor does."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from .clips import ClipInfo, opened
from .images import fitted, joined
from .rules import Rules, patches

PIECE = 1024  # tokens of pairs that are seen in one go, unless a single pair has more: a long clip takes no more memory


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
        return np.concatenate(list(self.pieces()))

    def pieces(self) -> Iterator[np.ndarray]:
        """The patches of some pairs, then of the next. Pairs are seen one by one, so nothing is lost."""
        pairs = max(1, PIECE // (self.rows * self.columns))
        for frames in self._frames(pairs * self.rules.temporal_patch_size):
            yield patches(frames, table(self.rules), self.rules)

    def pixels(self) -> np.ndarray:
        """uint8 [pairs * 2, height, width, 3], all frames as the model is shown them. Raises MediaError."""
        return np.concatenate(list(self._frames(self.rules.temporal_patch_size)))

    def _frames(self, most: int) -> Iterator[np.ndarray]:
        """uint8 [F, height, width, 3], F an even number of frames up to `most`. One at a time is decoded to its full
        size. Raises MediaError if the clip is damaged."""
        step, P = self.rules.temporal_patch_size, self.rules.patch_size
        size = self.grid[2] * P, self.grid[1] * P
        frames: list[np.ndarray] = []
        with opened(self.data) as reader:
            for picture in reader.pictures(self.indices):
                frames.append(fitted(picture, 1, size))
                if len(frames) == most:
                    yield np.stack(frames)
                    frames = []
        if frames:  # an odd tail is shown twice
            yield np.stack(frames + frames[-1:] * (-len(frames) % step))


def look(data: bytes, rules: Rules, max_pixels: int | None = None) -> Clip:
    """The clip in these bytes: its container is read, no frame is decoded. Raises MediaError with one sentence."""
    with opened(data) as reader:
        info = reader.info
    indices = chosen_frames(info, rules)
    step = rules.temporal_patch_size
    count = max(len(indices), step)  # a single frame is shown twice
    w, h, smaller = rules.fit(*info.size, max_pixels, count, step)
    grid = (-(-count // step), h // rules.patch_size, w // rules.patch_size)
    seconds = pair_times(indices, info.fps, step)
    key = f"{hashlib.sha256(data).hexdigest()} {'x'.join(map(str, grid))}"
    return Clip(data, info, tuple(indices), grid, seconds, rules, key, joined(_notice(info, indices, rules), smaller))


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
