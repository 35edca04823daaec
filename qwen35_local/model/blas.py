"""Matrix products of many rows on a CPU.

MLX's wheels for Linux multiply with a plain loop (4 GFLOP/s measured, where numpy's OpenBLAS reaches 200 on two cores),
so products of more than a few rows go through numpy. A product of one row stays in MLX, and so do all on Metal.

BLAS may round a row otherwise when other rows stand beside it: callers hand in the same rows however a prompt is split
(see `Qwen35.run`).
"""

from collections.abc import Callable, Iterator

import mlx.core as mx
import numpy as np

PIECE = 1 << 24  # elements of a weight unpacked at once (64 MiB)
SCORES = 1 << 21  # attention scores computed at once: they pass through the caches several times


def on_cpu(x: mx.array, rows: int) -> bool:
    """Whether x [..., in] is float32 on a CPU and has at least this many rows."""
    return x.dtype == mx.float32 and x.size >= rows * x.shape[-1] and not mx.metal.is_available()


def linear(x: mx.array, weight: Callable[[slice], mx.array], outputs: int) -> mx.array:
    """x float32 [..., in] times a weight [out, in], given some of its rows at a time, -> float32 [..., out]"""
    rows = np.asarray(x.reshape(-1, x.shape[-1]))
    y = np.empty((rows.shape[0], outputs), np.float32)
    for piece in _pieces(outputs, max(1, PIECE // x.shape[-1])):
        np.matmul(rows, np.asarray(weight(piece).astype(mx.float32)).T, out=y[:, piece])
    return mx.array(y).reshape(*x.shape[:-1], outputs)


def attention(q: mx.array, k: mx.array, v: mx.array, scale: float, causal: bool = False) -> mx.array:
    """softmax(q k^T * scale) v, of float32 [..., n, D] and twice [..., N, D] -> [..., n, D]

    Leading dimensions are broadcast. If causal, the queries are the last n of the N positions.
    """
    queries, keys, values = (np.asarray(part.astype(mx.float32)) for part in (q, k, v))
    n, length = queries.shape[-2], keys.shape[-2]
    queries = queries * np.float32(scale)
    out = np.empty(queries.shape, np.float32)
    for rows in _pieces(n, max(16, SCORES * n // max(1, queries.size // queries.shape[-1] * length))):
        seen = length - n + min(rows.stop, n) if causal else length
        scores = np.matmul(queries[..., rows, :], keys[..., :seen, :].swapaxes(-1, -2))
        if causal:
            step = scores.shape[-2]
            scores[..., seen - step :] += np.triu(np.full((step, step), -np.inf, np.float32), 1)
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        total = scores.sum(axis=-1, keepdims=True)
        np.divide(np.matmul(scores, values[..., :seen, :]), total, out=out[..., rows, :])
    return mx.array(out)


def _pieces(length: int, step: int) -> Iterator[slice]:
    return (slice(begin, min(begin + step, length)) for begin in range(0, length, step))
