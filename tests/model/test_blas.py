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
