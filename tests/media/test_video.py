"""Clips to frames, times and patches. The released processor itself is asked in test_media_oracle.py."""

import numpy as np
import pytest
from pictures import clip, encoded
from PIL import Image

from qwen35_local.media import images, video
from qwen35_local.media.clips import ClipInfo
from qwen35_local.media.rules import VIDEOS, Rules

RULES = Rules(4096, 512 * 512)


@pytest.mark.parametrize(
    ("frames", "fps", "indices"),
    [
        (1, 10, [0]),
        (2, 10, [0, 1]),
        (9, 10, [0, 3, 5, 8]),  # fewer than four seconds' worth: the fewest, evenly
        (25, 5, [0, 3, 5, 8, 11, 13, 16, 19, 21, 24]),
        (100, 25, [0, 14, 28, 42, 57, 71, 85, 99]),
    ],
)
def test_chosen_frames(frames, fps, indices):
    assert video.chosen_frames(ClipInfo(frames, fps, (64, 64)), RULES) == indices


def test_an_odd_tail_is_shown_twice():
    assert video.pair_times([0, 3, 5], 10, 2) == (0.15, 0.5)
    found = video.look(clip(5, 5), Rules(4096, 512 * 512, min_frames=5))
    assert (len(found.indices), found.grid[0], len(found.seconds)) == (5, 3, 3)
    patches = found.patches().reshape(3, -1, 3, 2, 256)
    assert np.array_equal(patches[2, :, :, 0], patches[2, :, :, 1])
    assert not np.array_equal(patches[1, :, :, 0], patches[1, :, :, 1])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"codec": "libx264", "b_frames": 2, "frames": 60, "fps": 24},
        {"codec": "libvpx-vp9", "format": "webm", "frames": 12, "fps": 4},
        {"codec": "libx264", "format": "matroska", "b_frames": 2, "frames": 40, "fps": 8},
        {"format": "avi", "frames": 40, "fps": 5},
        {"times": [0, 40, 400, 480, 2000, 2100, 2130, 3900, 4000]},
    ],
    ids=["mp4", "b-frames", "webm", "mkv", "avi", "variable"],
)
def test_frames_are_those_of_decoding_all(options):
    """Jumping to key frames finds the very frames that reading the whole clip does."""
    import io

    import av

    data = clip(**options)
    found = video.look(data, RULES)
    with av.open(io.BytesIO(data), "r") as container:
        every = [frame.to_image() for frame in container.decode(video=0)]
    assert found.info.frames == len(every)
    step = found.patches().reshape(found.grid[0], -1, 3, 2, 256)
    for place, index in enumerate(found.indices):
        size = found.grid[2] * 16, found.grid[1] * 16
        expected = images.fitted(every[index], 1, size)
        alone = video.patches(np.stack([expected, expected]), video.table(RULES), RULES).reshape(-1, 3, 2, 256)
        assert np.array_equal(step[place // 2, :, :, place % 2], alone[:, :, 0]), f"frame {index}"


def test_a_single_frame_is_shown_twice():
    found = video.look(clip(1), RULES)
    assert (found.grid[0], found.seconds, found.notice) == (1, (0.0,), "")
    assert found.patches().shape == (found.grid[1] * found.grid[2], 1536)


def test_ten_hours_are_capped_and_said():
    found = video.look(clip(800, 1 / 45, size=(32, 32)), VIDEOS)
    assert len(found.indices) == 768
    assert found.grid[0] == 384
    assert found.notice == "a clip of 600 minutes is shown as 768 frames, one every 46.9 seconds"
    assert found.seconds[-1] == pytest.approx(35900, abs=60)


def test_an_animation_as_a_clip():
    frames = [Image.new("RGB", (64, 64), (40 * number, 0, 0)) for number in range(6)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=500)
    found = video.look(data, RULES)
    assert (found.info.frames, found.info.fps, found.info.size) == (6, 2.0, (64, 64))
    assert found.indices == (0, 1, 2, 3, 4, 5)
    assert found.seconds == (0.25, 1.25, 2.25)
    reds = found.patches().reshape(3, -1, 3, 2, 256)[:, 0, 0, :, 0].ravel() * 127.5 + 127.5
    assert reds.tolist() == pytest.approx([0, 40, 80, 120, 160, 200], abs=4)


def test_pieces_are_the_whole(monkeypatch):
    """However many pairs go together, and at an odd tail."""
    found = video.look(clip(25, 5), Rules(4096, 512 * 512, fps=5))
    whole, pixels = found.patches(), found.pixels()
    assert pixels.shape == (26, found.rows * 32, found.columns * 32, 3)
    for most in (1, 100, 10**6):
        monkeypatch.setattr(video, "PIECE", most)
        assert np.array_equal(np.concatenate(list(found.pieces())), whole)
    assert np.array_equal(video.patches(pixels, video.table(found.rules), found.rules), whole)


def test_all_frames_share_the_pixels():
    """The limit is of all frames together, so a longer clip is shown smaller."""
    short, long = (video.look(clip(n, 2, size=(320, 320)), RULES) for n in (4, 40))
    assert short.rows > long.rows
    assert np.prod(long.grid) * 2 * 256 <= RULES.max_pixels
