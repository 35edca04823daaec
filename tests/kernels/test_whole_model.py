"""The shipped miniature with every kernel run on the CPU machine in place of its reference: the same tokens."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from metal_cpu import metal_on_cpu

import qwen35_local
from metal_kernels.dispatch import Operation
from qwen35_local.backends.mlx import MlxEngine
from qwen35_local.errors import MemoryPlanError

MINIATURE = Path(qwen35_local.__file__).parent / "miniature"
pytestmark = [
    pytest.mark.usefixtures("compiler"),
    pytest.mark.skipif(not (MINIATURE / "model.safetensors").exists(), reason="the miniature is not in this checkout"),
]
PROMPT, TOKENS = 19, 32  # a prompt that is no multiple of a chunk, then single tokens
QUESTION = "<|im_start|>user\nWhat is 17 + 25?<|im_end|>\n<|im_start|>assistant\n<think>\n"


def decode(engine: MlxEngine, ids: list[int], count: int) -> tuple[list[int], np.ndarray]:
    """Greedy tokens, and the logits of every step."""
    session = engine.open_session()
    for _ in session.sync(ids):
        pass
    tokens, logits = [], []
    for _ in range(count):
        logits.append(session.logits())
        tokens.append(int(logits[-1].argmax()))
        session.advance(tokens[-1])
    return tokens, np.stack(logits)


@pytest.fixture
def used(monkeypatch) -> Counter[str]:
    """Every operation takes our kernel, as on a Mac where all were verified and fastest; how often each was asked."""
    asked: Counter[str] = Counter()

    def ours(self: Operation):
        asked[self.name] += 1
        return self.ours

    monkeypatch.setattr(Operation, "best", ours)
    return asked


def test_the_miniature_decodes_the_same_tokens(used, monkeypatch):
    ids = [int(i) for i in np.random.default_rng(0).integers(0, 1024, PROMPT)]
    with MlxEngine(MINIATURE) as engine:
        with metal_on_cpu() as launches:
            tokens, logits = decode(engine, ids, TOKENS)
        monkeypatch.undo()
        expected, expected_logits = decode(engine, ids, TOKENS)
        kinds = engine.config.text.layer_types
    assert tokens == expected
    assert np.abs(logits - expected_logits).max() <= 1e-3 * expected_logits.std()

    layers, recurrent = len(kinds), sum(kind != "full_attention" for kind in kinds)
    assert Counter(launch.name for launch in launches) == {
        "delta_inputs": recurrent * (TOKENS + 1),
        "gated_delta_chunked": recurrent,  # the prompt
        "gated_delta_recurrent": recurrent * TOKENS,
        "router_topk": layers * (TOKENS + 1),
        "expert_gate_up": layers * TOKENS,  # three dispatches a layer and token, with the router
        "expert_down": layers * TOKENS,
    }


def test_guesses_are_made_and_taken_back(used, monkeypatch):
    """Speculation with all kernels: passes over four tokens, and going back to the state after any of them."""
    with MlxEngine(MINIATURE, speculate=3) as engine, MlxEngine(MINIATURE) as plain:
        ids = engine.tokenize(QUESTION, special=True)
        with metal_on_cpu():
            tokens, _ = decode(engine, ids, 16)
        monkeypatch.undo()
        assert tokens == decode(plain, ids, 16)[0]
        assert engine._pace is not None
        counts = engine._pace.report()
        recurrent = sum(kind != "full_attention" for kind in engine.config.text.layer_types)
    passes = used["gated_delta.steps"] // recurrent
    assert passes in (counts["passes"], counts["passes"] + 1)  # nobody read the last one
    assert used["gated_delta.decode"] <= recurrent  # the end of the prompt, no token after it
    assert used["expert_mlp.mxfp4"] > 0
    assert 0 < counts["accepted"] < counts["drafted"] - 3  # beside what the last pass left unjudged


def test_experts_are_streamed(used, monkeypatch):
    """Experts on disk: rows that share slots, those in memory before those that are read."""
    with pytest.raises(MemoryPlanError) as refused:
        MlxEngine(MINIATURE, 1024, memory=1)
    floor = re.search(r"at least ([\d.]+) MB", str(refused.value))
    assert floor is not None
    budget = int(float(floor[1]) * 1e6) + 10**6
    with MlxEngine(MINIATURE, 1024, memory=budget) as engine, MlxEngine(MINIATURE) as plain:
        assert not engine.plan.resident
        ids = engine.tokenize(QUESTION, special=True)
        with metal_on_cpu() as launches:
            tokens, _ = decode(engine, ids, 8)
        monkeypatch.undo()
        assert tokens == decode(plain, ids, 8)[0]
    assert used["expert_rows.mxfp4"] > 0
    assert {"expert_gate_up", "expert_down", "router_topk"} <= {launch.name for launch in launches}
