"""Long prompts: pieces of any length give the logits of one pass; stretched positions are those of transformers."""

import json
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

import qwen35_local
from qwen35_local.backends.mlx import MlxEngine
from qwen35_local.errors import UsageError
from qwen35_local.model import attention, qwen35
from qwen35_local.model.config import ModelConfig
from qwen35_local.model.qwen35 import drained


def last_logits(model, ids: np.ndarray, pieces: list[int]) -> np.ndarray:
    """float32 [V] after ids, fed in pieces of these lengths, the last for what is left."""
    state, start, blocks = model.new_state(), 0, []
    while start < len(ids):
        piece = pieces.pop(0) if len(pieces) > 1 else pieces[0]
        blocks, _ = drained(model.run(mx.array(ids[None, start : start + piece]), state))
        start += piece
        mx.eval(state.arrays)
    return np.array(model.logits(model.norm(blocks[-1][:, -1])))[0]


@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    "length", [2048, pytest.param(16384, marks=pytest.mark.slow), pytest.param(100_000, marks=pytest.mark.slow)]
)
def test_pieces_are_as_one(models, monkeypatch, length):
    """Against whole blocks of 8,192, in 64 MB of scores instead of 256: other sums, the same numbers."""
    ids = np.random.default_rng(3).integers(0, 671, length)
    ours = last_logits(models["F32"], ids, [512])
    odd = last_logits(models["F32"], ids, [700, 1, 1299, 4096])
    monkeypatch.setattr(attention, "SCORES", 1 << 26)
    monkeypatch.setattr(qwen35.block_edges, "__defaults__", ((), 8192))
    whole = last_logits(models["F32"], ids, [length])
    for found in (ours, odd):
        assert np.abs(found - whole).max() <= 1e-3
        assert np.linalg.norm(found - whole) <= 1e-4 * np.linalg.norm(whole)


@pytest.mark.parametrize(
    ("context", "factor", "most"), [(None, 1, 512), (512, 1, 512), (513, 2, 1024), (2048, 4, 2048)]
)
def test_a_longer_context_stretches_positions(pristine, context, factor, most):
    with MlxEngine(pristine, context) as engine:
        assert engine.info.yarn == factor
        assert engine.info.context == (context or 512)
        assert engine.config.text.max_position_embeddings == most
        assert engine.model.rope.scale == (1 if factor == 1 else pytest.approx(0.1 * np.log(factor) + 1))


def test_no_stretch_is_enough(pristine):
    with pytest.raises(UsageError, match="context must be from 1 to the model's 512 tokens"):
        qwen35_local.open(pristine, context=2049)


def test_what_stretches_already_is_left_alone(checkpoints):
    released = ModelConfig.from_dict(json.loads((checkpoints["F32-yarn4"] / "config.json").read_text()))
    assert released.stretched(5000) is released
    plain = ModelConfig.from_dict(json.loads((checkpoints["F32"] / "config.json").read_text()))
    ours = plain.stretched(2000).text
    assert ours == replace(released.text, rope=ours.rope)
    assert ours.rope == released.text.rope
