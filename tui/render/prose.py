"""Everything of Markdown that wraps: paragraphs, headings, lists, quotes; fences and tables inside them."""

from collections.abc import Sequence

from markdown_it.token import Token
from rich.text import Text
from textual.strip import Strip

from ..palette import Palette
from .blocks import parser
from .inline import inline_text
from .lines import strip_of, wrapped
from .table import table_lines

BULLETS = ("•", "◦", "▪")


def prose_strips(source: str, width: int, palette: Palette) -> list[Strip]:
    """The lines of one block at `width` cells."""
    return [strip_of(line) for line in _Prose(palette).render(parser().parse(source), max(width, 8))]


class _Prose:
    """A walk over the tokens of one block. `_prefix` is what stands before each line; the next line takes `_mark`."""

    def __init__(self, palette: Palette):
        self._palette = palette
        self._lines: list[Text] = []
        self._prefix: list[Text] = []
        self._mark: Text | None = None
        self._numbers: list[int | None] = []

    def render(self, tokens: Sequence[Token], width: int) -> list[Text]:
        palette = self._palette
        for at, token in enumerate(tokens):
            match token.type:
                case "bullet_list_open":
                    self._numbers.append(None)
                case "ordered_list_open":
                    self._numbers.append(int(token.attrGet("start") or 1))
                case "bullet_list_close" | "ordered_list_close":
                    self._numbers.pop()
                case "list_item_open":
                    self._open_item()
                case "list_item_close":
                    self._flush_mark()
                    self._prefix.pop()
                case "blockquote_open":
                    self._prefix.append(Text("▎ ", palette.accent, end=""))
                case "blockquote_close":
                    self._prefix.pop()
                case "paragraph_open" | "heading_open":
                    self._blank_line(token)
                case "inline":
                    self._inline(token, tokens[at - 1], width)
                case "fence" | "code_block":
                    self._blank_line(token)
                    for line in token.content.removesuffix("\n").split("\n"):
                        self._put(Text(line, palette.code_block, end=""), width)
                case "hr":
                    self._put(Text("─" * (width - self._indent), palette.rule, end=""), width)
                case "table_open":
                    self._blank_line(token)
                    end = next(i for i in range(at, len(tokens)) if tokens[i].type == "table_close")
                    for line in table_lines(tokens[at : end + 1], palette):
                        self._put(line, width)
        return self._lines

    @property
    def _indent(self) -> int:
        return sum(prefix.cell_len for prefix in self._prefix)

    def _open_item(self) -> None:
        number = self._numbers[-1]
        depth = sum(n is None for n in self._numbers)
        mark = f"{BULLETS[(depth - 1) % len(BULLETS)]} " if number is None else f"{number}. "
        if number is not None:
            self._numbers[-1] = number + 1
        self._flush_mark()
        self._mark = Text(mark, self._palette.accent, end="")
        self._prefix.append(Text(" " * self._mark.cell_len, end=""))

    def _flush_mark(self) -> None:
        """An item without text still shows its mark."""
        if self._mark is not None:
            self._put(Text("", end=""), 80)

    def _blank_line(self, token: Token) -> None:
        """Between the paragraphs of one item or quote; never before the first, nor in a tight list."""
        if self._lines and self._mark is None and not token.hidden and self._prefix:
            self._lines.append(self._joined(self._prefix, Text("", end="")))

    def _inline(self, token: Token, opener: Token, width: int) -> None:
        palette = self._palette
        heading = opener.type == "heading_open"
        text = inline_text(token.children or [], palette, palette.heading if heading else None)
        self._put(text, width)
        if heading and opener.tag == "h1":
            self._put(Text("━" * min(text.cell_len, width), palette.heading, end=""), width)

    def _put(self, text: Text, width: int) -> None:
        for line in wrapped(text, width - self._indent):
            line.end = ""
            prefix = self._prefix
            if self._mark is not None:
                prefix, self._mark = [*prefix[:-1], self._mark], None
            self._lines.append(self._joined(prefix, line))

    @staticmethod
    def _joined(prefix: Sequence[Text], line: Text) -> Text:
        return Text("", end="").join([*prefix, line]) if prefix else line
