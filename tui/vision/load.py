"""Files, bytes and the clipboard -> `Media`, checked before they are decoded."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageGrab, UnidentifiedImageError

from qwen35_local.errors import MediaError

from ..chat.media import Media
from ..safe import one_line

MOST_BYTES = 256 << 20
MOST_PIXELS = 120_000_000  # decoded this is 360 MB; the model is shown 16.8 M pixels at most
LONGEST_SIDES = 200  # the model refuses pictures longer than this many times their width
IMAGES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"))
VIDEOS = frozenset((".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi"))


def is_media(path: Path) -> bool:
    return path.suffix.lower() in IMAGES | VIDEOS


def load(path: Path) -> Media:
    """The picture or clip in a file. Raises MediaError with one sentence."""
    try:
        if not path.is_file():  # nor a device or a pipe, which would never end
            raise MediaError(f"{path} is not a file")
        if (nbytes := path.stat().st_size) > MOST_BYTES:
            raise MediaError(f"{path.name} has {nbytes >> 20} MiB, and {MOST_BYTES >> 20} is the most")
        data = path.read_bytes()
    except OSError as error:
        raise MediaError(f"{path} cannot be read ({error.strerror})") from error
    return media_of(data, path.name)


def media_of(data: bytes, name: str) -> Media:
    """What the bytes are, by their content; the name is only shown."""
    name = one_line(name, 80)
    if is_video(data):
        return Media(name, "video", data, (0, 0))
    try:
        with _unlimited(), Image.open(io.BytesIO(data)) as image:
            width, height = image.size
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise MediaError(f"{name} is not a picture that can be read") from error
    if width * height > MOST_PIXELS:
        raise MediaError(f"{name} has {width}×{height} pixels, and {MOST_PIXELS:,} is the most")
    if max(width, height) > LONGEST_SIDES * min(width, height):
        raise MediaError(f"{name} is {width}×{height}: one side may be {LONGEST_SIDES} times the other at most")
    decoded(data, name, (64, 64))  # so that a picture cut short is refused now, not when the answer begins
    return Media(name, "image", data, (width, height))


def decoded(data: bytes, name: str, within: tuple[int, int]) -> Image.Image:
    """The picture as RGB, turned as its EXIF says, on white, no larger than `within`."""
    from PIL import ImageOps

    try:
        with _unlimited(), Image.open(io.BytesIO(data)) as image:
            image.draft("RGB", within)  # JPEG can be decoded smaller, which is quicker
            upright = ImageOps.exif_transpose(image)
            upright.thumbnail(within)
            if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
                layer = upright.convert("RGBA")
                ground = Image.new("RGBA", layer.size, "white")
                return Image.alpha_composite(ground, layer).convert("RGB")
            return upright.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise MediaError(f"{name} is damaged: {error}") from error


def from_clipboard() -> list[Media]:
    """What the clipboard holds, where the system tells; raises MediaError if that is no picture."""
    try:
        held = ImageGrab.grabclipboard()
    except (NotImplementedError, OSError) as error:
        raise MediaError(f"the clipboard cannot be read here ({error})") from error
    if isinstance(held, list):
        return [load(Path(name)) for name in held]
    if held is None:
        raise MediaError("there is no picture on the clipboard")
    buffer = io.BytesIO()
    held.save(buffer, "PNG")
    return [media_of(buffer.getvalue(), "clipboard.png")]


def is_video(data: bytes) -> bool:
    """MP4 and its kin, Matroska and WebM, AVI."""
    brand = data[4:12]
    mp4 = brand.startswith(b"ftyp") and brand[4:] not in (b"avif", b"avis", b"heic", b"heix", b"mif1")
    return mp4 or data.startswith(b"\x1aE\xdf\xa3") or (data.startswith(b"RIFF") and data[8:12] == b"AVI ")


@contextmanager
def _unlimited() -> Iterator[None]:
    """Pillow warns of large pictures; ours is the limit that counts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield
