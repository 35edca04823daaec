"""Pictures before they reach the model: loading, refusing, cost, cells, pastes."""

import base64
import io
import struct
from pathlib import Path

import pytest
from driven import png
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from qwen35_local.errors import MediaError
from tui.chat.turns import Media
from tui.vision.cells import fitted, strips
from tui.vision.cost import LEAST, MOST, UNIT, shown_size, tokens
from tui.vision.load import decoded, load, media_of
from tui.vision.painter import Painter
from tui.vision.pasted import data_uri, media_paths


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK", "I;16", "1"])
def test_every_mode_becomes_rgb(mode: str):
    kind = "TIFF" if mode == "CMYK" else "PNG"
    media = media_of(encoded(Image.new(mode, (40, 20)), kind), "x")
    assert media.pixels == (40, 20)
    assert decoded(media.data, "x", (99, 99)).mode == "RGB"


def test_exif_turns_the_picture():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.new("RGB", (40, 20)), "JPEG", exif=exif)
    assert decoded(data, "x", (99, 99)).size == (20, 40)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not a picture"),
        (b"%PDF-1.7", "not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
        (png((300, 200))[:-60], "damaged"),
        (png((4000, 2)), "200 times"),
    ],
)
def test_bad_pictures_are_refused(data: bytes, said: str):
    with pytest.raises(MediaError, match=said):
        media_of(data, "x.png")


def test_a_bomb_is_refused_by_its_header():
    bomb = bytearray(png())
    bomb[16:24] = struct.pack(">II", 60_000, 60_000)
    with pytest.raises(MediaError, match=r"60000×60000|not a picture|damaged"):
        media_of(bytes(bomb), "x.png")


def test_files_that_are_none(tmp_path: Path):
    with pytest.raises(MediaError, match="not a file"):
        load(tmp_path)
    with pytest.raises(MediaError, match="not a file"):
        load(Path("/dev/zero"))


def test_a_clip_is_known_by_its_bytes():
    assert media_of(b"\0\0\0\x18ftypmp42....", "a.mp4").kind == "video"


@given(st.integers(1, 6000), st.integers(1, 6000))
def test_the_size_shown_keeps_to_the_rule(width: int, height: int):
    w, h = shown_size(width, height)
    assert w % UNIT == h % UNIT == 0
    if max(width, height) < 50 * min(width, height):
        assert LEAST * 0.9 <= w * h <= MOST * 1.05
    assert tokens(width, height) == w * h // UNIT**2 + 2


def test_known_costs():
    assert shown_size(640, 400) == (640, 384)
    assert tokens(256, 256) == 66
    assert shown_size(8192, 8192) == (4096, 4096)


def test_half_blocks_are_two_pixels():
    image = Image.new("RGB", (3, 3), "red")
    lines = strips(image)
    assert [line.text for line in lines] == ["▀▀▀", "▀▀▀"]
    style = lines[0]._segments[0].style
    assert style is not None
    assert style.color is not None
    assert style.color.triplet == (255, 0, 0)


@pytest.mark.parametrize(("depth", "first", "last"), [("256", 16, 255), ("16", 0, 15)])
def test_fewer_colours_are_dithered_from_the_palette(depth, first: int, last: int):
    image = Image.linear_gradient("L").resize((32, 32)).convert("RGB")
    styles = [segment.style for line in strips(image, depth) for segment in line]
    numbers = {style.color.number or 0 for style in styles if style and style.color}
    assert len(numbers) > 2
    assert all(first <= number <= last for number in numbers)


def test_thumbnails_fit_and_damage_is_harmless():
    media = Media("x", "image", png((400, 100)), (400, 100))
    lines = Painter().thumbnail(media, 20, 8)
    assert all(line.cell_length == 20 for line in lines)
    assert fitted((1, 5000), 10, 5) == (1, 10)
    assert Painter().thumbnail(Media("x", "image", b"junk", (10, 10)), 20, 8) == ()


def test_pasted_paths(tmp_path: Path):
    first, second = tmp_path / "a b.png", tmp_path / "c.jpg"
    first.write_bytes(png())
    second.write_bytes(png())
    escaped = str(first).replace(" ", "\\ ")
    for text in (f"'{first}'", f'"{first}"', escaped, str(first), first.as_uri()):
        assert media_paths(text) == [first]
    assert media_paths(f"{escaped} '{second}'\n") == [first, second]
    assert media_paths(f"look at {second}") == []
    assert media_paths(str(tmp_path / "none.png")) == []
    assert media_paths("x" * 100_000) == []
    assert media_paths("\0.png") == []


def test_data_uris():
    good = base64.b64encode(png()).decode()
    assert data_uri(f"data:image/png;base64,{good}") == png()
    assert data_uri("data:text/plain;base64,AAAA") is None
    assert data_uri("hello") is None
    with pytest.raises(MediaError, match="damaged"):
        data_uri("data:image/png;base64,@@@")
    with pytest.raises(MediaError):
        media_of(data_uri("data:image/png;base64,AAAA") or b"", "pasted")
