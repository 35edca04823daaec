"""Where the tokens of a prompt with pictures stand on the three axes of M-RoPE. Pure.

A picture of r x c tokens that begins at position p takes t = p, h = p + row and w = p + column; what follows it begins
at p + max(r, c). So positions lag behind the number of tokens from the first picture on.
"""

from collections.abc import Sequence

import numpy as np

from ..engine import Span


def positions_of(tokens: int, spans: Sequence[Span]) -> np.ndarray:
    """int32 [3, tokens + 1]: time, height and width of every token of a prompt, and of the one to follow.

    `spans` are in order and do not overlap.
    """
    positions = np.empty((3, tokens + 1), np.int32)
    at = following = 0
    for span in spans:
        text = span.start - at
        positions[:, at : span.start] = following + np.arange(text)
        begin = following + text
        row, column = np.divmod(np.arange(span.tokens, dtype=np.int32), span.columns)
        at = span.start + span.tokens
        positions[:, span.start : at] = begin + np.stack([np.zeros_like(row), row, column])
        following = begin + max(span.rows, span.columns)
    positions[:, at:] = following + np.arange(tokens + 1 - at)
    return positions
