"""Generated pictures: coloured shapes on light grounds, and words or numbers in several fonts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from random import Random

from PIL import Image, ImageDraw, ImageFont

SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond")
PAINTS = {
    "red": (220, 30, 35), "green": (30, 150, 50), "blue": (35, 70, 215), "yellow": (245, 215, 25),
    "orange": (245, 135, 15), "purple": (130, 40, 170), "pink": (250, 130, 190), "black": (20, 20, 20),
}  # fmt: skip
# Bundled with matplotlib (the `train` extra): DejaVu under the Bitstream Vera licence, STIX under the SIL OFL.
FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSansMono", "STIXGeneral")
FINER = 2  # shapes are drawn this much larger and reduced, for smooth edges


@dataclass(frozen=True, slots=True)
class Mark:
    """What is drawn where: a shape or one character, its paint (or ""), its centre in pixels."""

    kind: str
    paint: str
    x: float
    y: float


def ground(rng: Random) -> tuple[int, int, int]:
    """A light colour."""
    base = rng.randint(205, 255)
    red, green, blue = (max(190, min(255, base + rng.randint(-12, 12))) for _ in range(3))
    return red, green, blue


def shade(rng: Random, paint: str) -> tuple[int, int, int]:
    """A paint is never quite the same."""
    red, green, blue = (max(0, min(255, value + rng.randint(-14, 14))) for value in PAINTS[paint])
    return red, green, blue


def outline(kind: str, x: float, y: float, r: float) -> list[tuple[float, float]]:
    """The corners of a shape that fits a circle of radius r (a circle has none)."""
    if kind == "square":
        a = 0.84 * r
        return [(x - a, y - a), (x + a, y - a), (x + a, y + a), (x - a, y + a)]
    if kind == "cross":
        a, b = 0.95 * r, 0.33 * r
        turns = ((-b, -a), (b, -a), (b, -b), (a, -b), (a, b), (b, b), (b, a), (-b, a), (-b, b), (-a, b), (-a, -b),
                 (-b, -b))  # fmt: skip
        return [(x + dx, y + dy) for dx, dy in turns]
    if kind == "diamond":
        return [(x, y - r), (x + 0.72 * r, y), (x, y + r), (x - 0.72 * r, y)]
    corners, inner = {"triangle": (3, 1.0), "star": (5, 0.42)}[kind]
    points = []
    for i in range(corners * 2):
        size = r if i % 2 == 0 else inner * r
        if i % 2 == 0 or inner < 1:
            angle = math.pi * i / corners - math.pi / 2
            points.append((x + size * math.cos(angle), y + size * math.sin(angle)))
    return points


def draw_shapes(rng: Random, size: tuple[int, int], shapes: Sequence[tuple[Mark, float]], back=None) -> Image.Image:
    """A picture (width, height) of shapes with their radii."""
    image = Image.new("RGB", (size[0] * FINER, size[1] * FINER), back or ground(rng))
    draw = ImageDraw.Draw(image)
    for mark, radius in shapes:
        x, y, r = mark.x * FINER, mark.y * FINER, radius * FINER
        fill = shade(rng, mark.paint)
        if mark.kind == "circle":
            draw.ellipse((x - r * 0.95, y - r * 0.95, x + r * 0.95, y + r * 0.95), fill)
        else:
            draw.polygon(outline(mark.kind, x, y, r), fill)
    return image.reduce(FINER)


@cache
def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    found = find_spec("matplotlib")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("the fonts come with matplotlib: install the [train] extra")
    return ImageFont.truetype(str(Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / f"{name}.ttf"), size)


def draw_text(rng: Random, size: tuple[int, int], text: str, face: str) -> tuple[Image.Image, list[Mark]]:
    """The text somewhere in a picture (width, height), dark on light or light on dark, with a mark per character."""
    width, height = size
    points = rng.randint(26, 38)
    while points > 14 and font(face, points).getlength(text) > width - 6:
        points -= 2
    letters = font(face, points)
    left, top, right, bottom = letters.getbbox(text)
    x = rng.uniform(2, max(2.0, width - (right - left) - 2)) - left
    y = rng.uniform(2, max(2.0, height - (bottom - top) - 2)) - top
    ink, back = shade(rng, rng.choice(("black", "black", "blue", "red", "green", "purple"))), ground(rng)
    if rng.random() < 0.2:
        ink, back = back, ink
    image = Image.new("RGB", size, back)
    ImageDraw.Draw(image).text((x, y), text, ink, font=letters)
    middle = y + (top + bottom) / 2
    marks = []
    for index, character in enumerate(text):
        start = letters.getlength(text[:index])
        marks.append(Mark(character, "", x + start + letters.getlength(character) / 2, middle))
    return image, marks
