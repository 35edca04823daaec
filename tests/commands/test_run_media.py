"""`qwen35 run --image --video` on a tiny random model that sees: what it is shown, what that costs, what is refused."""

import io
import json
import sys

import pytest
from pictures import bomb, clip, encoded, noise, picture, sound
from PIL import Image

OPTIONS = ("--max-tokens", "3", "--no-think", "--temperature", "0")


@pytest.fixture
def run(qwen35, sighted):
    return lambda *argv: qwen35("run", "--model", str(sighted), *OPTIONS, *argv)


@pytest.fixture
def files(tmp_path):
    (tmp_path / "one.png").write_bytes(picture((96, 64), seed=1))
    (tmp_path / "two.jpg").write_bytes(encoded(noise((320, 200)), "JPEG", turn=6))
    (tmp_path / "film.mp4").write_bytes(clip(12, 3))
    return tmp_path


def prompt_tokens(out: str) -> int:
    return json.loads(out.splitlines()[-1])["usage"]["prompt_tokens"]


def test_pictures_and_clips_in_their_order(run, files):
    """What each costs is said before anything is computed, and is what the prompt grows by."""
    result = run("--image", f"{files}/one.png", "--video", f"{files}/film.mp4", "--image", f"{files}/two.jpg",
                 "What?", "--json")  # fmt: skip
    assert result.status == 0, result.err
    one, film, two = result.err.splitlines()
    assert one == "one.png: 96x64 pixels, 8 tokens"
    assert film.startswith("film.mp4: 96x64 pixels, 4 pairs of frames, ")
    assert two == "two.jpg: 200x320 pixels, 62 tokens"
    costs = [int(line.split(" tokens")[0].split()[-1]) for line in (one, film, two)]
    assert prompt_tokens(result.out) == sum(costs) + prompt_tokens(run("What?", "--json").out)
    turned = run("--image", f"{files}/two.jpg", "--image", f"{files}/one.png", "What?", "--json")
    assert [line.split(":")[0] for line in turned.err.splitlines()] == ["two.jpg", "one.png"]


def test_a_still_picture_as_a_clip(run, files):
    assert "one.png: 96x64 pixels, 1 pair of frames, " in run("--video", f"{files}/one.png", "What?").err


def test_quiet(run, files):
    assert run("--image", f"{files}/one.png", "What?", "--quiet").err == ""


def test_a_picture_from_standard_input(run, files, monkeypatch):
    data = (files / "one.png").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    piped = run("--image", "-", "What?", "--json")
    assert piped.err.startswith("standard input: 96x64 pixels, 8 tokens")
    named = run("--image", f"{files}/one.png", "What?", "--json")
    assert prompt_tokens(piped.out) == prompt_tokens(named.out)


def test_standard_input_is_one_thing(run, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    for argv, word in (
        (("--image", "-"), "standard input is a picture already"),
        (("--image", "-", "--video", "-", "What?"), "one picture or clip only"),
        (("--image", "-", "What?"), "standard input is empty"),
    ):
        result = run(*argv)
        assert (result.status, word in result.err) == (2, True), result.err


def test_smaller_on_request(run, files):
    shown = run("--image", f"{files}/two.jpg", "What?", "--max-pixels", "20000")
    assert "two.jpg: 200x320 pixels, 17 tokens" in shown.err
    result = run("--image", f"{files}/two.jpg", "What?", "--max-pixels", "0")
    assert (result.status, "--max-pixels must be at least 1" in result.err) == (2, True)


def test_a_text_only_model_says_so(qwen35, pristine, files):
    result = qwen35("run", "--model", str(pristine), *OPTIONS, "--image", f"{files}/one.png", "What?")
    assert result.status == 2
    assert "one.png: tiny cannot see: it has no vision tower" in result.err


BAD = {
    "bomb.png": (bomb(), "bomb.png: a picture of 400,000,000 pixels is too large"),
    "long.png": (encoded(Image.new("1", (100_000, 1))), "long.png: a picture of 100000x1 pixels is too long"),
    "none.gif": (b"GIF89a\0\0\0\0\0\0\0;", "none.gif: "),
    "cut.jpg": (encoded(noise((400, 300)), "JPEG", quality=95)[:9000], "damaged"),
    "text.png": (b"just text", "text.png: text is not a picture"),
    "a.svg": (b"<svg/>", "a.svg: an SVG drawing is not a picture"),
    "empty.png": (b"", "empty.png is empty"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_pictures_are_one_sentence(run, tmp_path, name):
    data, word = BAD[name]
    (tmp_path / name).write_bytes(data)
    result = run("--image", f"{tmp_path}/{name}", "What?")
    assert (result.status, result.out) == (2, "")
    assert word in result.err
    assert "Traceback" not in result.err
    assert len(result.err.splitlines()) <= 2, "the cost, if it was known, and the refusal"


@pytest.mark.parametrize(
    ("data", "word"), [(sound(), "no video track"), (b"text", "cannot be read"), (clip()[:300], "clip.mp4: ")]
)
def test_bad_clips_are_one_sentence(run, tmp_path, data, word):
    (tmp_path / "clip.mp4").write_bytes(data)
    result = run("--video", f"{tmp_path}/clip.mp4", "What?")
    assert result.status == 2
    assert word in result.err
    assert len(result.err.splitlines()) == 1


def test_ten_hours_are_capped_and_said(run, tmp_path):
    (tmp_path / "long.mp4").write_bytes(clip(800, 1 / 45, size=(32, 32)))
    result = run("--video", f"{tmp_path}/long.mp4", "What?")
    assert "384 pairs of frames" in result.err
    assert "a clip of 600 minutes is shown as 768 frames, one every 46.9 seconds" in result.err
    assert "tokens and the context is 512" in result.err, "and does not fit this small model"


def test_without_pyav_the_sentence_says_what_to_install(run, files, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    result = run("--video", f"{files}/film.mp4", "What?")
    assert (result.status, result.out) == (2, "")
    assert "clips need PyAV: pip install 'qwen35-local[video]'" in result.err
    assert run("--image", f"{files}/one.png", "What?").status == 0


def test_a_hundred_pictures_are_counted_first(run, tmp_path, monkeypatch):
    monkeypatch.setattr("qwen35_local.media.images.rgb", lambda image: pytest.fail("decoded"))
    argv = []
    for number in range(100):
        (tmp_path / f"{number}.png").write_bytes(picture((96, 64), seed=number))
        argv += ["--image", f"{tmp_path}/{number}.png"]
    result = run(*argv, "What?")
    assert result.status == 2
    assert "the prompt has 8" in result.err.splitlines()[-1]
    assert "and the context is 512" in result.err
