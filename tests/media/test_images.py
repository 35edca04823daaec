"""Pictures to patches: against a slow, separate reading of the rules. The released processor itself is asked in
test_media_oracle.py."""

import json
from typing import Any

import numpy as np
import pytest
from pictures import encoded, noise, picture
from PIL import Image, ImageOps

from qwen35_local.errors import ConfigError, MediaError
from qwen35_local.media import images
from qwen35_local.media.rules import IMAGES, VIDEOS, Rules, read_rules, smart_resize

SMALL = Rules(4096, 65536, mean=(0.48, 0.46, 0.41), std=(0.27, 0.26, 0.28))


def slowly(image: Image.Image, rules: Rules, size: tuple[int, int]) -> np.ndarray:
    """Patches one value at a time, in float64, of a picture resized to `size`."""
    pixels = np.asarray(image.resize(size, Image.Resampling.BICUBIC), np.float64) / 255
    pixels = (pixels - np.array(rules.mean)) / np.array(rules.std)
    P, M = rules.patch_size, rules.merge_size
    rows = []
    for by in range(size[1] // P // M):
        for bx in range(size[0] // P // M):
            for y in range(M):
                for x in range(M):
                    top, left = (by * M + y) * P, (bx * M + x) * P
                    patch = pixels[top : top + P, left : left + P]  # [row, column, channel]
                    rows.append(np.stack([patch.transpose(2, 0, 1)] * 2, axis=1).ravel())
    return np.stack(rows)


@pytest.mark.parametrize(
    ("mode", "format"),
    [("RGB", "PNG"), ("L", "PNG"), ("RGBA", "PNG"), ("LA", "PNG"), ("P", "PNG"), ("1", "PNG"), ("CMYK", "TIFF")],
)
def test_patches(mode, format):
    image = noise((90, 140), mode)
    found = images.look(encoded(image, format), SMALL)
    width, height = found.grid[2] * 16, found.grid[1] * 16
    if "A" in mode:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    np.testing.assert_allclose(found.patches(), slowly(image.convert("RGB"), SMALL, (width, height)), atol=1e-6)


@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_orientation(turn):
    """The grid is known upright, before decoding; the patches are those of the turned picture."""
    data = encoded(noise((200, 40)), "JPEG", turn=turn, quality=95)
    found = images.look(data, SMALL)
    import io

    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert found.size == upright.size
    size = found.grid[2] * 16, found.grid[1] * 16
    np.testing.assert_allclose(found.patches(), slowly(upright.convert("RGB"), SMALL, size), atol=1e-6)


def test_16_bit_greys_keep_their_upper_byte():
    """Pillow's own conversion makes everything above 255 white."""
    image = noise((64, 64), "I;16")
    found = images.look(encoded(image), SMALL).patches()
    eight = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    np.testing.assert_allclose(found, slowly(eight, SMALL, (64, 64)), atol=1e-6)


def test_transparent_palette_lies_on_white():
    image = Image.new("P", (64, 64), 3)
    image.putpalette([0, 0, 0] * 256)
    found = images.look(encoded(image, transparency=3), IMAGES)
    assert found.patches().min() == found.patches().max() == 1.0


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_large_transparent_pictures_are_laid_on_white_in_stripes(monkeypatch, mode):
    options: dict[str, Any] = {"transparency": 3} if mode == "P" else {}
    data = encoded(noise((90, 140), mode), **options)
    whole = images.look(data, SMALL).patches()
    monkeypatch.setattr(images, "STRIPE", 90 * 33)
    assert np.array_equal(images.look(data, SMALL).patches(), whole)


def test_an_animation_shows_its_first_frame_and_says_so():
    frames = [Image.new("RGB", (64, 64), color) for color in ("white", "black", "red")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=100)
    found = images.look(data, SMALL)
    assert "3 frames" in found.notice
    assert np.array_equal(found.patches(), images.look(encoded(frames[0]), SMALL).patches())


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((1, 1), (256, 256)),
        ((640, 480), (640, 480)),
        ((4096, 4096), (4096, 4096)),
        ((5000, 5000), (4096, 4096)),
        ((48, 80), (224, 352)),  # halves round to even: 1.5 and 2.5 tokens
        ((1200, 6), (3648, 32)),
    ],
)
def test_smart_resize(size, shown):
    w, h = smart_resize(size[0], size[1], 32, 65536, 16777216)
    assert w % 32 == h % 32 == 0
    assert (w, h) == shown


def test_max_pixels_caps_what_is_shown():
    data = picture((800, 600))
    whole, low = images.look(data, IMAGES), images.look(data, IMAGES, 100_000)
    assert low.rows * low.columns * 1024 <= 100_000 < whole.rows * whole.columns * 1024
    assert whole.key != low.key
    assert images.look(data, IMAGES, 1).grid == (1, 2, 2)  # one token at least


def test_equal_bytes_have_equal_keys():
    assert images.look(picture(), IMAGES).key == images.look(picture(), IMAGES).key
    assert images.look(picture(), IMAGES).key != images.look(picture(seed=1), IMAGES).key


def test_rules_of_a_directory(tmp_path):
    assert read_rules(tmp_path) == (IMAGES, VIDEOS)
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"size": {"shortest_edge": 1024, "longest_edge": 4096}, "image_mean": [0.1, 0.2, 0.3]})
    )
    image, video = read_rules(tmp_path)
    assert (image.min_pixels, image.max_pixels, image.mean) == (1024, 4096, (0.1, 0.2, 0.3))
    assert (video.max_pixels, video.mean) == (VIDEOS.max_pixels, (0.1, 0.2, 0.3))
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps({"fps": 4, "max_frames": 16}))
    assert (read_rules(tmp_path)[1].fps, read_rules(tmp_path)[1].max_frames) == (4, 16)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"do_resize": false}', '{"resample": 2}', '{"patch_size": -1}', '{"image_mean": [1]}']
)
def test_rules_that_are_refused(tmp_path, text):
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(ConfigError):
        read_rules(tmp_path)


def test_floats_are_refused():
    with pytest.raises(MediaError, match="32-bit"):
        images.look(encoded(Image.new("F", (64, 64)), "TIFF"), IMAGES).patches()
