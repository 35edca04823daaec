"""What a picture or clip costs: the size the model is shown, the tokens that takes, and when a clip's frames are.

The engine knows this of its own model; until it is loaded, and for servers, the released model's rules are used.
"""

from dataclasses import dataclass

from qwen35_local.engine import Seen

from ..chat.turns import Media

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

    @property
    def note(self) -> str:
        """One line: what it is, what is seen of it, what that costs."""
        (w, h), (seen_w, seen_h) = self.stored, self.shown
        if not self.seconds:
            return f"{w}×{h} → {seen_w}×{seen_h} · {self.tokens:,} tokens"
        frames = f"{2 * len(self.seconds)} frames at {seen_w}×{seen_h}"
        return f"{w}×{h} → {frames} · about {self.tokens:,} tokens"


def price(media: Media) -> Sight:
    """By the released model's rules, from the header alone. Raises MediaError, or BackendUnavailable for a clip."""
    # NumPy comes with these; nobody who attaches no picture should wait for it.
    from qwen35_local.media import images, video
    from qwen35_local.media.rules import IMAGES, VIDEOS

    if media.kind == "image":
        return Sight.of(images.look(media.data, IMAGES, media.max_pixels))
    return Sight.of(video.look(media.data, VIDEOS, media.max_pixels))
