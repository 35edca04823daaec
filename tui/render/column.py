"""A column of pieces, most of them off screen: heights are measured where one looks and guessed elsewhere.

Pure bookkeeping; `widgets/transcript.py` draws it. Lines are counted from 0 at the top.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from textual.strip import Strip

from ..palette import PLAIN, Palette
from .pieces import MARGIN, Piece

KEPT = 400  # drawn pieces kept; some twenty screens


@dataclass(slots=True)
class Row:
    """One piece in the column. `key` says to which turn it belongs; `shift` is how far a wide piece is scrolled."""

    key: Hashable
    piece: Piece
    height: int = 1
    measured: bool = False
    shift: int = 0
    extent: int = 0  # cells of its widest line


@dataclass(slots=True)
class Column:
    rows: list[Row] = field(default_factory=list)
    width: int = 80
    palette: Palette = PLAIN
    _tops: list[int] = field(default_factory=lambda: [0])  # _tops[i]: the first line of row i; one more than rows
    _drawn: "OrderedDict[int, list[Strip]]" = field(default_factory=OrderedDict)  # by id of the row

    def reset(self, width: int, palette: Palette) -> None:
        """Another width or palette: every height is a guess again."""
        self.width, self.palette = width, palette
        for row in self.rows:
            row.measured, row.height = False, self._guess(row.piece)
        self._drawn.clear()
        self._sum(0)

    def replace(self, first: int, rows: Sequence[tuple[Hashable, Piece]]) -> None:
        """Put `rows` in place of everything from index `first` on; unchanged rows keep what is known of them."""
        old = self.rows[first:]
        new: list[Row] = []
        for at, (key, piece) in enumerate(rows):
            if at < len(old) and old[at].key == key and old[at].piece == piece:
                new.append(old[at])
                continue
            row = Row(key, piece, self._guess(piece))
            if at < len(old) and old[at].piece.wide and piece.wide:
                row.shift = old[at].shift
            new.append(row)
        kept = {id(row) for row in new}
        for row in old:
            if id(row) not in kept:
                self._drawn.pop(id(row), None)
        self.rows[first:] = new
        self._sum(first)

    @property
    def height(self) -> int:
        return self._tops[-1]

    def top(self, index: int) -> int:
        return self._tops[index]

    def at(self, line: int) -> int:
        """Index of the row that holds `line`."""
        return min(max(bisect_right(self._tops, line) - 1, 0), max(len(self.rows) - 1, 0))

    def measure(self, first: int, last: int) -> bool:
        """Measure rows first..last (inclusive); whether a height changed."""
        changed = -1
        for index in range(max(first, 0), min(last + 1, len(self.rows))):
            row = self.rows[index]
            if not row.measured:
                before = row.height
                self._draw(row)
                if row.height != before and changed < 0:
                    changed = index
        if changed >= 0:
            self._sum(changed)
        return changed >= 0

    def line(self, line: int) -> Strip | None:
        """The strip at `line`, `width` cells and the margin; None outside the column."""
        if not 0 <= line < self.height:
            return None
        drawn = self.drawn(line)
        return Strip.blank(self.width + MARGIN) if drawn is None else self._shifted(self.rows[self.at(line)], drawn)

    def drawn(self, line: int) -> Strip | None:
        """What was drawn for `line`, the same object while it stays as it is; None between rows and outside."""
        index = self.at(line)
        if not self.rows:
            return None
        row = self.rows[index]
        inside = line - self._tops[index] - (1 if row.piece.gap else 0)
        strips = self._draw(row) if inside >= 0 else []
        return strips[inside] if 0 <= inside < len(strips) else None

    def shift(self, index: int, by: int) -> bool:
        """Scroll a wide piece sideways; whether it moved. The parts of one program move together."""
        row = self.rows[index]
        most = max(row.extent - self.width, 0)
        before, row.shift = row.shift, min(max(row.shift + by, 0), most)
        return row.shift != before

    def _draw(self, row: Row) -> list[Strip]:
        strips = self._drawn.get(id(row))
        if strips is None:
            strips = self._drawn[id(row)] = row.piece.strips(self.width, self.palette)
            row.extent = max((strip.cell_length for strip in strips), default=0)
            row.height, row.measured = len(strips) + (1 if row.piece.gap else 0), True
            while len(self._drawn) > KEPT:
                self._drawn.popitem(last=False)
        else:
            self._drawn.move_to_end(id(row))
        return strips

    def _shifted(self, row: Row, strip: Strip) -> Strip:
        if getattr(row.piece, "bar", False):
            return strip
        margin = Strip.blank(MARGIN)
        if not row.piece.wide or row.extent <= self.width:
            return Strip.join([margin, strip])
        shown = strip.crop(row.shift, row.shift + self.width)
        return Strip.join([margin, shown])

    def _guess(self, piece: Piece) -> int:
        text = piece.plain
        wrapped = len(text) // max(self.width, 1) if not piece.wide else 0
        return text.count("\n") + 1 + wrapped + (1 if piece.gap else 0)

    def _sum(self, first: int) -> None:
        tops = self._tops
        del tops[first + 1 :]
        total = tops[first]
        for row in self.rows[first:]:
            total += row.height
            tops.append(total)
