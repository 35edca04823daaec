"""What a turn is made of: text, pictures and clips, from bytes, files or data URIs. Standard library only."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

from .errors import MediaError, TemplateError

MOST_BYTES = 256 << 20  # of a picture or clip
LOW_DETAIL = 512 * 512  # pixels of a picture whose detail is "low"


@dataclass(frozen=True, slots=True)
class TextPart:
    text: str


@dataclass(frozen=True, slots=True)
class ImagePart:
    """A picture as encoded bytes (PNG, JPEG, …). `max_pixels` caps what the model is shown."""

    data: bytes = field(repr=False)
    max_pixels: int | None = None

    @classmethod
    def read(cls, path: str | Path, max_pixels: int | None = None) -> "ImagePart":
        """The picture in a file. Raises MediaError."""
        return cls(read_file(path), max_pixels)


@dataclass(frozen=True, slots=True)
class VideoPart:
    """A clip as encoded bytes. `max_pixels` caps what the model is shown, over all frames."""

    data: bytes = field(repr=False)
    max_pixels: int | None = None

    @classmethod
    def read(cls, path: str | Path, max_pixels: int | None = None) -> "VideoPart":
        """The clip in a file. Raises MediaError."""
        return cls(read_file(path), max_pixels)


Part = TextPart | ImagePart | VideoPart
KINDS: dict[str, type[ImagePart] | type[VideoPart]] = {
    "image": ImagePart,
    "video": VideoPart,
    "image_url": ImagePart,
    "video_url": VideoPart,
}


def part_of(part: "Part | Mapping[str, Any]") -> Part:
    """A part from a dict.

    `{"type": "text", "text"}`; `{"type": "image" or "video", "path" or "data"}`, where data are bytes or a data URI;
    OpenAI's `{"type": "image_url" or "video_url", "image_url" or "video_url": {"url": data URI}}`. Beside those,
    `max_pixels`, or `detail` "low" for small ones. Raises TemplateError for other parts, MediaError for other data.
    """
    if isinstance(part, TextPart | ImagePart | VideoPart):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    if kind == "text":
        if not isinstance(text := part.get("text"), str):
            raise TemplateError(f"a part of type text needs a text, not {text!r}", "messages")
        return TextPart(text)
    if kind not in KINDS:
        raise TemplateError(f"content part of type {kind!r} is not understood", "messages")
    inner = part.get(kind, part)
    options = inner if isinstance(inner, Mapping) else part
    if "path" in part:
        data = read_file(part["path"])
    else:
        data = _bytes(part.get("data", inner.get("url") if isinstance(inner, Mapping) else inner), kind)
    detail = options.get("detail", "auto")
    if detail not in ("auto", "high", "low"):
        raise TemplateError(f"detail must be auto, high or low, not {detail!r}", "messages")
    most = part.get("max_pixels", LOW_DETAIL if detail == "low" else None)
    if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
        raise TemplateError(f"max_pixels must be a whole number of pixels, not {most!r}", "messages")
    return KINDS[kind](data, most)


def _bytes(value: Any, kind: str) -> bytes:
    if isinstance(value, str):
        if not value[:5].lower() == "data:":
            raise MediaError(f"the URL of a part must begin with data:, not {value[:20]!r}: give a path for a file")
        value = data_uri(value)
    if not isinstance(value, bytes | bytearray | memoryview):
        raise MediaError(f"a part of type {kind} needs a path, or data as bytes or a data URI")
    return sized(bytes(value), "the data")


def data_uri(url: str) -> bytes:
    """What a data: URI holds. Raises MediaError."""
    head, comma, payload = url.partition(",")
    if not comma:
        raise MediaError("a data URI needs a comma before its data")
    if not head.lower().endswith(";base64"):
        return unquote_to_bytes(payload)
    try:
        return base64.b64decode(unquote(payload), validate=True)
    except (binascii.Error, ValueError) as error:
        raise MediaError(f"a data URI holds bad base64: {error}") from error


def read_file(path: str | Path) -> bytes:
    """The bytes of a picture or clip. Raises MediaError."""
    if not isinstance(path, str | Path):
        raise MediaError(f"a path must be text, not {path!r}")
    try:
        path = Path(path).expanduser()
        if not path.is_file():  # nor a device or a pipe, which would never end
            raise MediaError(f"{path} is not a file")
        with path.open("rb") as file:
            return sized(file.read(MOST_BYTES + 1), path.name)
    except (OSError, ValueError, RuntimeError) as error:  # a home directory that is not known
        raise MediaError(f"{path} cannot be read ({error})") from error


def sized(data: bytes, name: str) -> bytes:
    """`data`, if there are neither none nor too many of them."""
    if not data:
        raise MediaError(f"{name} is empty: it shows nothing")
    if len(data) > MOST_BYTES:
        raise MediaError(f"{name} has more than {MOST_BYTES >> 20} MiB, the most for a picture or clip")
    return data
