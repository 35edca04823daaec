"""One picture or clip on the whole screen, with what is known of it."""

from collections.abc import Sequence

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding
from textual.screen import ModalScreen
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Static

from qwen35_local.errors import Qwen35Error

from ..chat.media import Media
from ..palette import Palette
from ..safe import printable
from ..vision.cost import price
from ..vision.frames import Frame, frames_at, grid

FRAME = (30, 9)  # cells of one frame of a clip


class Canvas(Widget):
    """A picture in the middle of its region, as large as it fits, or the frames of a clip."""

    DEFAULT_CSS = "Canvas { width: 1fr; height: 1fr; }"

    def __init__(self, media: Media | None, palette: Palette):
        super().__init__()
        self._media, self._palette = media, palette
        self._frames: tuple[Frame, ...] = ()

    @property
    def media(self) -> Media | None:
        return self._media

    def show(self, media: Media | None, frames: tuple[Frame, ...] = ()) -> None:
        self._media, self._frames = media, frames
        self.refresh()

    def _lines(self) -> Sequence[Strip]:
        width, height = self.size
        if self._frames:
            return grid(self._frames, width, *FRAME, self._palette)
        return self._palette.painter.thumbnail(self._media, width, height) if self._media else ()

    def render_line(self, y: int) -> Strip:
        width, height = self.size
        style = self.rich_style
        lines = self._lines()
        at = y - max(height - len(lines), 0) // 2
        if not 0 <= at < len(lines):
            return Strip.blank(width, style)
        left = (width - max(line.cell_length for line in lines)) // 2
        line = Strip.join([Strip.blank(max(left, 0), style), lines[at]])
        return line.adjust_cell_length(width, style)


class PreviewScreen(ModalScreen[None]):
    """Left and right go through the pictures of the message."""

    BINDINGS = [  # noqa: RUF012
        Binding("escape,q,enter", "close", "Close"),
        Binding("right,down", "next(1)", "Next"),
        Binding("left,up", "next(-1)", "Previous"),
    ]
    CSS = """
    PreviewScreen { background: $background; }
    #about { height: 1; padding: 0 2; color: $text-muted; background: $surface; }
    """

    def __init__(self, media: Sequence[Media], palette: Palette, at: int = 0):
        super().__init__()
        self._media, self._at = list(media), at
        self._palette = palette

    def compose(self) -> ComposeResult:
        yield Canvas(None, self._palette)
        yield Static(id="about", markup=False)

    def on_mount(self) -> None:
        self.action_next(0)

    def action_next(self, by: int) -> None:
        self._at = (self._at + by) % len(self._media)
        self.query_one(Canvas).show(self._media[self._at])
        self._say("")
        self._learn(self._media[self._at])

    @work(thread=True, exclusive=True)
    def _learn(self, media: Media) -> None:
        """Off the event loop: a clip is read whole, and its frames are decoded."""
        frames: tuple[Frame, ...] = ()
        try:
            sight = media.sight or price(media)
            if sight.seconds:
                frames = frames_at(media, sight.seconds)
            said = sight.note
        except Qwen35Error as error:
            said = str(error)
        if self.is_attached and self._media[self._at] is media:
            self.app.call_from_thread(self.query_one(Canvas).show, media, frames)
            self.app.call_from_thread(self._say, said)

    def _say(self, text: str) -> None:
        place = f"{self._at + 1}/{len(self._media)}  " if len(self._media) > 1 else ""
        name = printable(self._media[self._at].name)
        parts = [f"{place}{name}", *([printable(text)] if text else []), "Esc closes"]
        self.query_one("#about", Static).update(Text(" · ".join(parts)))

    def action_close(self) -> None:
        self.dismiss(None)
