"""The state of one timeline: keys and values of the attention layers, convolution tail and delta state of the others.

Keys and values can be cut back to any length; the recurrent part cannot, it can only be put back from a snapshot.
"""

from copy import copy
from dataclasses import dataclass, replace

import mlx.core as mx

from .config import FULL, TextConfig

STEP = 256  # tokens by which the key and value buffers grow


class KeyValues:
    """Keys and values [B, Hkv, capacity, D] of one attention layer; the first `length` tokens count."""

    def __init__(self) -> None:
        self.length = 0
        self.keys: mx.array | None = None
        self.values: mx.array | None = None

    def append(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Add [B, Hkv, T, D]; return all so far, [B, Hkv, length, D]."""
        start, self.length = self.length, self.length + keys.shape[2]
        self.keys = _written(self.keys, keys, start)
        self.values = _written(self.values, values, start)
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]

    def branch(self, length: int) -> "KeyValues":
        """A copy of the first `length` tokens."""
        other = KeyValues()
        if self.keys is not None and self.values is not None:
            other.length = length
            other.keys, other.values = (mx.contiguous(x[:, :, :length]) for x in (self.keys, self.values))
        return other

    @property
    def arrays(self) -> list[mx.array]:
        return [array for array in (self.keys, self.values) if array is not None]


def _written(buffer: mx.array | None, new: mx.array, start: int) -> mx.array:
    """`buffer` with `new` at token `start`, grown by whole steps where needed."""
    end = start + new.shape[2]
    if buffer is None or end > buffer.shape[2]:
        B, heads, _, D = new.shape
        room = mx.zeros((B, heads, -(-end // STEP) * STEP - start, D), dtype=new.dtype)
        buffer = room if buffer is None else mx.concatenate([buffer[:, :, :start], room], axis=2)
    buffer[:, :, start:end] = new
    return buffer


@dataclass(slots=True)
class Recurrent:
    """Of one Gated DeltaNet layer: `conv` [B, kernel - 1, C], the last inputs of the convolution (zeros before the
    start), and `delta` [B, Hv, Dv, Dk] float32."""

    conv: mx.array
    delta: mx.array


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What brings a state back to `tokens`: the recurrent layers' values (arrays are immutable, so this is no copy)."""

    tokens: int
    rope_delta: int
    recurrent: tuple[Recurrent, ...]

    @property
    def nbytes(self) -> int:
        return sum(layer.conv.nbytes + layer.delta.nbytes for layer in self.recurrent)


class State:
    """All layers of one timeline (B = 1), `tokens` long. Rotary positions run `rope_delta` ahead after pictures."""

    def __init__(self, config: TextConfig, dtype: mx.Dtype):
        self.tokens = 0
        self.rope_delta = 0
        self.layers: list[KeyValues | Recurrent] = [
            KeyValues() if kind == FULL else _empty_recurrent(config, dtype) for kind in config.layer_types
        ]

    @property
    def arrays(self) -> list[mx.array]:
        """Everything to evaluate."""
        found = []
        for layer in self.layers:
            found += layer.arrays if isinstance(layer, KeyValues) else [layer.conv, layer.delta]
        return found

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays)

    def snapshot(self) -> Snapshot:
        recurrent = tuple(replace(layer) for layer in self.layers if isinstance(layer, Recurrent))
        return Snapshot(self.tokens, self.rope_delta, recurrent)

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot of this timeline: keys and values are cut to its length."""
        self.tokens, self.rope_delta = snapshot.tokens, snapshot.rope_delta
        saved = iter(snapshot.recurrent)
        for i, layer in enumerate(self.layers):
            if isinstance(layer, KeyValues):
                layer.length = snapshot.tokens
            else:
                self.layers[i] = replace(next(saved))

    def branch(self, snapshot: Snapshot) -> "State":
        """Another timeline that begins as this one was at a snapshot of it."""
        other = copy(self)
        other.layers = [x.branch(snapshot.tokens) if isinstance(x, KeyValues) else x for x in self.layers]
        other.restore(snapshot)
        mx.eval(other.arrays)  # a lazy slice would keep all of the other's keys and values
        return other


def _empty_recurrent(c: TextConfig, dtype: mx.Dtype) -> Recurrent:
    conv = mx.zeros((1, c.linear_conv_kernel_dim - 1, c.conv_dim), dtype=dtype)
    delta = mx.zeros((1, c.linear_num_value_heads, c.linear_value_head_dim, c.linear_key_head_dim), dtype=mx.float32)
    return Recurrent(conv, delta)
