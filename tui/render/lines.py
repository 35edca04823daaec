"""Rich text -> strips, the lines that Textual draws."""

import io
from functools import cache

from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual.strip import Strip


@cache
def console() -> Console:
    """Only for wrapping and for turning text into segments; nothing is ever written to it."""
    return Console(file=io.StringIO(), color_system="truecolor", force_terminal=True, width=80, legacy_windows=False)


def strip_of(text: Text) -> Strip:
    """One line of text as a strip of its natural width."""
    if not text.spans:  # Rich leaves out the style of the whole where there is no other
        return Strip([Segment(text.plain, text.style if isinstance(text.style, Style) else None)] if text.plain else [])
    return Strip([segment for segment in text.render(console(), end="") if segment.text])


def wrapped(text: Text, width: int) -> list[Text]:
    """`text` in lines of at most `width` cells; words longer than a line are folded."""
    if not text.plain:
        return [text]
    return list(text.wrap(console(), max(width, 1), overflow="fold", tab_size=4))


def strips_of(text: Text, width: int, prefix: Text | None = None, rest: Text | None = None) -> list[Strip]:
    """Wrapped lines with `prefix` before the first and `rest` before the others (both as wide as `prefix`)."""
    room = width - (prefix.cell_len if prefix else 0)
    strips = [strip_of(line) for line in wrapped(text, room)]
    if prefix is None:
        return strips
    first, others = strip_of(prefix), strip_of(rest or Text(" " * prefix.cell_len, end=""))
    return [Strip.join([others if at else first, strip]) for at, strip in enumerate(strips)]


def filled(strip: Strip, width: int, style: Style) -> Strip:
    """`strip` on a coloured ground, at least `width` cells wide."""
    segments = [Segment(s.text, style + s.style if s.style else style) for s in strip]
    return Strip(segments, strip.cell_length).extend_cell_length(max(width, strip.cell_length), style)
