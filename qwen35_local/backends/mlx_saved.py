"""The state of an MLX session as named arrays, and back: what `sessions/file.py` keeps on disk."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from ..errors import SessionError
from ..model.key_values import KeyValues
from ..model.qwen35 import Qwen35
from ..model.state import Recurrent, Snapshot, State
from ..sessions.file import Array, Entry

DTYPES = {
    name: getattr(mx, name) for name in ("bfloat16", "float16", "float32", "uint32", "uint8")
}  # as the file names them


class Memory:
    """MLX arrays that are filled from elsewhere, by name."""

    def __init__(self) -> None:
        self.arrays: dict[str, mx.array] = {}

    def room(self, entry: Entry) -> memoryview:
        """The writable bytes of a new array."""
        if entry.dtype not in DTYPES:
            raise SessionError(f"{entry.name} is {entry.dtype}, which no state of this backend is")
        array = mx.zeros(entry.shape, dtype=DTYPES[entry.dtype])
        mx.eval(array)
        self.arrays[entry.name] = array
        return _bytes_of(array)


def describe(state: State, snapshots: Sequence[Snapshot]) -> dict[str, Any]:
    """What must be known beside the arrays, for JSON."""
    return {
        "tokens": state.tokens,
        "rope_delta": state.rope_delta,
        "mtp": state.mtp.length,
        "snapshots": [[snapshot.tokens, snapshot.rope_delta] for snapshot in snapshots],
    }


def arrays_of(state: State, snapshots: Sequence[Snapshot], logits: mx.array | None) -> Iterator[Array]:
    """One after another, so that no more than one is copied at a time."""
    for i, layer in enumerate(state.layers):
        if isinstance(layer, KeyValues):
            yield from (_array(f"{i}.kv.{n}", part) for n, part in enumerate(layer.kept()))
        else:
            yield from _recurrent(f"{i}", layer)
    yield from (_array(f"mtp.kv.{n}", part) for n, part in enumerate(state.mtp.kept()))
    if state.tail is not None:
        yield _array("tail", state.tail)
    if logits is not None:
        yield _array("logits", logits)
    for number, snapshot in enumerate(snapshots):
        for i, layer in enumerate(snapshot.recurrent):
            yield from _recurrent(f"snapshot.{number}.{i}", layer)
        if snapshot.tail is not None:
            yield _array(f"snapshot.{number}.tail", snapshot.tail)


def revived(
    model: Qwen35, meta: Mapping[str, Any], arrays: Mapping[str, mx.array]
) -> tuple[State, list[Snapshot], mx.array | None]:
    """What was saved. Raises SessionError where it is not that of this model."""
    state = model.new_state()
    state.tokens, state.rope_delta = meta["tokens"], meta["rope_delta"]
    taken = _Taken(arrays)
    recurrent = [layer for layer in state.layers if isinstance(layer, Recurrent)]
    for i, layer in enumerate(state.layers):
        if isinstance(layer, KeyValues):
            layer.arrays, layer.length = taken.parts(f"{i}.kv"), state.tokens
            if state.tokens and any(array.shape[2] < state.tokens for array in layer.arrays or [mx.zeros((0, 0, 0))]):
                raise SessionError(f"the saved keys of layer {i} are fewer than its {state.tokens} tokens")
        else:
            layer.conv, layer.delta = taken.recurrent(f"{i}", layer)
    state.mtp.arrays, state.mtp.length = taken.parts("mtp.kv"), meta["mtp"]
    state.tail = arrays.get("tail")
    snapshots = []
    for number, (tokens, rope_delta) in enumerate(meta["snapshots"]):
        layers = [Recurrent(*taken.recurrent(f"snapshot.{number}.{i}", like)) for i, like in enumerate(recurrent)]
        snapshots.append(Snapshot(tokens, rope_delta, tuple(layers), arrays.get(f"snapshot.{number}.tail")))
    return state, snapshots, arrays.get("logits")


class _Taken:
    def __init__(self, arrays: Mapping[str, mx.array]):
        self._arrays = arrays

    def parts(self, name: str) -> list[mx.array]:
        found = []
        while (part := self._arrays.get(f"{name}.{len(found)}")) is not None:
            found.append(part)
        return found

    def recurrent(self, name: str, like: Recurrent) -> tuple[mx.array, mx.array]:
        conv, delta = (self._arrays.get(f"{name}.{part}") for part in ("conv", "delta"))
        if conv is None or delta is None or (conv.shape, delta.shape) != (like.conv.shape, like.delta.shape):
            raise SessionError(f"the saved state {name} is not one of this model: it was saved with another")
        return conv, delta


def _recurrent(name: str, layer: Recurrent) -> Iterator[Array]:
    yield _array(f"{name}.conv", layer.conv)
    yield _array(f"{name}.delta", layer.delta)


def _array(name: str, x: mx.array) -> Array:
    x = mx.contiguous(x)
    mx.eval(x)
    return Array(name, str(x.dtype).rpartition(".")[2], tuple(x.shape), _bytes_of(x))


def _bytes_of(array: mx.array) -> memoryview:
    """The memory of an evaluated array, shared."""
    return memoryview(np.asarray(array.view(mx.uint8)).reshape(-1))  # pyright: ignore[reportArgumentType]
