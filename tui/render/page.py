"""What a conversation shows: the path through its tree as a column of pieces, and what is unfolded or raw of it."""

from dataclasses import dataclass, field

from ..chat.turns import Tree, Turn
from ..palette import Palette
from ..safe import printable
from .blocks import Block, Growing, blocks_of
from .column import Column
from .pieces import Markdown, Piece
from .turns import View, pieces_of


@dataclass(slots=True)
class Page:
    """`show` lays out a path; `grow` replaces the end of it. `chosen` is the turn that keys act on, 0 for none."""

    column: Column
    chosen: int = 0
    turns: list[Turn] = field(default_factory=list)
    _tree: Tree = field(default_factory=Tree)
    _open: dict[int, bool] = field(default_factory=dict)
    _raw: set[int] = field(default_factory=set)
    _live: Growing | None = None
    _live_row: int = 0  # where the rows of the live turn begin
    _blocks: dict[int, tuple[str, list[Block]]] = field(default_factory=dict)  # by turn: its text, and that in blocks

    def show(self, tree: Tree, live: Turn | None = None) -> None:
        """All of a path; the last turn is live if it is being written."""
        before = self.turns
        self._tree, self.turns = tree, tree.path()
        if self._live is not None and before and before[-1].id in tree:
            ended = tree[before[-1].id]
            if live is None or live.id != ended.id:
                self._blocks[ended.id] = (before[-1].text, list(self._live.blocks))  # parsed as it came
        self._live = None
        rows: list[tuple[int, Piece]] = []
        for turn in self.turns:
            if live is not None and turn.id == live.id:
                self._live = Growing()
                self._live.feed(printable(turn.text))
                self._live_row = len(rows)
            rows += [(turn.id, piece) for piece in self._pieces(turn)]
        shown = {turn.id for turn in self.turns}
        self._blocks = {turn: kept for turn, kept in self._blocks.items() if turn in shown}
        if self.chosen not in shown:  # another version of it may be shown
            parent = tree[self.chosen].parent if self.chosen in tree else -1
            self.chosen = next((turn.id for turn in self.turns if turn.parent == parent), 0)
        self.column.replace(0, rows)

    def again(self) -> None:
        """All pieces anew; unchanged ones keep their lines."""
        self.show(self._tree, self.turns[-1] if self._live is not None else None)

    def grow(self, turn: Turn, text: str) -> bool:
        """The live turn went on by `text`; False if none is live."""
        if self._live is None:
            return False
        self._live.feed(text)
        self.turns[-1:] = [turn]
        self.column.replace(self._live_row, [(turn.id, piece) for piece in self._pieces(turn)])
        return True

    def view_of(self, turn: Turn) -> View:
        versions = self._tree.versions(turn.id)
        results = {t.tool_call_id: t.text for t in self.turns if t.role == "tool"} if turn.tool_calls else {}
        return View(
            version=versions.index(turn.id) + 1,
            versions=len(versions),
            open=self._open.get(turn.id, False),
            raw=turn.id in self._raw,
            live=self._live is not None and turn.id == self.turns[-1].id,
            continues=turn.parent in self._tree and self._tree[turn.parent].role == "tool",
            results=results,
        )

    def _pieces(self, turn: Turn) -> list[Piece]:
        view = self.view_of(turn)
        if view.live and self._live is not None:
            return pieces_of(turn, view, self._live.blocks)
        if turn.role != "assistant" or view.raw:
            return pieces_of(turn, view)
        text, blocks = self._blocks.get(turn.id, ("", []))
        if text != turn.text:
            blocks = blocks_of(printable(turn.text))
            self._blocks[turn.id] = (turn.text, blocks)
        return pieces_of(turn, view, blocks)

    def repaint(self, palette: Palette) -> None:
        self.column.reset(self.column.width, palette)

    # --- what is unfolded, raw, chosen

    @property
    def at_hand(self) -> int:
        """The chosen turn, else the last."""
        return self.chosen or (self.turns[-1].id if self.turns else 0)

    def fold(self) -> None:
        turn = self.at_hand
        self._open[turn] = not self._open.get(turn, False)
        self.again()

    def fold_all(self) -> None:
        """Unfold every thought and call, or fold them all if none is folded."""
        ids = [turn.id for turn in self.turns]
        unfold = not all(self._open.get(turn, False) for turn in ids)
        self._open.update(dict.fromkeys(ids, unfold))
        self.again()

    def toggle_raw(self) -> None:
        self._raw ^= {self.at_hand}
        self.again()

    def choose(self, by: int) -> bool:
        """Move the mark to the turn above or below; False if there is none at all."""
        ids = [turn.id for turn in self.turns if turn.role != "tool"]
        if not ids:
            return False
        at = ids.index(self.chosen) + by if self.chosen in ids else len(ids) - 1
        self.chosen = ids[min(max(at, 0), len(ids) - 1)]
        return True

    def lines_of(self, turn: int) -> tuple[int, int] | None:
        """The first line of a turn and the one after its last."""
        rows = [at for at, row in enumerate(self.column.rows) if row.key == turn]
        return (self.column.top(rows[0]), self.column.top(rows[-1] + 1)) if rows else None

    def code_at(self, row: int) -> str:
        """The whole program of which a row shows a part."""
        rows = self.column.rows

        def part(at: int) -> Markdown | None:
            piece = rows[at].piece if 0 <= at < len(rows) else None
            return piece if isinstance(piece, Markdown) and piece.block.kind == "code" else None

        while (piece := part(row)) and piece.block.continues:
            row -= 1
        parts = [piece.block.source] if (piece := part(row)) else []
        while (piece := part(row + len(parts))) and piece.block.continues:
            parts.append(piece.block.source)
        return "\n".join(parts)
