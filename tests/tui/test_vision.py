"""Pictures before they reach the model: loading, refusing, cost, cells, pastes."""

import base64
import io
import struct
from pathlib import Path
from types import SimpleNamespace

import pytest
from driven import png, run
from PIL import Image

from qwen35_local.engine import ImagePart
from qwen35_local.errors import MediaError, Qwen35Error
from tui.chat.media import Media, Sight
from tui.palette import PLAIN
from tui.screens.history import Picked
from tui.screens.preview import Canvas
from tui.vision.cells import fitted, strips
from tui.vision.cost import price
from tui.vision.frames import clock, frames_at, grid
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


@pytest.mark.parametrize(
    ("size", "shown", "cost"), [((640, 400), (640, 384), 242), ((256, 256), (256, 256), 66), ((30, 30), (256, 256), 66)]
)
def test_known_costs(size: tuple[int, int], shown: tuple[int, int], cost: int):
    sight = price(Media("x", "image", png(size), size))
    assert (sight.stored, sight.shown, sight.tokens) == (size, shown, cost)
    assert sight.note == f"{size[0]}×{size[1]} → {shown[0]}×{shown[1]} · {cost} tokens"


@pytest.fixture
def clip() -> Media:
    """Three seconds, red, then green, then blue."""
    av = pytest.importorskip("av")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(30):
            color = ("red", "lime", "blue")[number // 10]
            container.mux(stream.encode(av.VideoFrame.from_image(Image.new("RGB", (64, 48), color))))
        container.mux(stream.encode())
    return media_of(buffer.getvalue(), "three.mp4")


def test_frames_of_a_clip_are_those_at_its_times(clip: Media):
    sight = price(clip)
    assert clip.kind == "video"
    assert len(sight.seconds) == 3  # six frames, in pairs
    frames = frames_at(clip, sight.seconds)
    assert [frame.seconds for frame in frames] == list(sight.seconds)
    middles = [decoded(frame.media.data, "x", (64, 64)).getpixel((32, 24)) for frame in frames]
    assert [max(range(3), key=pixel.__getitem__) for pixel in middles] == [0, 1, 2]  # type: ignore[union-attr]
    lines = [strip.text for strip in grid(frames, 32, 15, 5, PLAIN)]
    assert lines[0].count("▀") == 2 * fitted((64, 48), 15, 5)[0]
    assert [line.split() for line in lines if "▀" not in line] == [
        [clock(sight.seconds[0]), clock(sight.seconds[1])],
        [clock(sight.seconds[2])],
    ]


@run
async def test_the_pane_shows_frames_and_times_then_the_models_own_price(drive, clip: Media, tmp_path: Path):
    path = tmp_path / "three.mp4"
    path.write_bytes(clip.data)
    picture = tmp_path / "a.png"
    picture.write_bytes(png((100, 60)))
    async with drive(["ok"], vision=True, size=(100, 40)) as d:
        d.engine.look = lambda part: SimpleNamespace(  # another model's rules
            key="k", rows=2, columns=3, seconds=None, notice="small", size=(100, 60)
        )
        await d.say(f"/image {picture}")
        pane = d.app.chat.pictures
        await d.until(lambda: pane.media[0].sight and pane.media[0].sight.shown == (96, 64))
        shown = [strip.text.strip() for strip in pane._drawn(32)]
        assert "1 to send · 8 tokens" in shown
        assert "small" in shown
        del d.engine.look
        await d.say(f"/image {path}")
        await d.until(lambda: pane.picked[-1].frames)
        text = "\n".join(strip.text for strip in pane._drawn(32))
        for frame in pane.picked[-1].frames:
            assert clock(frame.seconds) in text
        d.app.chat.pictures.focus()
        await d.press("enter")
        await d.until(lambda: d.app.screen.query_one(Canvas)._frames)


@run
async def test_a_price_that_the_engine_does_not_tell_is_said_to_be_a_guess(drive, tmp_path: Path):
    picture = tmp_path / "a.png"
    picture.write_bytes(png((100, 60)))
    async with drive(["ok"], vision=True, size=(100, 40), data=tmp_path / "data") as d:
        await d.say(f"/image {picture}")
        pane = d.app.chat.pictures
        await d.until(lambda: pane.media[0].sight and pane.media[0].sight.notice)
        assert "released model's rules" in " ".join(strip.text.strip() for strip in pane._drawn(32))
        await d.say(d.app.chat.composer.text + "What is this?")
        assert "released model's rules" in d.text


@run
async def test_what_the_model_saw_is_kept_with_the_message(drive, clip: Media, tmp_path: Path):
    picture, film = tmp_path / "a.png", tmp_path / "three.mp4"
    picture.write_bytes(png((100, 60)))
    film.write_bytes(clip.data)
    seen = SimpleNamespace(key="k", rows=2, columns=3, seconds=None, notice="small", size=(100, 60))
    async with drive(["ok"], vision=True, size=(100, 60), data=tmp_path / "data") as d:
        real = d.engine.look
        d.engine.look = lambda part: seen if isinstance(part, ImagePart) else real(part)  # another model's rules
        await d.say(f"/image {picture}")
        await d.say(f"{d.app.chat.composer.text}/image {film}", wait=False)
        await d.until(lambda: len(d.app.chat.pictures.media) == 2)
        await d.say(d.app.chat.composer.text + "What are these?")
        await d.until(lambda: all(media.sight for media in d.app.talk.tree.path()[0].media))
        times = [clock(second) for second in price(clip).seconds]
        await d.until(lambda: all(time in d.text for time in times))
        assert "[Image #1] a.png  100×60 → 96×64 · 8 tokens" in d.text
        assert "6 frames" in d.text
        chat = d.app.talk.chat
        await d.say("/export md out.md")
        assert "*[image: a.png, 100×60 → 96×64 · 8 tokens]*" in (tmp_path / "out.md").read_text()
    async with drive([], vision=True, size=(100, 60), data=tmp_path / "data") as d:  # priced otherwise by now
        d.app.chat.verbs._open(Picked(chat))
        assert d.app.talk.tree.path()[0].media[0].sight == Sight((100, 60), (96, 64), 8, notice="small")
        await d.until(lambda: all(time in d.text for time in times))
        assert "[Image #1] a.png  100×60 → 96×64 · 8 tokens" in d.text


def test_a_damaged_clip_says_so():
    with pytest.raises(Qwen35Error):
        price(Media("x", "video", b"\0\0\0\x18ftypmp42....", (0, 0)))


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


def test_without_colours_light_is_dense():
    image = Image.linear_gradient("L").resize((1, 10)).convert("RGB")
    assert [line.text for line in strips(image, "none")] == [" ", "░", "▒", "▓", "█"]
    assert not any(segment.style for line in strips(image, "none") for segment in line)


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
