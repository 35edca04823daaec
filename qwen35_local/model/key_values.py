"""Keys and values of one attention layer, as computed, in 16 bits, or quantised to 8 or 4."""

from collections.abc import Sequence

import mlx.core as mx

from . import blas
from .kv_format import GROUP, PLAIN, KvFormat

STEP = 256  # tokens by which the buffers grow
ROWS = 16  # queries from which numpy's products win on a CPU
LONG = 4096  # tokens from which they win for any number of queries


class KeyValues:
    """Buffers [B, Hkv, capacity, …], half of them of keys; the first `length` tokens count."""

    def __init__(self, format: KvFormat = PLAIN) -> None:
        self.format = format
        self.length = 0
        self.arrays: list[mx.array] = []

    def append(self, keys: mx.array, values: mx.array) -> None:
        """Add [B, Hkv, T, D]."""
        start, self.length = self.length, self.length + keys.shape[2]
        new = [*packed(keys, self.format), *packed(values, self.format)]
        old = self.arrays or [None] * len(new)
        self.arrays = [_written(buffer, part, start) for buffer, part in zip(old, new, strict=True)]

    def attend(self, q: mx.array, seen: int) -> mx.array:
        """q [B, heads, T, D], the last T of the first `seen` tokens -> [B, heads, T, D]"""
        parts = [array[:, :, :seen] for array in self.arrays]
        if self.format.quantised:
            return self._attend_packed(q, parts)
        keys, values = (part.astype(q.dtype) for part in parts)
        if _wins_in_numpy(q, seen):
            return _in_numpy(q, keys, values)
        mask = "causal" if q.shape[2] > 1 else None
        return mx.fast.scaled_dot_product_attention(q, keys, values, scale=q.shape[3] ** -0.5, mask=mask)

    def _attend_packed(self, q: mx.array, parts: list[mx.array]) -> mx.array:
        """Products with the packed values themselves: unpacking all of them for each token would undo the saving."""
        if q.shape[2] >= ROWS and blas.on_cpu(q, ROWS):
            keys, values = (unpacked(parts[at : at + 3], self.format) for at in (0, 3))
            return _in_numpy(q, keys, values)
        B, heads, T, D = q.shape
        keys, values = ([part[:, :, None] for part in parts[at : at + 3]] for at in (0, 3))  # [B, Hkv, 1, S, …]
        Hkv, S = keys[0].shape[1], keys[0].shape[3]
        packing = {"group_size": GROUP, "bits": self.format.bits}
        grouped = (q * D**-0.5).reshape(B, Hkv, heads // Hkv, T, D)
        scores = mx.quantized_matmul(grouped, *keys, transpose=True, **packing).astype(mx.float32)
        if T > 1:
            scores = mx.where(mx.arange(S) <= mx.arange(S - T, S)[:, None], scores, -mx.inf)
        weights = mx.softmax(scores, axis=-1).astype(q.dtype)
        return mx.quantized_matmul(weights, *values, transpose=False, **packing).reshape(B, heads, T, D)

    def branch(self, length: int) -> "KeyValues":
        """A copy of the first `length` tokens."""
        other = KeyValues(self.format)
        if self.arrays:
            other.length = length
            other.arrays = [mx.contiguous(array[:, :, :length]) for array in self.arrays]
        return other

    def kept(self) -> list[mx.array]:
        """The buffers without room that no token has used, whole steps long."""
        room = -(-self.length // STEP) * STEP
        return [array[:, :, :room] if room < array.shape[2] else array for array in self.arrays]


def _written(buffer: mx.array | None, new: mx.array, start: int) -> mx.array:
    """`buffer` with `new` at token `start`, grown by whole steps where needed."""
    end = start + new.shape[2]
    if buffer is None or end > buffer.shape[2]:
        B, heads, _, D = new.shape
        room = mx.zeros((B, heads, -(-end // STEP) * STEP - start, D), dtype=new.dtype)
        buffer = room if buffer is None else mx.concatenate([buffer[:, :, :start], room], axis=2)
    buffer[:, :, start:end] = new
    return buffer


def _wins_in_numpy(q: mx.array, seen: int) -> bool:
    return (q.shape[2] >= ROWS or seen >= LONG) and blas.on_cpu(q, 1)


def _in_numpy(q: mx.array, keys: mx.array, values: mx.array) -> mx.array:
    """Causal attention of q [B, heads, T, D] on a CPU."""
    B, _, T, D = q.shape
    if T == 1:  # the heads that share keys are the rows of one product
        return blas.attention(q.reshape(B, keys.shape[1], -1, D), keys, values, D**-0.5).reshape(q.shape)
    grouped = q.reshape(B, keys.shape[1], -1, T, D)
    return blas.attention(grouped, keys[:, :, None], values[:, :, None], D**-0.5, causal=True).reshape(q.shape)


def packed(x: mx.array, format: KvFormat) -> list[mx.array]:
    """x [..., D] as it is kept: one array, or packed values, scales and biases."""
    if format.quantised:
        return list(mx.quantize(x, group_size=GROUP, bits=format.bits))
    if format.bits == 16 and x.dtype.size > 2:
        return [x.astype(mx.bfloat16)]
    return [x]


def unpacked(parts: Sequence[mx.array], format: KvFormat) -> mx.array:
    """What was quantised, [..., D]."""
    weight, scales, biases = parts
    return mx.dequantize(weight, scales, biases, group_size=GROUP, bits=format.bits)
