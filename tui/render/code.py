"""Fenced code: highlighted, on its own ground, at its natural width."""

from functools import cache
from typing import TYPE_CHECKING

from rich.style import Style
from rich.text import Span, Text
from textual.strip import Strip

from ..palette import Palette
from .lines import filled, strip_of

if TYPE_CHECKING:
    from rich.syntax import SyntaxTheme

TAB = 4  # cells
HIGHLIGHT_LIMIT = 20_000  # characters; beyond this colours cost more than they help


def code_strips(code: str, lang: str, width: int, palette: Palette) -> list[Strip]:
    """One strip a line, each at least `width` wide; lines longer than that keep their length."""
    text = highlighted(code, lang, palette)
    for line in text:
        line.expand_tabs(TAB)
    widest = max((line.cell_len for line in text), default=0) + 2
    lines = [Text.assemble(" ", line, end="") for line in text]
    return [filled(strip_of(line), max(width, widest), palette.code_block) for line in lines]


def highlighted(code: str, lang: str, palette: Palette) -> list[Text]:
    """The lines of `code`, coloured where the language is known and the theme has colours."""
    if not lang or not palette.code_theme or len(code) > HIGHLIGHT_LIMIT:
        return list(Text(code, end="").split("\n", allow_blank=True))
    from rich.syntax import Syntax  # Pygments is heavy, and most answers hold no code

    syntax = Syntax("", lang, theme=_theme(palette.code_theme))
    text = syntax.highlight(code)
    text.rstrip()
    lines = list(text.split("\n", allow_blank=True))
    for line in lines:
        line.end = ""
        line.style = ""
        line.spans = [Span(span.start, span.end, _ink(span.style)) for span in line.spans]
    return lines + [Text("", end="")] * (code.count("\n") + 1 - len(lines))


def _ink(style: str | Style) -> str | Style:
    """The theme's ground differs from ours: keep its colours and drop its ground."""
    if isinstance(style, str):
        return style
    return Style(color=style.color, bold=style.bold, italic=style.italic, underline=style.underline)


@cache
def _theme(name: str) -> "SyntaxTheme":
    from rich.syntax import Syntax

    return Syntax.get_theme(name)
