"""What is no picture or clip: each a sentence, soon, and nothing decoded that need not be."""

import contextlib
import time

import pytest
from pictures import bomb, clip, encoded, noise, picture, sound
from PIL import Image

from qwen35_local.errors import MediaError
from qwen35_local.media import images, video
from qwen35_local.media.rules import IMAGES, VIDEOS

JPEG = encoded(noise((400, 300)), "JPEG", quality=95)
PICTURES = {
    "bomb": (bomb(), "too large"),
    "large": (encoded(Image.new("1", (12000, 11000))), "12000x11000"),
    "long": (encoded(Image.new("1", (100_000, 1))), "100000x1 pixels is too long"),
    "empty": (b"", "an empty file"),
    "text": (b"this is not a picture, whatever its name says", "text is not a picture"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', "an SVG drawing"),
    "svg with a header": (b'<?xml version="1.0"?><svg/>', "SVG or XML"),
    "pdf": (b"%PDF-1.7\n", "a PDF"),
    "heic": (b"\0\0\0\x18ftypheic" + bytes(40), "HEIC"),
    "noise": (bytes(range(256)) * 8, "this data"),
    "no pixels": (b"GIF89a\0\0\0\0\0\0\0;", "picture"),
    "clip": (b"\0\0\0\x18ftypmp42" + bytes(40), "an MP4 clip"),
}
CUT = {
    "jpeg": JPEG[: len(JPEG) // 2],
    "png": picture()[:-600],
    "gif": encoded(noise((90, 90), "P"), "GIF")[:-700],
    "webp": encoded(noise((90, 90)), "WEBP")[:-700],
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_that_are_refused(name):
    data, word = PICTURES[name]
    begun = time.perf_counter()
    with pytest.raises(MediaError, match=word) as caught:
        images.look(data, IMAGES)
    assert time.perf_counter() - begun < 1
    assert "\n" not in str(caught.value)
    assert images.look(picture((64, 64)), IMAGES).patches().shape == (256, 1536)


def test_the_bomb_is_one():
    assert len(bomb()) < 60_000


@pytest.mark.parametrize("kind", CUT)
def test_pictures_that_are_cut(kind):
    with pytest.raises(MediaError, match=r"damaged|not a picture"):
        images.look(CUT[kind], IMAGES).patches()


def test_one_pixel_is_a_picture():
    assert images.look(encoded(Image.new("RGB", (1, 1), "red")), IMAGES).patches().shape == (256, 1536)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "cannot be read"),
        (b"text", "cannot be read"),
        (sound(), "no video track"),
        (clip()[:300], "cannot be read|no frames|damaged"),
        (b"\x1aE\xdf\xa3" + bytes(200), "cannot be read"),
    ],
    ids=["empty", "text", "sound", "cut", "matroska"],
)
def test_clips_that_are_refused(data, word):
    with pytest.raises(MediaError, match=word):
        video.look(data, VIDEOS)
    assert video.look(clip(), VIDEOS).patches().shape[1] == 1536


def test_animations_that_would_take_minutes(monkeypatch):
    """Each frame may be small in the file and large to decode."""
    from qwen35_local.media import clips

    frames = [Image.new("L", (600, 500), number) for number in range(9)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=100)
    assert video.look(data, VIDEOS).info.frames == 9
    monkeypatch.setattr(clips, "MOST_ANIMATED", 2_000_000)
    with pytest.raises(MediaError, match="9 frames of 600x500 pixels is too long: 2,000,000"):
        video.look(data, VIDEOS)


def test_frames_that_were_lost_are_told():
    whole = clip(200, 10, codec="libx264", format="matroska", b_frames=0)
    found = video.look(whole[: len(whole) * 2 // 3], VIDEOS)
    assert found.info.frames < 200
    assert found.patches().shape[1] == 1536


def test_a_lying_duration():
    """The header says ten hours; frames are counted, so nothing is awaited that is not there."""
    data = clip(20, 10, codec="libx264", format="matroska")
    at = data.find(b"\x44\x89\x88")  # Matroska's Duration, a float64 in milliseconds
    assert at > 0
    import struct

    lying = data[: at + 3] + struct.pack(">d", 36_000_000.0) + data[at + 11 :]
    found = video.look(lying, VIDEOS)
    assert (found.info.frames, found.seconds) == (20, video.look(data, VIDEOS).seconds)


def test_damage_inside_of_a_clip():
    data = bytearray(clip(60, 10, codec="libx264"))
    middle = len(data) // 2
    data[middle : middle + 400] = bytes(400)
    with contextlib.suppress(MediaError):  # decoders go on after damage where they can
        assert video.look(bytes(data), VIDEOS).patches().shape[1] == 1536
    assert video.look(clip(), VIDEOS).patches().shape[1] == 1536
