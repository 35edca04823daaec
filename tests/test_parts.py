"""Pictures and clips as parts of messages, in every form in which they may be given."""

import base64
import os

import pytest
from pictures import picture

from qwen35_local import parts
from qwen35_local.engine import message_of
from qwen35_local.errors import MediaError, TemplateError
from qwen35_local.parts import ImagePart, TextPart, VideoPart, part_of

DATA = picture((8, 8))
URI = "data:image/png;base64," + base64.b64encode(DATA).decode()


@pytest.fixture
def file(tmp_path):
    (tmp_path / "a.png").write_bytes(DATA)
    return tmp_path / "a.png"


@pytest.mark.parametrize(
    "value",
    [
        {"type": "image", "data": DATA},
        {"type": "image", "data": bytearray(DATA)},
        {"type": "image", "data": URI},
        {"type": "image_url", "image_url": {"url": URI}},
        {"type": "image_url", "image_url": {"url": URI, "detail": "high"}},
        {"type": "image_url", "image_url": URI},
        ImagePart(DATA),
    ],
)
def test_pictures(value):
    assert part_of(value) == ImagePart(DATA)


@pytest.mark.parametrize(
    "value", [{"type": "video", "data": DATA}, {"type": "video_url", "video_url": {"url": URI}}, VideoPart(DATA)]
)
def test_clips(value):
    assert part_of(value) == VideoPart(DATA)


def test_files(file, monkeypatch):
    monkeypatch.setenv("HOME", str(file.parent))
    for path in (file, str(file), "~/a.png"):
        assert part_of({"type": "image", "path": path}) == ImagePart(DATA) == ImagePart.read(path)
        assert part_of({"type": "video", "path": path}) == VideoPart(DATA) == VideoPart.read(path)


def test_limits(file):
    assert part_of({"type": "image", "path": file, "max_pixels": 1000}) == ImagePart(DATA, 1000)
    low = ImagePart(DATA, 512 * 512)
    assert part_of({"type": "image_url", "image_url": {"url": URI, "detail": "low"}}) == low
    assert part_of({"type": "image", "data": DATA, "detail": "low"}) == low


def test_a_message_keeps_their_order(file):
    message = message_of({
        "role": "user",
        "content": [
            {"type": "text", "text": "left"}, {"type": "image", "path": file}, {"type": "text", "text": "right"},
            {"type": "video", "data": DATA},
        ],
    })  # fmt: skip
    assert message.content == (TextPart("left"), ImagePart(DATA), TextPart("right"), VideoPart(DATA))
    assert message.text == "leftright"


@pytest.mark.parametrize(
    ("value", "error", "word"),
    [
        ({"type": "audio", "data": DATA}, TemplateError, "'audio' is not understood"),
        ({"type": "text"}, TemplateError, "text"),
        ({"type": "text", "text": 5}, TemplateError, "text"),
        ("text", TemplateError, "'str' is not understood"),
        ({"type": "image"}, MediaError, "needs a path, or data"),
        ({"type": "image", "data": 5}, MediaError, "needs a path, or data"),
        ({"type": "image", "data": b""}, MediaError, "empty"),
        ({"type": "image_url", "image_url": {}}, MediaError, "needs a path, or data"),
        ({"type": "image_url", "image_url": {"url": "http://a.test/a.png"}}, MediaError, "must begin with data:"),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64"}}, MediaError, "comma"),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,%%%"}}, MediaError, "bad base64"),
        ({"type": "image", "data": DATA, "max_pixels": 0}, TemplateError, "max_pixels must be"),
        ({"type": "image", "data": DATA, "max_pixels": True}, TemplateError, "max_pixels must be"),
        ({"type": "image", "data": DATA, "detail": "ultra"}, TemplateError, "auto, high or low, not 'ultra'"),
        ({"type": "image", "path": "/dev/zero"}, MediaError, "/dev/zero is not a file"),
        ({"type": "image", "path": "/nowhere/at/all.png"}, MediaError, "is not a file"),
        ({"type": "image", "path": "a\0b"}, MediaError, "file"),
        ({"type": "image", "path": 5}, MediaError, "path"),
    ],
)
def test_what_is_refused(value, error, word):
    with pytest.raises(error, match=word) as caught:
        part_of(value)
    assert "\n" not in str(caught.value)


def test_files_that_are_none(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "empty.png").touch()
    (tmp_path / "large.png").write_bytes(bytes(1 << 20))
    monkeypatch.setattr(parts, "MOST_BYTES", 1 << 19)
    for name, word in (("pipe", "not a file"), ("loop", "loop"), ("empty.png", "is empty"), ("large.png", "more than"),
                       ("", "not a file")):  # fmt: skip
        with pytest.raises(MediaError, match=word):
            ImagePart.read(tmp_path / name)
