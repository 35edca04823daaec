"""Pictures among tokens: where each token stands on the three axes, and which rows replace embeddings.

A picture of r x c tokens that begins at position p takes t = p, h = p + row and w = p + column; what follows it begins
at p + max(r, c). So positions lag behind the number of tokens from the first picture on, by the session's `rope_delta`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from ..engine import Span


@dataclass(frozen=True, slots=True)
class Fused:
    """What pictures change in a pass over T tokens.

    `positions` int32 [3, T + 1], the last for the token after; `rows` are (place, features [n, H]): the embeddings of
    the n tokens from `place` on are these.
    """

    positions: np.ndarray
    rows: tuple[tuple[int, mx.array], ...] = ()

    def embedded(self, embeddings: mx.array, start: int) -> mx.array:
        """`embeddings` [1, t, H] of the tokens from `start` on, with features in their places."""
        end = start + embeddings.shape[1]
        for place, features in self.rows:
            a, b = max(place, start), min(place + features.shape[0], end)
            if a < b:
                embeddings[:, a - start : b - start] = features[None, a - place : b - place].astype(embeddings.dtype)
        return embeddings


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
