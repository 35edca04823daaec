"""What a picture costs: the size the model is shown and the tokens that takes.

The rule of the released preprocessor: sides are rounded to multiples of 32 (patches of 16, merged in twos), and the
area kept between 256² and 4096² pixels.
"""

import math

UNIT = 32
LEAST, MOST = 256 * 256, 4096 * 4096


def shown_size(width: int, height: int, max_pixels: int | None = None) -> tuple[int, int]:
    """Width and height in pixels after resizing, multiples of 32."""
    most = min(MOST, max_pixels or MOST)
    w, h = (max(UNIT, round(side / UNIT) * UNIT) for side in (width, height))
    if w * h > most:
        scale = math.sqrt(width * height / most)
        w, h = (max(UNIT, math.floor(side / scale / UNIT) * UNIT) for side in (width, height))
    elif w * h < LEAST:
        scale = math.sqrt(LEAST / (width * height))
        w, h = (math.ceil(side * scale / UNIT) * UNIT for side in (width, height))
    return w, h


def tokens(width: int, height: int, max_pixels: int | None = None) -> int:
    """Tokens of one picture in the prompt, its two marks included."""
    w, h = shown_size(width, height, max_pixels)
    return (w // UNIT) * (h // UNIT) + 2
