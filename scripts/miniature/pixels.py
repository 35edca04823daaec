"""Pictures as the vision tower takes them: rows of patches, in the order of the released processor."""

import numpy as np
from PIL import Image

PATCH, MERGE, FRAMES = 16, 2, 2


def patches(first: Image.Image, second: Image.Image | None = None) -> tuple[np.ndarray, tuple[int, int]]:
    """float32 [gh * gw, 3 * 2 * 16 * 16] in -1 .. 1 of a pair of frames (a still is its own pair), and (gh, gw).

    Sides are multiples of 32. Rows run over blocks of 2 x 2 patches; in a row: channel, frame, y, x.
    """
    frames = np.stack([np.asarray(image, dtype=np.float32) for image in (first, second or first)])
    frames = (frames * np.float32(1 / 255) - np.float32(0.5)) / np.float32(0.5)  # [2, H, W, 3]
    gh, gw = frames.shape[1] // PATCH, frames.shape[2] // PATCH
    cut = frames.reshape(FRAMES, gh // MERGE, MERGE, PATCH, gw // MERGE, MERGE, PATCH, 3)
    rows = cut.transpose(1, 4, 2, 5, 7, 0, 3, 6)  # block row, block column, row, column, channel, frame, y, x
    return rows.reshape(gh * gw, -1), (gh, gw)


def patch_of(x: float, y: float, grid: tuple[int, int]) -> int:
    """The row of the patch that holds a pixel."""
    gh, gw = grid
    column, row = (min(max(int(v // PATCH), 0), n - 1) for v, n in ((x, gw), (y, gh)))
    block = row // MERGE * (gw // MERGE) + column // MERGE
    return block * MERGE * MERGE + row % MERGE * MERGE + column % MERGE
