"""The pane at the side: the pictures and clips that go with the next question."""

from dataclasses import dataclass, replace

from rich.text import Text
from textual.binding import Binding
from textual.geometry import Size
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from ..chat.media import Media, Sight
from ..palette import Palette
from ..render.lines import strip_of, strips_of
from ..safe import one_line, printable
from ..vision.frames import Frame, grid

ROWS = 8  # of a thumbnail
FRAME = (15, 5)  # cells of one frame of a clip
FRAMES = 6  # shown in the pane; all of them on the whole screen


@dataclass(frozen=True, slots=True)
class Picked:
    """A picture or clip with the number of its token in the text. What the model sees of it, and `frames`, come when
    they are known."""

    number: int
    media: Media
    frames: tuple[Frame, ...] = ()
    trouble: str = ""

    @property
    def token(self) -> str:
        return f"[{self.media.kind.capitalize()} #{self.number}]"


def card(picked: Picked, width: int, palette: Palette, chosen: bool, still: bool) -> list[Strip]:
    """The lines of one picture: name, thumbnail, what the model is shown and what that costs.

    `still`: nothing lies above it, so it may be drawn with sixel.
    """
    media, sight = picked.media, picked.media.sight
    head = Text(end="").append(f"{picked.token} ", palette.accent if chosen else palette.dim)
    head.append(one_line(media.name, max(width - head.cell_len, 4)), palette.base)
    lines = [strip_of(head), *palette.painter.thumbnail(media, width, ROWS, scrolls=not still)]
    if picked.frames:
        step = -(-len(picked.frames) // FRAMES)
        lines += grid(picked.frames[::step], width, *FRAME, palette, scrolls=not still)
    lines += strips_of(Text(sight.note if sight else "…", palette.dim, end=""), width)
    for words, style in ((sight.notice if sight else "", palette.dim), (picked.trouble, palette.warning)):
        if words:
            lines += strips_of(Text(printable(words), style, end=""), width)
    return [*lines, Strip.blank(width)]


class Pictures(Widget, can_focus=True):
    """Keys act on the chosen picture. Hidden while there is none."""

    BINDINGS = [  # noqa: RUF012
        Binding("up", "choose(-1)", "Above"),
        Binding("down", "choose(1)", "Below"),
        Binding("delete,backspace,x", "remove", "Remove"),
        Binding("shift+up", "move(-1)", "Move up"),
        Binding("shift+down", "move(1)", "Move down"),
        Binding("enter", "preview", "Full screen"),
    ]
    DEFAULT_CSS = """
    Pictures { width: 34; height: 100%; display: none; border-left: solid $border-blurred; padding: 0 1; }
    Pictures:focus { border-left: solid $border; }
    Pictures.-shown { display: block; }
    """

    class Changed(Message):
        """A picture was removed or moved; `removed` is its token."""

        def __init__(self, removed: str = ""):
            self.removed = removed
            super().__init__()

    class Preview(Message):
        """Show all on the whole screen, beginning with the one at `at`."""

        def __init__(self, at: int):
            self.at = at
            super().__init__()

    def __init__(self, palette: Palette, **options):
        super().__init__(**options)
        self.picked: list[Picked] = []
        self.palette = palette
        self.warning = ""
        self._chosen = 0
        self._lines: list[Strip] = []

    @property
    def media(self) -> tuple[Media, ...]:
        return tuple(picked.media for picked in self.picked)

    def add(self, media: Media) -> Picked:
        picked = Picked(max((p.number for p in self.picked), default=0) + 1, media)
        self.picked.append(picked)
        self._chosen = len(self.picked) - 1
        self.refresh_cards()
        return picked

    def learn(self, picked: Picked, sight: Sight | None = None, **known) -> None:
        """Something became known of a picture; nothing if it is gone."""
        if sight is not None:
            known["media"] = replace(picked.media, sight=sight)
        for at, one in enumerate(self.picked):
            if one.number == picked.number and one.media.data is picked.media.data:
                self.picked[at] = replace(one, **known)
        self.refresh()

    def keep(self, text: str) -> None:
        """Drop the pictures whose token is no longer in the text."""
        kept = [picked for picked in self.picked if picked.token in text]
        if len(kept) != len(self.picked):
            self.picked = kept
            self.refresh_cards()

    def clear(self) -> None:
        self.picked = []
        self.refresh_cards()

    def refresh_cards(self) -> None:
        self.set_class(bool(self.picked), "-shown")
        self._chosen = min(self._chosen, max(len(self.picked) - 1, 0))
        self.refresh(layout=True)

    def render_lines(self, crop) -> list[Strip]:
        width = self.content_size.width
        self._lines = self._drawn(width)
        return super().render_lines(crop)

    def _drawn(self, width: int) -> list[Strip]:
        """All lines, scrolled so that the chosen picture can be seen."""
        total = sum(picked.media.sight.tokens for picked in self.picked if picked.media.sight)
        title = f"{len(self.picked)} to send · {total:,} tokens"
        head = [strip_of(Text(title, self.palette.heading, end=""))]
        if self.warning:
            head += strips_of(Text(self.warning, self.palette.warning, end=""), width)
        still = self.screen.is_active
        cards = [
            card(picked, width, self.palette, at == self._chosen and self.has_focus, still)
            for at, picked in enumerate(self.picked)
        ]
        room = self.content_size.height - len(head) - 1
        first = 0
        while first < self._chosen and sum(map(len, cards[first : self._chosen + 1])) > room:
            first += 1
        return [*head, Strip.blank(width), *(line for lines in cards[first:] for line in lines)]

    def render_line(self, y: int) -> Strip:
        width, style = self.size.width, self.rich_style
        if y >= len(self._lines):
            return Strip.blank(width, style)
        return self._lines[y].apply_style(style).adjust_cell_length(width, style)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return container.height

    def action_choose(self, by: int) -> None:
        self._chosen = min(max(self._chosen + by, 0), max(len(self.picked) - 1, 0))
        self.refresh()

    def action_remove(self) -> None:
        if self.picked:
            removed = self.picked.pop(self._chosen)
            self.refresh_cards()
            self.post_message(self.Changed(removed.token))

    def action_move(self, by: int) -> None:
        at, to = self._chosen, self._chosen + by
        if 0 <= to < len(self.picked):
            self.picked[at], self.picked[to] = self.picked[to], self.picked[at]
            self._chosen = to
            self.refresh()
            self.post_message(self.Changed())

    def action_preview(self) -> None:
        if self.picked:
            self.post_message(self.Preview(self._chosen))
