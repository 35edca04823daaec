"""Encoded pictures -> patches, to the bit as the released processor makes them.

A picture is checked and priced from its header; its pixels are decoded when the model looks at it.
"""

import hashlib
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..errors import MediaError
from .rules import Rules, patches

MOST_PIXELS = 120_000_000  # of a picture as stored: 360 MB decoded; the model is shown 16.8 M at most
STRIPE = 1 << 22  # pixels
# Those of Pillow's formats that people send; others have decoders that nobody watches, or run programs.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "PPM", "ICO", "JPEG2000", "TGA", "QOI")
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)
SIGNS = {b"%PDF": "a PDF", b"<svg": "an SVG drawing", b"<?xml": "an SVG or XML text", b"\x1aE\xdf\xa3": "a clip"}
HEIC = (b"heic", b"heix", b"hevc", b"mif1", b"msf1")


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture, checked, not decoded. `size` is (width, height) upright, `grid` (1, rows, columns) of patches."""

    data: bytes = field(repr=False)
    size: tuple[int, int]
    grid: tuple[int, int, int]
    turn: int
    rules: Rules
    key: str
    notice: str = ""
    seconds: None = None

    @property
    def rows(self) -> int:
        return self.grid[1] // self.rules.merge_size

    @property
    def columns(self) -> int:
        return self.grid[2] // self.rules.merge_size

    def pixels(self) -> np.ndarray:
        """uint8 [1, height, width, 3], as the model is shown it. Raises MediaError if the picture is damaged."""
        width, height = (side * self.rules.patch_size for side in self.grid[:0:-1])
        with opened_picture(self.data) as image:
            return fitted(rgb(image), self.turn, (width, height))[None]

    def patches(self) -> np.ndarray:
        """float32 [rows * columns * merge², patch_dim]. Raises MediaError if the picture is damaged."""
        pixels = self.pixels()
        shown = np.broadcast_to(pixels, (self.rules.temporal_patch_size, *pixels.shape[1:]))
        return patches(shown, table(self.rules), self.rules)

    def pieces(self) -> Iterator[np.ndarray]:
        """All of its patches: every one of them is seen with all others."""
        yield self.patches()


def look(data: bytes, rules: Rules, max_pixels: int | None = None) -> Picture:
    """The picture in these bytes, by its header alone. Raises MediaError with one sentence."""
    with opened_picture(data) as image:
        (width, height), turn = image.size, orientation(image)
        notice = f"an animation of {count} frames: the first is shown" if (count := frames(image)) > 1 else ""
    if width * height > MOST_PIXELS:
        raise MediaError(f"a picture of {width}x{height} pixels is too large: {MOST_PIXELS:,} is the most")
    if turn in SIDEWAYS:
        width, height = height, width
    w, h, smaller = rules.fit(width, height, max_pixels)
    grid = (1, h // rules.patch_size, w // rules.patch_size)
    key = f"{hashlib.sha256(data).hexdigest()} {grid[1]}x{grid[2]}"
    return Picture(data, (width, height), grid, turn, rules, key, joined(notice, smaller))


def joined(*notices: str) -> str:
    return "; ".join(notice for notice in notices if notice)


def orientation(image: Image.Image) -> int:
    """EXIF orientation from the header, 1 if there is none or, as with TIFF, Pillow turns the picture by itself."""
    if image.format == "TIFF":
        return 1
    with warnings.catch_warnings():  # damaged EXIF is no reason to refuse a picture
        warnings.simplefilter("ignore")
        try:
            # PNG's own getexif decodes the whole picture to look for EXIF behind it.
            turn = Image.Image.getexif(image).get(ORIENTATION, 1)
        except Exception:  # whatever a damaged EXIF makes the parser raise
            return 1
    return turn if turn in TURNS else 1


def frames(image: Image.Image) -> int:
    return getattr(image, "n_frames", 1) if image.format in ("GIF", "PNG", "WEBP") else 1


def rgb(image: Image.Image) -> Image.Image:
    """RGB as the released processor has it: what is transparent lies on white. 16-bit greys keep their upper byte,
    where Pillow's own conversion would cut everything above 255 to white."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image.convert("I") if image.mode != "F" else image)
        if image.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise MediaError(
                f"a picture with 32-bit pixels ({image.mode}) has no known white: save it with 8 or 16 bits"
            )
        image = Image.fromarray((values >> 8).astype(np.uint8))
    if "A" in image.getbands() or "a" in image.getbands() or image.info.get("transparency") is not None:
        return on_white(image)
    return image.convert("RGB")


def on_white(image: Image.Image) -> Image.Image:
    """RGB of a picture with transparent parts. Some rows at a time: a large one would be in memory five times."""
    width, height = image.size
    rows = max(1, STRIPE // width)
    if height <= rows:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    image.load()
    opaque = Image.new("RGB", image.size)
    for top in range(0, height, rows):
        opaque.paste(on_white(image.crop((0, top, width, min(top + rows, height)))), (0, top))
    return opaque


def fitted(image: Image.Image, turn: int, size: tuple[int, int]) -> np.ndarray:
    """uint8 [height, width, 3] of an RGB picture, turned, then resized to (width, height)."""
    if turn in TURNS:
        image = image.transpose(TURNS[turn])
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC))


@lru_cache(maxsize=4)
def table(rules: Rules) -> np.ndarray:
    """float32 [3, 256]: what each byte becomes. Rescaled in float64, normalised in float32: the processor's order."""
    scaled = (np.arange(256, dtype=np.float64) * rules.rescale_factor).astype(np.float32)
    mean, std = (np.array(values, np.float32)[:, None] for values in (rules.mean, rules.std))
    return (scaled - mean) / std


@contextmanager
def opened_picture(data: bytes) -> Iterator[Image.Image]:
    """The picture, and every way in which Pillow refuses one as a MediaError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of size, which is checked here, and of odd metadata
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                yield image
        except UnidentifiedImageError as error:
            raise MediaError(f"{what(data)} is not a picture that can be read: use PNG, JPEG, WebP or GIF") from error
        except (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, OverflowError) as error:
            raise MediaError(f"the picture is damaged ({error})") from error
        except Image.DecompressionBombError as error:  # Pillow's own limit, above ours; only its text has the number
            found = re.search(r"\d{6,}", str(error))
            pixels = f"of {int(found[0]):,} pixels " if found else ""
            raise MediaError(f"a picture {pixels}is too large: {MOST_PIXELS:,} is the most") from error


def what(data: bytes) -> str:
    """A guess at what bytes are that are no picture, for a message."""
    start = data[:512].lstrip()
    if not data:
        return "an empty file"
    for sign, name in SIGNS.items():
        if start.startswith(sign):
            return name
    if data[4:8] == b"ftyp":
        return "a HEIC picture" if data[8:12] in HEIC else "an MP4 clip"
    try:
        start.decode()
        return "text"
    except UnicodeDecodeError:
        return "this data"
