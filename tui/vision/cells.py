"""Pictures as half blocks: each cell is two pixels, one above the other.

Terminals without true colour get the nearest of their 256 or 16 colours, with the error carried to the neighbours.
"""

from functools import cache
from typing import Literal

from PIL import Image
from rich.color import Color
from rich.segment import Segment
from rich.style import Style
from rich.terminal_theme import DEFAULT_TERMINAL_THEME
from textual.strip import Strip

HALF = "▀"
SHADES = " ░▒▓█"  # for a terminal without colours, from dark to light
Depth = Literal["truecolor", "256", "16", "none"]  # how many colours the terminal has


def fitted(size: tuple[int, int], columns: int, rows: int) -> tuple[int, int]:
    """The largest size in pixels (two to a cell, one above the other) that keeps the shape; at least 1×1."""
    width, height = max(size[0], 1), max(size[1], 1)
    scale = min(columns / width, 2 * rows / height)
    return max(round(width * scale), 1), max(round(height * scale), 1)


def strips(image: Image.Image, depth: Depth = "truecolor") -> list[Strip]:
    """One strip for two rows of pixels."""
    width, height = image.size
    if height % 2:
        image = image.crop((0, 0, width, height + 1))
        image.paste(image.crop((0, height - 1, width, height)), (0, height))
    if depth == "none":
        return _shades(image)
    if depth == "truecolor":
        raw = image.convert("RGB").tobytes()
        pixels = [Color.from_rgb(*raw[at : at + 3]) for at in range(0, len(raw), 3)]
    else:
        indexed = image.convert("RGB").quantize(palette=_palette(depth), dither=Image.Dither.FLOYDSTEINBERG)
        pixels = [Color.from_ansi(index + _first(depth)) for index in indexed.tobytes()]
    lines = []
    for top in range(0, len(pixels), 2 * width):
        cells = zip(pixels[top : top + width], pixels[top + width : top + 2 * width], strict=True)
        lines.append(Strip([Segment(HALF, Style(color=upper, bgcolor=lower)) for upper, lower in cells], width))
    return lines


def _shades(image: Image.Image) -> list[Strip]:
    """One character for two pixels, as dense as they are light."""
    width, height = image.size
    levels = image.convert("L").resize((width, height // 2), Image.Resampling.BOX).tobytes()
    marks = "".join(SHADES[level * len(SHADES) // 256] for level in levels)
    return [Strip([Segment(marks[at : at + width])], width) for at in range(0, len(marks), width)]


def _first(depth: Depth) -> int:
    """The lowest colour used; of 256 the first 16 are left out, as themes change them."""
    return 16 if depth == "256" else 0


@cache
def _palette(depth: Depth) -> Image.Image:
    table: list[int] = []
    for number in range(_first(depth), 256 if depth == "256" else 16):
        table += Color.from_ansi(number).get_truecolor(DEFAULT_TERMINAL_THEME)
    palette = Image.new("P", (1, 1))
    palette.putpalette(table)
    return palette


def depth_of(color_system: str | None) -> Depth:
    """From the name that Rich gives to what the terminal can."""
    return {"truecolor": "truecolor", "256": "256"}.get(color_system or "", "16")  # type: ignore[return-value]
