"""Prompts with pictures for the tiny checkpoint, the same for transformers (make_golden.py) and for our tests."""

from dataclasses import dataclass

import numpy as np
from make_checkpoint import PRESETS, SPECIAL_TOKENS

from qwen35_local.media.images import table
from qwen35_local.media.rules import IMAGES, patches

FIRST = PRESETS["tiny"].vocab - SPECIAL_TOKENS
START, END, IMAGE_PAD, VIDEO_PAD = FIRST + 9, FIRST + 10, FIRST + 12, FIRST + 13
GRIDS = ((1, 2, 2), (1, 4, 6), (1, 8, 4), (3, 4, 4), (5, 2, 14), (1, 14, 14), (1, 40, 22))
GREEDY = 8  # tokens after each prompt


@dataclass(frozen=True)
class Shown:
    """A picture or clip: its grid (pairs of frames, rows, columns of patches); `clip` if its pairs stand apart.

    `drawn` ones are made of pixels, the others of numbers that no picture has.
    """

    grid: tuple[int, int, int]
    clip: bool = False
    drawn: bool = False

    @property
    def tokens(self) -> int:
        """Of a picture, or of a pair."""
        return self.grid[1] * self.grid[2] // 4

    def patches(self) -> np.ndarray:
        """float32 [patches, 1536]"""
        rng = np.random.default_rng([7, *self.grid])
        if self.drawn:
            pixels = self.pixels()
            twice = pixels if self.clip else np.repeat(pixels, 2, axis=0)
            return patches(twice, table(IMAGES), IMAGES)
        return rng.standard_normal((int(np.prod(self.grid)), 1536)).astype(np.float32)

    def pixels(self) -> np.ndarray:
        """uint8 [frames, height, width, 3] of a drawn one: a picture's, or all of a clip's."""
        frames, rows, columns = self.grid[0] * 2 if self.clip else 1, self.grid[1] * 16, self.grid[2] * 16
        noise = np.random.default_rng([8, *self.grid]).integers(0, 256, (frames, rows // 4, columns // 4, 3))
        return noise.repeat(4, axis=1).repeat(4, axis=2).astype(np.uint8)


# Numbers are so many tokens of text.
CASES: dict[str, tuple[int | Shown, ...]] = {
    "image": (7, Shown((1, 4, 6)), 9),
    "two-images": (5, Shown((1, 4, 6)), 3, Shown((1, 8, 4)), 6),
    "video": (4, Shown((3, 4, 4), clip=True), 8),
    "image-and-video": (6, Shown((1, 8, 4)), 5, Shown((2, 4, 6), clip=True), 7),
}
DRAWN: dict[str, tuple[int | Shown, ...]] = {
    "drawn-image": (7, Shown((1, 4, 6), drawn=True), 9),
    "drawn-both": (6, Shown((1, 12, 8), drawn=True), 5, Shown((2, 4, 6), clip=True, drawn=True), 7),
}


def prompt(case: str) -> tuple[np.ndarray, list[Shown], list[tuple[int, int, int]]]:
    """(int32 ids, what is shown, (first token, which of them, its pair) of each run of pads)."""
    rng = np.random.default_rng([3, *case.encode()])
    ids: list[int] = []
    shown: list[Shown] = []
    runs: list[tuple[int, int, int]] = []
    for piece in (CASES | DRAWN)[case]:
        if isinstance(piece, int):
            ids += rng.integers(0, FIRST, piece).tolist()
            continue
        for pair in range(piece.grid[0] if piece.clip else 1):
            ids += [*(rng.integers(0, FIRST, 3).tolist() if piece.clip else ()), START]  # the pair's time
            runs.append((len(ids), len(shown), pair))
            ids += [VIDEO_PAD if piece.clip else IMAGE_PAD] * piece.tokens + [END]
        shown.append(piece)
    return np.array(ids, np.int32), shown, runs
