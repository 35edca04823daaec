"""The shipped miniature with every kernel run on the CPU machine in place of its reference: the same tokens."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from metal_cpu import metal_on_cpu

import qwen35_local
from metal_kernels.dispatch import Operation
from qwen35_local.backends.mlx import MlxEngine

pytestmark = pytest.mark.usefixtures("compiler")
MINIATURE = Path(qwen35_local.__file__).parent / "miniature"
PROMPT, TOKENS = 19, 32  # a prompt that is no multiple of a chunk, then single tokens


def decode(engine: MlxEngine) -> tuple[list[int], np.ndarray]:
    """Greedy tokens, and the logits of every step."""
    session = engine.open_session()
    ids = [int(i) for i in np.random.default_rng(0).integers(0, 1024, PROMPT)]
    for _ in session.sync(ids):
        pass
    tokens, logits = [], []
    for _ in range(TOKENS):
        logits.append(session.logits())
        tokens.append(int(logits[-1].argmax()))
        session.advance(tokens[-1])
    return tokens, np.stack(logits)


@pytest.fixture
def all_kernels(monkeypatch):
    """Every operation takes our kernel, as on a Mac where all were verified and fastest."""
    monkeypatch.setattr(Operation, "best", lambda self: self.ours)


@pytest.mark.skipif(not (MINIATURE / "model.safetensors").exists(), reason="the miniature is not in this checkout")
def test_the_miniature_decodes_the_same_tokens(all_kernels, monkeypatch):
    engine = MlxEngine(MINIATURE)
    with metal_on_cpu() as launches:
        tokens, logits = decode(engine)
    monkeypatch.undo()
    expected, expected_logits = decode(engine)
    assert tokens == expected
    assert np.abs(logits - expected_logits).max() <= 1e-3 * expected_logits.std()

    layers = len(engine.config.text.layer_types)
    recurrent = sum(kind != "full_attention" for kind in engine.config.text.layer_types)
    count = Counter(launch.name for launch in launches)
    assert count == {
        "delta_inputs": recurrent * (TOKENS + 1),
        "gated_delta_chunked": recurrent,  # the prompt
        "gated_delta_recurrent": recurrent * TOKENS,
        "router_topk": layers * (TOKENS + 1),
        "expert_gate_up": layers * TOKENS,  # three dispatches a layer and token, with the router
        "expert_down": layers * TOKENS,
    }
