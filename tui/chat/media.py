"""Pictures and clips of a conversation, and what the model is shown of them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from qwen35_local.engine import ImagePart, Seen, VideoPart

UNIT = 32  # pixels on each side of one token: patches of 16, merged in twos
MARKS = 2  # tokens around a picture, and around each pair of frames
TIME = 7  # tokens of a pair's time, as "<12.3 seconds>": nearly always this many


@dataclass(frozen=True, slots=True)
class Sight:
    """`stored` and `shown` are (width, height) in pixels. `seconds` are the times of a clip's pairs of frames."""

    stored: tuple[int, int]
    shown: tuple[int, int]
    tokens: int
    seconds: tuple[float, ...] = ()
    notice: str = ""

    @classmethod
    def of(cls, seen: Seen) -> "Sight":
        pairs = len(seen.seconds) if seen.seconds is not None else 0
        each = seen.rows * seen.columns + MARKS
        tokens = pairs * (each + TIME) if pairs else each
        return cls(seen.size, (seen.columns * UNIT, seen.rows * UNIT), tokens, seen.seconds or (), seen.notice)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Sight":
        stored, shown, seconds = (tuple(value[name]) for name in ("stored", "shown", "seconds"))
        return cls(stored, shown, value["tokens"], seconds, value["notice"])  # type: ignore[arg-type]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def note(self) -> str:
        """One line: what it is, what is seen of it, what that costs."""
        (w, h), (seen_w, seen_h) = self.stored, self.shown
        if not self.seconds:
            return f"{w}×{h} → {seen_w}×{seen_h} · {self.tokens:,} tokens"
        frames = f"{2 * len(self.seconds)} frames at {seen_w}×{seen_h}"
        return f"{w}×{h} → {frames} · about {self.tokens:,} tokens"


@dataclass(frozen=True, slots=True)
class Media:
    """A picture or clip as it was sent: `data` is the encoded file, `pixels` its width and height.

    `sight` is what the model saw of it, once that is known; it is kept with the message.
    """

    name: str
    kind: Literal["image", "video"]
    data: bytes
    pixels: tuple[int, int]
    max_pixels: int | None = None
    sight: Sight | None = None

    @property
    def part(self) -> ImagePart | VideoPart:
        return (ImagePart if self.kind == "image" else VideoPart)(self.data, self.max_pixels)
