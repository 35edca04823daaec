"""Products on a CPU, against float64."""

import mlx.core as mx
import numpy as np
import pytest

from qwen35_local.model import blas


@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(1, 8, 3), (16, 100, 65), (64, 64, 64), (200, 130, 70)])
def test_equals_float64(rows, inputs, outputs, monkeypatch):
    monkeypatch.setattr(blas, "PIECE", 16 * inputs)  # several pieces
    rng = np.random.default_rng(rows)
    x, w = rng.normal(size=(2, rows, inputs)), rng.normal(size=(outputs, inputs))
    weight = mx.array(w.astype(np.float32))
    y = np.array(blas.linear(mx.array(x.astype(np.float32)), lambda piece: weight[piece], outputs))
    assert y.shape == (2, rows, outputs)
    np.testing.assert_allclose(y, x @ w.T, rtol=0, atol=1e-5 * np.sqrt(inputs))


@pytest.mark.parametrize(("queries", "length", "causal"), [(5, 5, True), (7, 19, True), (40, 40, True), (6, 9, False)])
def test_attention_is_that_of_the_formula(monkeypatch, queries, length, causal):
    monkeypatch.setattr(blas, "SCORES", 4 * 16 * length)  # several pieces
    random = np.random.default_rng(queries)
    q = random.normal(size=(1, 2, 3, queries, 8)).astype(np.float32)  # 2 groups of 3 heads
    k, v = random.normal(size=(2, 1, 2, 1, length, 8)).astype(np.float32)
    scores = 0.3 * np.einsum("bghnd,bgxNd->bghnN", q.astype(np.float64), k.astype(np.float64))
    if causal:
        scores[..., np.triu(np.ones((queries, length), bool), length - queries + 1)] = -np.inf
    share = np.exp(scores - scores.max(-1, keepdims=True))
    share /= share.sum(-1, keepdims=True)
    expected = np.einsum("bghnN,bgxNd->bghnd", share, v.astype(np.float64))
    y = np.array(blas.attention(mx.array(q), mx.array(k), mx.array(v), 0.3, causal))
    np.testing.assert_allclose(y, expected, atol=2e-6)
