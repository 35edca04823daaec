"""The prompts of scripts/vision_cases.py through our model, for comparison with transformers, recorded and live."""

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from vision_cases import GREEDY, Shown, prompt

from qwen35_local.engine import Span
from qwen35_local.model.config import ModelConfig
from qwen35_local.model.fusion import Fused
from qwen35_local.model.positions import positions_of
from qwen35_local.model.qwen35 import Qwen35, drained
from qwen35_local.model.vision import VisionTower
from qwen35_local.model.weights import Weights


@dataclass(frozen=True)
class Tile:
    """A `Seen` of a test."""

    it: Shown
    key: str = "key"
    notice: str = ""

    @property
    def rows(self):
        return self.it.grid[1] // 2

    @property
    def columns(self):
        return self.it.grid[2] // 2

    @property
    def seconds(self):
        return tuple(map(float, range(self.it.grid[0]))) if self.it.clip else None

    @property
    def size(self):
        return self.it.grid[2] * 16, self.it.grid[1] * 16


def tower_of(weights: Weights, config: ModelConfig) -> VisionTower:
    assert config.vision is not None
    return VisionTower(weights, config.vision)


def close(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert np.abs(ours - theirs).max() <= 5e-4
    assert np.linalg.norm(ours - theirs) <= 3e-5 * np.linalg.norm(theirs)


def spans_of(case: str) -> tuple[np.ndarray, list[Shown], list[Span]]:
    ids, shown, runs = prompt(case)
    tiles = [Tile(it, f"{case} {number}") for number, it in enumerate(shown)]
    return ids, shown, [Span(at, tiles[i].rows, tiles[i].columns, tiles[i], pair) for at, i, pair in runs]


def answered(
    model: Qwen35, eyes: VisionTower, case: str, pieces: Sequence[int] = (1000,)
) -> tuple[np.ndarray, int, list[int]]:
    """(logits float32 [T, V] of a prompt fed in pieces of these lengths, its rope_delta, greedy tokens after it)."""
    ids, shown, spans = spans_of(case)
    features = [eyes(mx.array(it.patches()), it.grid) for it in shown]
    positions, state, logits = positions_of(len(ids), spans), model.new_state(), []
    start = 0
    for length in pieces:
        end = min(start + length, len(ids))
        rows = [(span.start - start, _rows(span, features)) for span in spans]
        fused = Fused(positions[:, start : end + 1], tuple(rows))
        blocks, _ = drained(model.run(mx.array(ids[None, start:end]), state, fused=fused))
        logits.append(np.array(model.logits(model.norm(mx.concatenate(blocks, axis=1)))[0]))
        start = end
    found, delta, tokens = np.concatenate(logits), state.rope_delta, []
    last = found[-1]
    for _ in range(GREEDY):
        tokens.append(int(last.argmax()))
        last = np.array(model.logits(model(mx.array([tokens[-1:]]), state)))[0, -1]
    return found, delta, tokens


def _rows(span: Span, features: list[mx.array]) -> mx.array:
    number = int(span.seen.key.split()[1])
    return features[number][span.frame * span.tokens : (span.frame + 1) * span.tokens]
