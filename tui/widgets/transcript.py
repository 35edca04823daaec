"""The conversation on screen: one widget that draws lines itself, so that its cost is that of what can be seen.

A widget for each message makes every new word as dear as the transcript is long; here a step draws the last block.
"""

from collections.abc import Sequence

from rich.segment import Segment
from textual import events
from textual.binding import Binding
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip

from ..chat.turns import Tree, Turn
from ..palette import Palette
from ..render.blocks import Growing
from ..render.column import Column
from ..render.pieces import MARGIN, Markdown, Piece
from ..render.turns import View, pieces_of
from ..safe import printable

SIDEWAYS = 8  # cells that one step scrolls a wide table or program
MEASURED_AT_ONCE = 40  # pieces measured in one idle moment; a few milliseconds


class Transcript(ScrollView, can_focus=True):
    """Shows the path of a tree. `chosen` is the turn that the keys act on."""

    BINDINGS = [  # noqa: RUF012
        Binding("up,k", "choose(-1)", "Message above"),
        Binding("down,j", "choose(1)", "Message below"),
        Binding("left,h", "version(-1)", "Version before"),
        Binding("right,l", "version(1)", "Version after"),
        Binding("shift+left", "sideways(-1)", "Scroll left", show=False),
        Binding("shift+right", "sideways(1)", "Scroll right", show=False),
        Binding("enter,space", "fold", "Fold, unfold"),
        Binding("e", "turn('edit')", "Edit"),
        Binding("r", "turn('regenerate')", "Regenerate"),
        Binding("c,y", "turn('copy')", "Copy"),
        Binding("b", "turn('copy_code')", "Copy code"),
        Binding("v", "raw", "Raw text"),
        Binding("i", "turn('pictures')", "Pictures"),
        Binding("home,g", "scroll_home", "Top", show=False),
        Binding("end,G", "to_end", "End", show=False),
    ]
    DEFAULT_CSS = """
    Transcript { height: 1fr; padding: 0 1; overflow-x: hidden; scrollbar-size-vertical: 1; scrollbar-gutter: stable; }
    """

    class Acted(Message):
        """A key or click on a turn that the app has to act upon; `verb` says what."""

        def __init__(self, verb: str, turn: int, detail: str = ""):
            self.verb, self.turn, self.detail = verb, turn, detail
            super().__init__()

    def __init__(self, palette: Palette, **options):
        super().__init__(**options)
        self._column = Column(palette=palette)
        self._tree = Tree()
        self._turns: list[Turn] = []
        self._open: dict[int, bool] = {}
        self._raw: set[int] = set()
        self._live: Growing | None = None
        self._live_row = 0  # where the rows of the live turn begin
        self._follow = True
        self.chosen = 0

    # --- content

    def show(self, tree: Tree, live: Turn | None = None) -> None:
        """Draw all of a path; the last turn is live if it is being written."""
        self._tree, self._turns = tree, tree.path()
        self._live = None
        rows: list[tuple[int, Piece]] = []
        for turn in self._turns:
            if live is not None and turn.id == live.id:
                self._live = Growing()
                self._live.feed(printable(turn.text))
                self._live_row = len(rows)
            rows += [(turn.id, piece) for piece in self._pieces(turn)]
        if self.chosen not in [turn.id for turn in self._turns]:  # another version of it may be shown
            parent = tree[self.chosen].parent if self.chosen in tree else -1
            self.chosen = next((turn.id for turn in self._turns if turn.parent == parent), 0)
        self._column.replace(0, rows)
        self._changed()

    def grow(self, turn: Turn, text: str) -> None:
        """The live turn went on by `text`."""
        if self._live is None:
            return
        self._live.feed(text)
        self._turns[-1:] = [turn]
        self._column.replace(self._live_row, [(turn.id, piece) for piece in self._pieces(turn)])
        self._changed()

    def repaint(self, palette: Palette) -> None:
        """New colours."""
        self._column.reset(self._column.width, palette)
        self._changed()

    def view_of(self, turn: Turn) -> View:
        versions = self._tree.versions(turn.id)
        live = self._live is not None and turn.id == self._turns[-1].id
        results = {t.tool_call_id: t.text for t in self._turns if t.role == "tool"} if turn.tool_calls else {}
        return View(
            versions.index(turn.id) + 1,
            len(versions),
            self._open.get(turn.id, False),
            turn.id in self._raw,
            live,
            results=results,
        )

    def _pieces(self, turn: Turn) -> list[Piece]:
        view = self.view_of(turn)
        return pieces_of(turn, view, self._live.blocks if view.live and self._live else None)

    # --- layout

    def _changed(self) -> None:
        """Heights may differ: keep the end, or what is at the top of the view, where it is."""
        self._settle()
        self.refresh()

    def _settle(self) -> None:
        column, height = self._column, self.size.height
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
            self.scroll_to(y=self.max_scroll_y, animate=False, immediate=True, force=True)
            return
        anchor = column.at(self.scroll_offset.y)
        inside = self.scroll_offset.y - column.top(anchor)
        for _ in range(3):
            if not column.measure(anchor, column.at(column.top(anchor) + inside + height) + 1):
                break
        self._resize()
        self.scroll_to(y=column.top(anchor) + inside, animate=False, immediate=True, force=True)

    def _resize(self) -> None:
        size = Size(self.size.width, self._column.height)
        if size != self.virtual_size:
            self.virtual_size = size
            self._scroll_update(size)

    def on_resize(self, event: events.Resize) -> None:
        width = max(self.scrollable_content_region.width - MARGIN, 8)
        if width != self._column.width:
            top = self._column.at(self.scroll_offset.y)
            self._column.reset(width, self._column.palette)
            if not self._follow:
                self.scroll_to(y=self._column.top(top), animate=False, immediate=True, force=True)
        self._changed()

    def on_mount(self) -> None:
        super().on_mount()
        self.set_interval(0.1, self._measure_some)

    def _measure_some(self) -> None:
        """Turn guessed heights into known ones while nothing else happens, from the end upward."""
        column = self._column
        missing = [at for at in range(len(column.rows) - 1, -1, -1) if not column.rows[at].measured][:MEASURED_AT_ONCE]
        if missing and column.measure(missing[-1], missing[0]):
            self._settle()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self._follow = new_value >= self.max_scroll_y - 1
        column = self._column
        if column.rows and column.measure(column.at(int(new_value)), column.at(int(new_value) + self.size.height) + 1):
            self._resize()

    # --- drawing

    def render_line(self, y: int) -> Strip:
        style = self.rich_style
        line = self.scroll_offset.y + y
        width = self.size.width
        strip = self._column.line(line)
        if strip is None:
            return Strip.blank(width, style)
        row = self._column.rows[self._column.at(line)]
        if row.key == self.chosen and self.has_focus:
            strip = strip.apply_style(self._column.palette.selected)
        strip = Strip(Segment.apply_style(strip, style), strip.cell_length).adjust_cell_length(width, style)
        selection = self.text_selection
        if selection is not None and (span := selection.get_span(line)) is not None:
            strip = self._selected(strip, *span)
        return strip.apply_meta({"row": self._column.at(line)}).apply_offsets(0, line)

    def _selected(self, strip: Strip, start: int, end: int) -> Strip:
        end = strip.cell_length if end == -1 else end
        style = self.screen.get_component_rich_style("screen--selection")
        before, inside, after = strip.crop(0, start), strip.crop(start, end), strip.crop(end)
        return Strip.join([before, Strip(Segment.apply_style(inside, post_style=style)), after])

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        start = selection.start.y if selection.start else 0
        end = selection.end.y if selection.end else self._column.height - 1
        strips = [self._column.line(line) for line in range(start, end + 1)]
        text = "\n".join([""] * start + [strip.text.rstrip() if strip else "" for strip in strips])
        return selection.extract(text).strip("\n"), "\n"

    def selection_updated(self, selection: Selection | None) -> None:
        self.refresh()

    # --- keys and clicks

    def _row_at(self, event: events.MouseEvent) -> int | None:
        return event.style.meta.get("row") if event.style else None

    def on_click(self, event: events.Click) -> None:
        row = self._row_at(event)
        if row is not None and row < len(self._column.rows):
            self._clicked = row
            self.chosen = int(self._column.rows[row].key)  # type: ignore[call-overload]
            self.refresh()

    def on_mouse_scroll_right(self, event: events.MouseScrollRight) -> None:
        self._wheel(event, SIDEWAYS)

    def on_mouse_scroll_left(self, event: events.MouseScrollLeft) -> None:
        self._wheel(event, -SIDEWAYS)

    def _wheel(self, event: events.MouseEvent, by: int) -> None:
        row = self._row_at(event)
        if row is not None and self._column.shift(row, by):
            event.stop()
            self.refresh()

    def action_choose(self, by: int) -> None:
        """Move the mark to the turn above or below, and bring it into view."""
        ids = [turn.id for turn in self._turns if turn.role != "tool"]
        if not ids:
            return
        at = ids.index(self.chosen) + by if self.chosen in ids else len(ids) - 1
        self.chosen = ids[min(max(at, 0), len(ids) - 1)]
        self.reveal(self.chosen)

    def reveal(self, turn: int) -> None:
        """Scroll so that the beginning of a turn can be seen."""
        self.chosen = turn
        rows = [at for at, row in enumerate(self._column.rows) if row.key == turn]
        if rows:
            top = self._column.top(rows[0])
            bottom = self._column.top(rows[-1] + 1)
            view = self.scroll_offset.y
            if top < view or bottom > view + self.size.height:
                self._follow = False
                self.scroll_to(y=min(top, self.max_scroll_y), animate=False, immediate=True)
        self.refresh()

    def action_to_end(self) -> None:
        self._follow = True
        self._changed()

    def action_version(self, by: int) -> None:
        self._act("version", str(by))

    def action_turn(self, verb: str) -> None:
        self._act(verb)

    def action_copy_block(self) -> None:
        row = getattr(self, "_clicked", None)
        if row is not None:
            self._act("copy_block", self.code_at(row))

    def action_fold(self) -> None:
        turn = self.chosen or (self._turns[-1].id if self._turns else 0)
        self._open[turn] = not self._open.get(turn, False)
        self.again()

    def fold_all(self) -> None:
        """Unfold every thought and call, or fold them all if none is folded."""
        ids = [turn.id for turn in self._turns]
        unfold = not all(self._open.get(turn, False) for turn in ids)
        self._open.update(dict.fromkeys(ids, unfold))
        self.again()

    def action_raw(self) -> None:
        turn = self.chosen or (self._turns[-1].id if self._turns else 0)
        self._raw ^= {turn}
        self.again()

    def action_sideways(self, by: int) -> None:
        """Scroll the wide pieces of the chosen turn, or all that can be seen."""
        column = self._column
        first, last = column.at(self.scroll_offset.y), column.at(self.scroll_offset.y + self.size.height)
        rows = [at for at in range(first, last + 1) if at < len(column.rows) and column.rows[at].piece.wide]
        for at in rows:
            column.shift(at, by * SIDEWAYS)
        self.refresh()

    def again(self) -> None:
        """Draw all pieces anew; unchanged ones keep their lines."""
        live = self._turns[-1] if self._live is not None else None
        self.show(self._tree, live)

    def code_at(self, row: int) -> str:
        """The whole program of which a row shows a part."""
        rows = self._column.rows

        def part(at: int) -> Markdown | None:
            piece = rows[at].piece if 0 <= at < len(rows) else None
            return piece if isinstance(piece, Markdown) and piece.block.kind == "code" else None

        while (piece := part(row)) and piece.block.continues:
            row -= 1
        parts = [piece.block.source] if (piece := part(row)) else []
        while (piece := part(row + len(parts))) and piece.block.continues:
            parts.append(piece.block.source)
        return "\n".join(parts)

    def _act(self, verb: str, detail: str = "") -> None:
        turn = self.chosen or (self._turns[-1].id if self._turns else 0)
        if turn:
            self.post_message(self.Acted(verb, turn, detail))

    @property
    def lines(self) -> Sequence[str]:
        """All lines as text, for tests and for copying."""
        self._column.measure(0, len(self._column.rows))
        return [strip.text.rstrip() for at in range(self._column.height) if (strip := self._column.line(at))]
