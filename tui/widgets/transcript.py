"""The conversation on screen: one widget that draws lines itself, so that its cost is that of what can be seen.

A widget for each message makes every new word as dear as the transcript is long; here a step draws the last block.
"""

from collections.abc import Sequence

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip

from ..chat.turns import Tree, Turn
from ..palette import Palette
from ..render.column import Column
from ..render.page import Page
from ..render.pieces import MARGIN

SIDEWAYS = 8  # cells that one step scrolls a wide table or program
FINISHED = 500  # lines kept as they were drawn
MEASURED_AT_ONCE = 40  # pieces measured in one idle moment; a few milliseconds


class Transcript(ScrollView, can_focus=True):
    """Shows the path of a tree."""

    BINDINGS = [  # noqa: RUF012
        Binding("up,k", "choose(-1)", "Message above"),
        Binding("down,j", "choose(1)", "Message below"),
        Binding("left,h", "act('version', '-1')", "Version before"),
        Binding("right,l", "act('version', '1')", "Version after"),
        Binding("shift+left", "sideways(-1)", "Scroll left", show=False),
        Binding("shift+right", "sideways(1)", "Scroll right", show=False),
        Binding("enter,space", "fold", "Fold, unfold"),
        Binding("e", "act('edit')", "Edit"),
        Binding("r", "act('regenerate')", "Regenerate"),
        Binding("c,y", "act('copy')", "Copy"),
        Binding("b", "act('copy_code')", "Copy code"),
        Binding("v", "raw", "Raw text"),
        Binding("i", "act('pictures')", "Pictures"),
        Binding("home,g", "scroll_home", "Top", show=False),
        Binding("end,G", "to_end", "End", show=False),
    ]
    DEFAULT_CSS = """
    Transcript { height: 1fr; padding: 0 1; overflow-x: hidden; scrollbar-gutter: stable; }
    """

    class Acted(Message):
        """A key or click on a turn that the app has to act upon; `verb` says what."""

        def __init__(self, verb: str, turn: int, detail: str = ""):
            self.verb, self.turn, self.detail = verb, turn, detail
            super().__init__()

    def __init__(self, palette: Palette, **options):
        super().__init__(**options)
        self.page = Page(Column(palette=palette))
        self._follow = True
        self._clicked = 0  # the row that was clicked last
        self._ground = Style.null()
        self._finished: dict[int, tuple[Strip, tuple[object, ...], Strip]] = {}  # by line: from what, how, the strip

    # --- content

    def show(self, tree: Tree, live: Turn | None = None) -> None:
        """Draw all of a path; the last turn is live if it is being written."""
        self.page.show(tree, live)
        self._changed()

    def grow(self, turn: Turn, text: str) -> None:
        """The live turn went on by `text`."""
        if self.page.grow(turn, text):
            self._changed()

    def repaint(self, palette: Palette) -> None:
        """New colours."""
        self.page.repaint(palette)
        self._changed()

    # --- layout

    def _changed(self) -> None:
        """Heights may differ: keep the end, or what is at the top of the view, where it is."""
        self._settle()
        self.refresh()

    def _settle(self) -> None:
        column, height = self.page.column, self.size.height
        if not height:
            return
        if self._follow:
            first = len(column.rows) - 1
            lines = 0
            while first >= 0 and lines < height:
                column.measure(first, first)
                lines += column.rows[first].height
                first -= 1
            self._resize()
            self._jump(self.max_scroll_y)
            return
        anchor = column.at(self.scroll_offset.y)
        inside = self.scroll_offset.y - column.top(anchor)
        for _ in range(3):
            if not column.measure(anchor, column.at(column.top(anchor) + inside + height) + 1):
                break
        self._resize()
        self._jump(column.top(anchor) + inside)

    def _jump(self, y: float) -> None:
        self.scroll_to(y=y, animate=False, immediate=True, force=True)

    def _resize(self) -> None:
        size = Size(self.size.width, self.page.column.height)
        if size != self.virtual_size:
            self.virtual_size = size
            self._scroll_update(size)

    def on_resize(self, event: events.Resize) -> None:
        column = self.page.column
        width = max(self.scrollable_content_region.width - MARGIN, 8)
        if width != column.width:
            top = column.at(self.scroll_offset.y)
            column.reset(width, column.palette)
            if not self._follow:
                self._jump(column.top(top))
        self._changed()

    def on_mount(self) -> None:
        super().on_mount()
        self.set_interval(0.1, self._measure_some)

    def _measure_some(self) -> None:
        """Turn guessed heights into known ones while nothing else happens, from the end upward."""
        column = self.page.column
        missing = [at for at in range(len(column.rows) - 1, -1, -1) if not column.rows[at].measured][:MEASURED_AT_ONCE]
        if missing and column.measure(missing[-1], missing[0]):
            self._settle()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self._follow = new_value >= self.max_scroll_y - 1
        column = self.page.column
        if column.rows and column.measure(column.at(int(new_value)), column.at(int(new_value) + self.size.height) + 1):
            self._resize()

    # --- drawing

    def render_lines(self, crop: Region) -> list[Strip]:
        ground = self.rich_style  # dear to find out, and the same for all lines
        if ground != self._ground:
            self._ground = ground
            self._finished.clear()
        return super().render_lines(crop)

    def render_line(self, y: int) -> Strip:
        """Most lines are as they were at the last look, which a model that answers should not have to wait for."""
        line, column = self.scroll_offset.y + y, self.page.column
        drawn = column.drawn(line)
        if drawn is None or self.text_selection is not None:
            return self._line(line)
        at = column.at(line)
        row = column.rows[at]
        marked = row.key == self.page.chosen and self.has_focus
        state = (at, row.shift, marked, self.size.width)
        if (known := self._finished.get(line)) is not None and known[0] is drawn and known[1] == state:
            return known[2]
        if len(self._finished) >= FINISHED:
            self._finished.clear()
        strip = self._line(line)
        self._finished[line] = drawn, state, strip
        return strip

    def _line(self, line: int) -> Strip:
        style, width, column = self._ground, self.size.width, self.page.column
        strip = column.line(line)
        if strip is None:
            return Strip.blank(width, style)
        at = column.at(line)
        if column.rows[at].key == self.page.chosen and self.has_focus:
            strip = strip.apply_style(column.palette.selected)
        strip = Strip(Segment.apply_style(strip, style), strip.cell_length).adjust_cell_length(width, style)
        selection = self.text_selection
        if selection is not None and (span := selection.get_span(line)) is not None:
            strip = self._selected(strip, *span)
        return strip.apply_meta({"row": at}).apply_offsets(0, line)

    def _selected(self, strip: Strip, start: int, end: int) -> Strip:
        end = strip.cell_length if end == -1 else end
        style = self.screen.get_component_rich_style("screen--selection")
        before, inside, after = strip.crop(0, start), strip.crop(start, end), strip.crop(end)
        return Strip.join([before, Strip(Segment.apply_style(inside, post_style=style)), after])

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        column = self.page.column
        start = selection.start.y if selection.start else 0
        end = selection.end.y if selection.end else column.height - 1
        strips = [column.line(line) for line in range(start, end + 1)]
        text = "\n".join([""] * start + [strip.text.rstrip() if strip else "" for strip in strips])
        return selection.extract(text).strip("\n"), "\n"

    def selection_updated(self, selection: Selection | None) -> None:
        self.refresh()

    # --- keys and clicks

    def _row_at(self, event: events.MouseEvent) -> int | None:
        return event.style.meta.get("row") if event.style else None

    def on_click(self, event: events.Click) -> None:
        row = self._row_at(event)
        if row is not None and row < len(self.page.column.rows):
            self._clicked = row
            self.page.chosen = int(self.page.column.rows[row].key)  # type: ignore[call-overload]
            self.refresh()

    def on_mouse_scroll_right(self, event: events.MouseScrollRight) -> None:
        self._wheel(event, SIDEWAYS)

    def on_mouse_scroll_left(self, event: events.MouseScrollLeft) -> None:
        self._wheel(event, -SIDEWAYS)

    def _wheel(self, event: events.MouseEvent, by: int) -> None:
        row = self._row_at(event)
        if row is not None and self.page.column.shift(row, by):
            event.stop()
            self.refresh()

    def action_choose(self, by: int) -> None:
        if self.page.choose(by):
            self.reveal(self.page.chosen)

    def reveal(self, turn: int) -> None:
        """Scroll so that the beginning of a turn can be seen."""
        self.page.chosen = turn
        if lines := self.page.lines_of(turn):
            top, bottom = lines
            view = self.scroll_offset.y
            if top < view or bottom > view + self.size.height:
                self._follow = False
                self.scroll_to(y=min(top, self.max_scroll_y), animate=False, immediate=True)
        self.refresh()

    def action_to_end(self) -> None:
        self._follow = True
        self._changed()

    def action_act(self, verb: str, detail: str = "") -> None:
        if turn := self.page.at_hand:
            self.post_message(self.Acted(verb, turn, detail))

    def action_copy_block(self) -> None:
        self.action_act("copy_block", self.page.code_at(self._clicked))

    def action_fold(self) -> None:
        self.page.fold()
        self._changed()

    def fold_all(self) -> None:
        self.page.fold_all()
        self._changed()

    def action_raw(self) -> None:
        self.page.toggle_raw()
        self._changed()

    def action_sideways(self, by: int) -> None:
        """Scroll the wide pieces that can be seen."""
        column = self.page.column
        first, last = column.at(self.scroll_offset.y), column.at(self.scroll_offset.y + self.size.height)
        for at in range(first, min(last + 1, len(column.rows))):
            if column.rows[at].piece.wide:
                column.shift(at, by * SIDEWAYS)
        self.refresh()

    @property
    def lines(self) -> Sequence[str]:
        """All lines as text, for tests and for copying."""
        column = self.page.column
        column.measure(0, len(column.rows))
        return [strip.text.rstrip() for at in range(column.height) if (strip := column.line(at))]
