"""Frames of a clip as small pictures, and how they stand side by side with their times below."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text
from textual.strip import Strip

from ..chat.media import Media
from ..palette import Palette
from ..render.lines import strip_of

MOST = 24  # frames of one clip that are decoded to be looked at
SIDE = 320  # pixels of their longer side


@dataclass(frozen=True, slots=True)
class Frame:
    """`seconds` from the start of the clip."""

    seconds: float
    media: Media


def frames_at(media: Media, seconds: Sequence[float]) -> tuple[Frame, ...]:
    """Frames of a clip at these increasing times, thinned to `MOST`. Raises MediaError, or BackendUnavailable."""
    from qwen35_local.media.clips import opened

    step = -(-len(seconds) // MOST) or 1
    times = list(seconds)[::step]
    found = []
    with opened(media.data) as reader:
        last = reader.info.frames - 1
        indices = [min(int(time * reader.info.fps), last) for time in times]
        for time, picture in zip(times, reader.pictures(indices), strict=True):
            small = picture.copy()
            small.thumbnail((SIDE, SIDE))
            buffer = io.BytesIO()
            small.save(buffer, "PNG", compress_level=1)
            found.append(Frame(time, Media(f"{media.name} {clock(time)}", "image", buffer.getvalue(), small.size)))
    return tuple(found)


def grid(
    frames: Sequence[Frame], width: int, columns: int, rows: int, palette: Palette, scrolls: bool = False
) -> list[Strip]:
    """As many frames to a line as fit, each in `columns` × `rows` cells at most, with its time below."""
    beside = max((width + 1) // (columns + 1), 1)
    lines: list[Strip] = []
    for start in range(0, len(frames), beside):
        some = frames[start : start + beside]
        drawn = [palette.painter.thumbnail(frame.media, columns, rows, scrolls) for frame in some]
        for y in range(max(map(len, drawn), default=0)):
            parts = [strips[y] if y < len(strips) else Strip.blank(0) for strips in drawn]
            lines.append(Strip.join([part.extend_cell_length(columns + 1) for part in parts]))
        times = "".join(f"{clock(frame.seconds):{columns + 1}}" for frame in some)
        lines.append(strip_of(Text(times.rstrip(), palette.dim, end="")))
    return lines


def clock(seconds: float) -> str:
    """ "0:03.2"."""
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}:{rest:04.1f}"
