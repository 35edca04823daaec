"""A session of the released model's geometry on disk: how long until its first token, beside reading the bare file."""

import os
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import mlx.core as mx
import numpy as np

from qwen35_local.backends.mlx_saved import Memory, arrays_of, describe, revived
from qwen35_local.model.state import State
from qwen35_local.sessions.file import BLOCK, StateFile, write

from .curves import BLOCKS, RELEASED
from .synthetic import filled

SNAPSHOTS = 2  # beside the state itself: before the answer, and before the first answer to the last question


class Model:
    """As much of a model as a state needs."""

    def new_state(self) -> State:
        return State(replace(RELEASED, layer_types=RELEASED.layer_types * BLOCKS), mx.bfloat16)


def measured(directory: Path, tokens: int, rounds: int) -> dict[str, Any]:
    """Seconds of writing, of reading the file alone, and of resuming up to the choice of the first token, in turns."""
    model, path = Model(), directory / "bench.state"
    state = filled(model.new_state(), tokens, RELEASED, mx.bfloat16)
    snapshots = [state.snapshot() for _ in range(SNAPSHOTS)]
    logits = mx.random.normal((RELEASED.vocab_size,))
    expected = int(np.array(logits).argmax())
    began = perf_counter()
    size = write(path, describe(state, snapshots), arrays_of(state, snapshots, logits))
    writing = perf_counter() - began
    del state, snapshots
    mx.clear_cache()

    def resume() -> None:
        file, memory = StateFile.open(path), Memory()
        file.read(memory.room)
        _, _, found = revived(model, file.header, memory.arrays)  # pyright: ignore[reportArgumentType]
        assert found is not None
        assert int(np.array(found).argmax()) == expected

    def bare() -> None:
        buffer = memoryview(bytearray(BLOCK))
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass

    seconds: dict[str, list[float]] = {"bare": [], "resume": []}
    for _ in range(rounds):
        for name, action in (("bare", bare), ("resume", resume)):
            seconds[name].append(cold(path, action))
    path.unlink()
    ratios = [a / b for a, b in zip(seconds["resume"], seconds["bare"], strict=True)]
    return {"tokens": tokens, "bytes": size, "write s": writing, "ratio": statistics.median(ratios),
            "read s": statistics.median(seconds["bare"]), "resume s": statistics.median(seconds["resume"])}  # fmt: skip


def cold(path: Path, action: Callable[[], None]) -> float:
    """Seconds of an action on a file that is not in the system's cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    began = perf_counter()
    action()
    return perf_counter() - began
