"""What keys and values in fewer bits cost: errors of logits, and answers, on the miniature."""

from collections.abc import Sequence
from typing import Any

import numpy as np

import qwen35_local
from qwen35_local.backends.mlx import MlxEngine
from scripts.miniature.items import read, some_of_each

BITS = (None, 16, 8, 4)


def texts(engine: MlxEngine, items: int) -> list[list[int]]:
    """Held-out prompts with their right answers, one after another: long enough that every bit counts."""
    found: list[list[int]] = [[]]
    for item in some_of_each(read(), items):
        found[-1] += [*engine.prompt(item.request), *engine.tokenize(item.content)]
        if len(found[-1]) > 1800:
            found.append([])
    return [ids for ids in found if ids]


def errors(engine: MlxEngine, exact: Sequence[np.ndarray], ids: Sequence[Sequence[int]]) -> dict[str, float]:
    """Of the logits, against exact ones: relative norm, divergence in nats, and how often the likeliest token stays."""
    relative, divergence, same = [], [], []
    for right, text in zip(exact, ids, strict=True):
        ours = engine.logits(text)
        relative.append(np.linalg.norm(ours - right) / np.linalg.norm(right))
        p, q = (x - x.max(-1, keepdims=True) for x in (right.astype(np.float64), ours.astype(np.float64)))
        p, q = (x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in (p, q))
        divergence.append((np.exp(p) * (p - q)).sum(-1).mean())
        same.append((ours.argmax(-1) == right.argmax(-1)).mean())
    return {
        "relative": float(np.mean(relative)),
        "divergence": float(np.mean(divergence)),
        "same": float(np.mean(same)),
    }


def table(items: int = 2) -> dict[str, Any]:
    """Bits -> errors, bytes a token."""
    found: dict[str, Any] = {}
    exact: list[np.ndarray] = []
    ids: list[list[int]] = []
    for bits in BITS:
        with qwen35_local.open("miniature", kv_bits=bits) as engine:
            assert isinstance(engine, MlxEngine)
            if not exact:
                ids = texts(engine, items)
                exact = [engine.logits(text) for text in ids]
            row: dict[str, Any] = errors(engine, exact, ids)
            row["bytes per token"] = engine.plan.geometry.kv_per_token
            found[str(bits or "as computed")] = row
    return found
