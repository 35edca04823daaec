"""Tiny random checkpoints in the released layout, and models loaded from them."""

from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from make_checkpoint import write
from tiny import CASES, load

from qwen35_local.model.qwen35 import Qwen35


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    return {case: write(root / case, "tiny", dtype, yarn=yarn) for case, (dtype, yarn) in CASES.items()}


@pytest.fixture(scope="session")
def models(checkpoints: dict[str, Path]) -> dict[str, Qwen35]:
    return {case: load(path) for case, path in checkpoints.items()}


@pytest.fixture(scope="session")
def logits_of() -> Callable[..., np.ndarray]:
    def logits_of(model: Qwen35, ids: np.ndarray, pieces: list[int] | None = None) -> np.ndarray:
        """float32 [T, V] of ids fed in pieces of these lengths (all at once by default)."""
        state, start, parts = model.new_state(), 0, []
        for length in pieces or [len(ids)]:
            hidden = model(mx.array(ids[None, start : start + length]), state)
            parts.append(np.array(model.logits(hidden))[0])
            start += length
        assert start == len(ids) == state.tokens
        return np.concatenate(parts)

    return logits_of
