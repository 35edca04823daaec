"""What two models say of the same tokens: perplexity, divergence, agreement. Pure: arrays in, numbers out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Agreement:
    """Sums over tokens, so that windows add up. Nats."""

    tokens: int = 0
    loss_a: float = 0.0
    loss_b: float = 0.0
    divergence: float = 0.0  # KL(A || B)
    worst: float = 0.0  # largest divergence of one token
    same_top: int = 0

    def __add__(self, other: "Agreement") -> "Agreement":
        return Agreement(
            self.tokens + other.tokens,
            self.loss_a + other.loss_a,
            self.loss_b + other.loss_b,
            self.divergence + other.divergence,
            max(self.worst, other.worst),
            self.same_top + other.same_top,
        )

    def summary(self) -> dict[str, float]:
        n = max(self.tokens, 1)
        return {
            "perplexity_a": float(np.exp(self.loss_a / n)),
            "perplexity_b": float(np.exp(self.loss_b / n)),
            "kl": self.divergence / n,
            "kl_worst": self.worst,
            "top1": self.same_top / n,
        }


ROWS = 64  # tokens judged at a time: with 248,320 logits each, float64 copies of more would take gigabytes


def agreement(a: np.ndarray, b: np.ndarray, ids: Sequence[int], start: int = 1) -> Agreement:
    """Logits float32 [T, V] of both models for `ids` [T]; row t predicts ids[t + 1]. Tokens before `start` (at least 1)
    are given, not judged."""
    total = Agreement()
    for first in range(start, len(ids), ROWS):
        last = min(first + ROWS, len(ids))
        total += _agreement(a[first - 1 : last - 1], b[first - 1 : last - 1], np.asarray(ids[first:last]))
    return total


def _agreement(a: np.ndarray, b: np.ndarray, next_ids: np.ndarray) -> Agreement:
    log_a, log_b = log_softmax(a), log_softmax(b)
    each = (np.exp(log_a) * (log_a - log_b)).sum(-1)
    return Agreement(
        len(next_ids),
        -float(np.take_along_axis(log_a, next_ids[:, None], 1).sum()),
        -float(np.take_along_axis(log_b, next_ids[:, None], 1).sum()),
        float(each.sum()),
        float(each.max(initial=0.0)),
        int((log_a.argmax(-1) == log_b.argmax(-1)).sum()),
    )


def log_softmax(x: np.ndarray) -> np.ndarray:
    """Over the last axis, in float64: differences of nearly equal models are small."""
    x = x.astype(np.float64)
    x -= x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def shared_experts(a: np.ndarray, b: np.ndarray) -> float:
    """Expert ids [T, K] of both: the mean share of each token's experts that both chose."""
    hits = (a[:, :, None] == b[:, None, :]).any(-1)
    return float(hits.mean())
