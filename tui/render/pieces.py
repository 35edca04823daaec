"""The pieces that a transcript is stacked from. Each knows its lines at a width and its text as one would copy it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from rich.style import Style
from rich.text import Text
from textual.strip import Strip

from ..chat.media import Media
from ..palette import Palette
from ..safe import printable
from ..vision.frames import grid
from .blocks import Block
from .code import code_strips
from .lines import strip_of, strips_of
from .prose import prose_strips
from .table import table_strips

THUMBNAIL = (36, 8)  # columns and rows at most
FRAME = (18, 5)  # of one frame of a clip
FRAMES = 8  # shown of a clip; all of them on the whole screen
MARGIN = 2  # cells to the left of everything but the bar of a user's message


class Piece(ABC):
    """`gap`: a blank line comes before it. `wide`: it keeps its natural width and is scrolled sideways."""

    gap: bool = True
    wide: bool = False

    @abstractmethod
    def strips(self, width: int, palette: Palette) -> list[Strip]:
        """Its lines at `width` cells; only wide pieces may be longer."""

    @property
    @abstractmethod
    def plain(self) -> str:
        """Its text, also used to guess its height before it is drawn."""


def clickable(action: str) -> Style:
    """A style that runs an action of the transcript when clicked."""
    return Style.from_meta({"@click": action})


@dataclass(frozen=True, slots=True)
class Markdown(Piece):
    block: Block

    @property
    def gap(self) -> bool:  # type: ignore[override]
        return self.block.gap

    @property
    def wide(self) -> bool:  # type: ignore[override]
        return self.block.kind != "prose"

    def strips(self, width: int, palette: Palette) -> list[Strip]:
        block = self.block
        if block.kind == "prose":
            return prose_strips(block.source, width, palette)
        if block.kind == "table":
            return table_strips(block.source, palette)
        lines = code_strips(block.source, block.lang, width, palette)
        return lines if block.continues else [*self._bar(width, palette), *lines]

    def _bar(self, width: int, palette: Palette) -> list[Strip]:
        lang = Text(f" {self.block.lang or 'text'}", palette.dim, end="")
        copy = Text("copy", palette.link + clickable("copy_block"), end="")
        space = Text(" " * max(width - lang.cell_len - copy.cell_len - 1, 1), end="")
        return [strip_of(Text("", palette.code_block, end="").join([lang, space, copy, Text(" ")]))]

    @property
    def plain(self) -> str:
        return self.block.source


@dataclass(frozen=True, slots=True)
class Words(Piece):
    """Text shown as it is, wrapped: what a person wrote, or the raw view of an answer."""

    text: str
    role: str = ""  # a style of the palette
    bar: bool = False
    gap: bool = False

    def strips(self, width: int, palette: Palette) -> list[Strip]:
        style = getattr(palette, self.role) if self.role else palette.base
        mark = Text("▌ ", palette.accent, end="") if self.bar else None
        return strips_of(Text(self.text, style, end=""), width + (MARGIN if self.bar else 0), mark, mark)

    @property
    def plain(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Picture(Piece):
    """A picture that was sent, small, or frames of a clip; what it was, and what the model saw of it."""

    media: Media
    number: int
    gap: bool = False

    def strips(self, width: int, palette: Palette) -> list[Strip]:
        drawn: Sequence[Strip] = palette.painter.thumbnail(self.media, min(width, THUMBNAIL[0]), THUMBNAIL[1], True)
        if frames := palette.painter.frames(self.media):
            drawn = grid(frames[:: -(-len(frames) // FRAMES)], width, *FRAME, palette, scrolls=True)
        lines = [*drawn, *strips_of(Text(self.plain, palette.dim), width)]
        notice = self.media.sight.notice if self.media.sight else ""
        return lines + (strips_of(Text(printable(notice), palette.dim), width) if notice else [])

    @property
    def plain(self) -> str:
        width, height = self.media.pixels
        size = f"{width}×{height}" if self.media.kind == "image" else ""
        seen = self.media.sight.note if self.media.sight else size
        return f"[{self.media.kind.capitalize()} #{self.number}] {printable(self.media.name)}  {seen}".rstrip()


@dataclass(frozen=True, slots=True)
class Label(Piece):
    """Who speaks, and which of several versions this is."""

    who: str
    role: str
    version: int = 1
    versions: int = 1
    note: str = ""
    gap: bool = True

    def strips(self, width: int, palette: Palette) -> list[Strip]:
        text = Text(end="").append(self.who, getattr(palette, self.role))
        if self.versions > 1:
            text.append("  ")
            text.append("‹ ", palette.link + clickable("act('version', '-1')"))
            text.append(f"{self.version}/{self.versions}", palette.dim)
            text.append(" ›", palette.link + clickable("act('version', '1')"))
        if self.note:
            text.append(f"  {self.note}", palette.dim)
        return [strip_of(text)]

    @property
    def plain(self) -> str:
        return self.who


@dataclass(frozen=True, slots=True)
class Thinking(Piece):
    """What the model thought: one line when folded, with a preview of the newest words while it thinks."""

    text: str
    seconds: float
    live: bool
    open: bool
    gap: bool = True

    def strips(self, width: int, palette: Palette) -> list[Strip]:
        arrow = "▾" if self.open else "▸"
        what = "Thinking" if self.live else "Thought"
        head = Text(f"{arrow} {what} for {duration(self.seconds)}", palette.dim + clickable("fold"), end="")
        room = width - head.cell_len - 3
        if self.live and not self.open and room > 8:
            head.append("  " + " ".join(self.text[-2 * room :].split())[-room:], palette.dim)
        lines = [strip_of(head)]
        if self.open:
            bar = Text("│ ", palette.rule, end="")
            lines += strips_of(Text(self.text.strip("\n"), palette.dim, end=""), width, bar, bar)
        return lines

    @property
    def plain(self) -> str:
        return self.text if self.open else ""


@dataclass(frozen=True, slots=True)
class Call(Piece):
    """A tool call and what came of it."""

    name: str
    arguments: str
    result: str | None
    open: bool
    gap: bool = True

    def strips(self, width: int, palette: Palette) -> list[Strip]:
        arrow = "▾" if self.open else "▸"
        head = Text(f"{arrow} ⚙ {self.name}", palette.accent + clickable("fold"), end="")
        head.append(f"({self.arguments})", palette.dim)
        if not self.open and self.result is not None:
            head.append(f" → {' '.join(self.result.split())}", palette.base)
        if not self.open:
            head.truncate(width, overflow="ellipsis")
            return [strip_of(head)]
        bar = Text("│ ", palette.rule, end="")
        body = "no result" if self.result is None else self.result
        return [*strips_of(head, width), *strips_of(Text(body, palette.base, end=""), width, bar, bar)]

    @property
    def plain(self) -> str:
        return f"{self.name}({self.arguments})" + (f" → {self.result}" if self.result is not None else "")


def duration(seconds: float) -> str:
    """ "0.8 s", "12 s", "3 min 5 s"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
