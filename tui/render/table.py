"""Tables at their natural width: what does not fit is reached by scrolling sideways, never squeezed."""

from collections.abc import Sequence

from markdown_it.token import Token
from rich.text import Text
from textual.strip import Strip

from ..palette import Palette
from .blocks import parser
from .inline import inline_text
from .lines import strip_of, wrapped

CELL_WIDTH = 48  # cells; longer cells wrap, so that one long cell does not push the rest off the screen


def table_strips(source: str, palette: Palette) -> list[Strip]:
    return [strip_of(line) for line in table_lines(parser().parse(source), palette)]


def table_lines(tokens: Sequence[Token], palette: Palette) -> list[Text]:
    """The lines of the table that `tokens` hold: header, a rule, rows; cells aligned as the source says."""
    rows: list[list[Text]] = []
    aligns: list[str] = []
    for at, token in enumerate(tokens):
        if token.type == "tr_open":
            rows.append([])
        elif token.type in ("th_open", "td_open") and rows:
            head = token.type == "th_open"
            if head:
                aligns.append(str(token.attrGet("style") or "").removeprefix("text-align:") or "left")
            content = tokens[at + 1].children or []
            rows[-1].append(inline_text(content, palette, palette.strong if head else None))
    if not rows:
        return []
    columns = max(map(len, rows))
    widths = [min(max(row[c].cell_len for row in rows if c < len(row)), CELL_WIDTH) or 1 for c in range(columns)]
    lines: list[Text] = []
    for at, row in enumerate(rows):
        lines += _row(row, widths, aligns, palette)
        if at == 0:
            lines.append(Text("─┼─".join("─" * width for width in widths), palette.rule, end=""))
    return lines


def _row(row: list[Text], widths: list[int], aligns: list[str], palette: Palette) -> list[Text]:
    cells = [wrapped(row[c], width) if c < len(row) else [] for c, width in enumerate(widths)]
    lines = []
    for at in range(max(map(len, cells), default=0)):
        parts: list[Text] = []
        for c, width in enumerate(widths):
            cell = cells[c][at].copy() if at < len(cells[c]) else Text("")
            cell.end = ""
            cell.rstrip()
            cell.align(aligns[c] if c < len(aligns) and aligns[c] in ("left", "right", "center") else "left", width)  # type: ignore[arg-type]
            parts.append(cell)
        lines.append(Text(" │ ", palette.rule, end="").join(parts))
    return lines
