"""One picture on the whole screen, with what is known of it."""

from collections.abc import Sequence

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.screen import ModalScreen
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Static

from ..chat.turns import Media
from ..safe import printable
from ..vision.cost import shown_size, tokens
from ..vision.painter import Painter


class Canvas(Widget):
    """A picture in the middle of its region, as large as it fits."""

    DEFAULT_CSS = "Canvas { width: 1fr; height: 1fr; }"

    def __init__(self, media: Media | None, painter: Painter):
        super().__init__()
        self.media = media
        self._painter = painter

    def show(self, media: Media | None) -> None:
        self.media = media
        self.refresh()

    def render_line(self, y: int) -> Strip:
        width, height = self.size
        style = self.rich_style
        lines: Sequence[Strip] = self._painter.thumbnail(self.media, width, height) if self.media else ()
        at = y - (height - len(lines)) // 2
        if not 0 <= at < len(lines):
            return Strip.blank(width, style)
        left = (width - lines[at].cell_length) // 2
        return Strip.join([Strip.blank(left, style), lines[at]]).adjust_cell_length(width, style)


class PreviewScreen(ModalScreen[None]):
    """Left and right go through the pictures of the message."""

    BINDINGS = [  # noqa: RUF012
        Binding("escape,q,enter", "close", "Close"),
        Binding("right,down", "next(1)", "Next"),
        Binding("left,up", "next(-1)", "Previous"),
    ]
    CSS = """
    PreviewScreen { background: $background; }
    #about { height: 1; padding: 0 2; color: $text-muted; }
    """

    def __init__(self, media: Sequence[Media], painter: Painter, at: int = 0):
        super().__init__()
        self._media, self._at = list(media), at
        self._painter = painter

    def compose(self) -> ComposeResult:
        yield Canvas(self._media[self._at], self._painter)
        yield Static(self._about(), id="about", markup=False)

    def _about(self) -> Text:
        media = self._media[self._at]
        place = f"{self._at + 1}/{len(self._media)}  " if len(self._media) > 1 else ""
        if media.kind == "video":
            return Text(f"{place}{printable(media.name)}: a clip, {len(media.data):,} bytes  (Esc closes)")
        w, h = shown_size(*media.pixels, media.max_pixels)
        cost = tokens(*media.pixels, media.max_pixels)
        return Text(
            f"{place}{printable(media.name)}  {media.pixels[0]}×{media.pixels[1]}, the model sees {w}×{h}, "
            f"{cost:,} tokens  (Esc closes)"
        )

    def action_next(self, by: int) -> None:
        self._at = (self._at + by) % len(self._media)
        self.query_one(Canvas).show(self._media[self._at])
        self.query_one("#about", Static).update(self._about())

    def action_close(self) -> None:
        self.dismiss(None)
