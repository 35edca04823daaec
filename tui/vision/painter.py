"""Draws pictures as well as the terminal can: kitty's graphics, sixel, else half blocks in as many colours as it has.

The first two come from textual-image, which asks the terminal when it is imported: `ask_terminal` does so before the
app starts, and only where the environment speaks of such a terminal. Half blocks work everywhere, in tmux too.
"""

import io
import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from PIL import Image
from rich.segment import ControlType, Segment
from textual.strip import Strip

from qwen35_local.errors import MediaError

from ..chat.media import Media
from ..render.lines import console
from .cells import Depth, fitted, strips
from .load import decoded

if TYPE_CHECKING:
    from textual_image.renderable import TGPImage

    from .frames import Frame

Graphics = Literal["cells", "kitty", "sixel"]
KEPT = 64  # drawn pictures
KEPT_CLIPS = 16
CELL = (16, 32)  # pixels decoded for a cell where it is drawn with graphics; more than any terminal shows
CONTROL = ((ControlType.CURSOR_FORWARD, 0),)  # marks a segment as one without width, as textual-image does


def ask_terminal(hint: str) -> Graphics:
    """What the terminal can draw. `hint` is `Settings.graphics`; without a promising one nothing is asked."""
    if hint == "half cells":
        return "cells"
    from textual_image import renderable

    if renderable.Image is renderable.TGPImage:
        return "kitty"
    return "sixel" if renderable.Image is renderable.SixelImage else "cells"


class Painter:
    """Keeps what it drew. `send` writes to the terminal in the order of everything else that is drawn."""

    def __init__(
        self, depth: Depth = "truecolor", graphics: Graphics = "cells", send: Callable[[str], None] | None = None
    ):
        # Kitty's image numbers travel as colours, so fewer colours than all cannot name them.
        self.depth: Depth = depth
        self.graphics: Graphics = graphics if depth == "truecolor" and send is not None else "cells"
        self._send = send
        self._drawn: OrderedDict[tuple[bytes, int, int, bool], tuple[Strip, ...]] = OrderedDict()
        self._frames: OrderedDict[bytes, tuple[Frame, ...]] = OrderedDict()
        self._placed: list[TGPImage] = []

    def thumbnail(self, media: Media, columns: int, rows: int, scrolls: bool = False) -> tuple[Strip, ...]:
        """The lines of a picture in at most `columns` × `rows` cells; none for a clip or a damaged picture.

        `scrolls`: it may be seen in part, which sixel cannot do.
        """
        key = (media.data, columns, rows, scrolls)
        if key in self._drawn:
            self._drawn.move_to_end(key)
        else:
            self._drawn[key] = self._draw(media, columns, rows, scrolls)
            if len(self._drawn) > KEPT:
                self._drawn.popitem(last=False)
        return self._drawn[key]

    def frames(self, media: Media) -> "tuple[Frame, ...]":
        """The frames of a clip, once `learn` was told them."""
        return self._frames.get(media.data, ())

    def learn(self, media: Media, frames: "tuple[Frame, ...]") -> None:
        """The decoded frames of a clip; none if it cannot be decoded."""
        self._frames[media.data] = frames
        if len(self._frames) > KEPT_CLIPS:
            self._frames.popitem(last=False)

    def knows(self, media: Media) -> bool:
        return media.data in self._frames

    def close(self) -> None:
        """Free the terminal's copies of the pictures."""
        for image in self._placed:
            self._tell(image.cleanup)
        self._placed.clear()

    def _draw(self, media: Media, columns: int, rows: int, scrolls: bool) -> tuple[Strip, ...]:
        if media.kind == "video":
            return ()
        graphics = "cells" if self.graphics == "sixel" and scrolls else self.graphics
        scale = (2, 2) if graphics == "cells" else CELL
        try:
            image = decoded(media.data, media.name, (max(columns * scale[0], 64), max(rows * scale[1], 64)))
        except MediaError:
            return ()
        width, height = fitted(image.size, columns, rows)
        if graphics == "cells":
            return tuple(strips(image.resize((width, height), Image.Resampling.BOX), self.depth))
        return (
            self._kitty(image, width, -(-height // 2)) if graphics == "kitty" else _sixel(image, width, -(-height // 2))
        )

    def _kitty(self, image: Image.Image, columns: int, rows: int) -> tuple[Strip, ...]:
        """Placeholder characters that the terminal replaces; they scroll and clip as text does."""
        from textual_image.renderable import TGPImage

        drawn = TGPImage(image, columns, rows)
        lines: list[list[Segment]] = []
        self._tell(lambda: lines.extend(console().render_lines(drawn, pad=False)))
        self._placed.append(drawn)
        return tuple(Strip([s for s in line if s.text], columns) for line in lines[:rows])

    def _tell(self, action: Callable[[], None]) -> None:
        """textual-image writes past Textual, in the middle of a frame: catch what it says and send it in order."""
        real, sys.__stdout__ = sys.__stdout__, io.StringIO()  # type: ignore[misc, assignment]
        try:
            action()
            said = sys.__stdout__.getvalue()  # type: ignore[union-attr]
        finally:
            sys.__stdout__ = real  # type: ignore[misc]
        if self._send is not None and said:
            self._send(said)


def _sixel(image: Image.Image, columns: int, rows: int) -> tuple[Strip, ...]:
    """Blank cells; after the last of them the picture, drawn from their upper left corner."""
    from textual_image.renderable import SixelImage

    drawn = console().render(SixelImage(image, columns, rows))
    payload = next(segment.text for segment in drawn if segment.text.startswith("\x1bP"))
    up = f"\x1b[{rows - 1}A" if rows > 1 else ""
    paint = Segment(f"\x1b7{up}\x1b[{columns}D{payload}\x1b8", None, CONTROL)
    blank = Segment(" " * columns)
    return tuple(Strip([blank, paint] if row == rows - 1 else [blank], columns) for row in range(rows))
