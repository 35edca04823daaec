"""Pictures among tokens: which rows replace embeddings, and at which positions (see `positions.py`)."""

from dataclasses import dataclass

import mlx.core as mx
import numpy as np


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
