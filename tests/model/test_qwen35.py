"""The whole text model against recorded logits of transformers (tests/golden/tiny.json), float32 on a CPU."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from make_checkpoint import PRESETS, draw, encode, tensors, write_safetensors
from tiny import CASES, load


def assert_close(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert np.abs(ours - theirs).max() <= 5e-4
    assert np.linalg.norm(ours - theirs) <= 3e-5 * np.linalg.norm(theirs)


@pytest.mark.parametrize("length", [1, 7, 64, 70, 130])
@pytest.mark.parametrize("case", CASES)
def test_whole_prompt(models, golden, logits_of, case, length):
    ids, logits = golden[f"{case}.ids"][:length], golden[f"{case}.logits"][:length]
    assert_close(logits_of(models[case], ids), logits)


@pytest.mark.parametrize("pieces", [[1] * 70, [64, 6], [37, 33], [2, 1, 3, 64]])
@pytest.mark.parametrize("case", CASES)
def test_pieces(models, golden, logits_of, case, pieces):
    ids, logits = golden[f"{case}.ids"][:70], golden[f"{case}.logits"][:70]
    assert_close(logits_of(models[case], ids, pieces), logits)


def test_yarn_moves_the_logits(golden):
    plain, yarn = golden["F32.logits"][:70], golden["F32-yarn4.logits"][:70]
    assert np.array_equal(golden["F32.ids"][:70], golden["F32-yarn4.ids"][:70])
    assert np.linalg.norm(plain - yarn) > 1e-2 * np.linalg.norm(plain)


def test_greedy_continuation(models, golden):
    model, state, token = models["F32"], models["F32"].new_state(), None
    hidden, tokens = model(mx.array(golden["F32.ids"][None]), state), []
    for _ in range(len(golden["F32.greedy"])):
        token = int(model.logits(hidden[:, -1:]).argmax())
        tokens.append(token)
        hidden = model(mx.array([[token]]), state)
    assert tokens == golden["F32.greedy"].tolist()


def test_bfloat16_activations_stay_near(models, golden, logits_of, checkpoints):
    """A smoke test of the Mac's default: MLX's CPU arithmetic in bfloat16 is itself wrong by percents."""
    model = load(checkpoints["BF16"], mx.bfloat16)
    ours, theirs = logits_of(model, golden["BF16.ids"][:7]), golden["BF16.logits"][:7]
    assert np.linalg.norm(ours - theirs) <= 0.15 * np.linalg.norm(theirs)


def test_snapshot_brings_the_state_back(models, golden):
    model, ids = models["F32"], golden["F32.ids"]
    state = model.new_state()
    model(mx.array(ids[None, :40]), state)
    snapshot = state.snapshot()
    first = model.logits(model(mx.array(ids[None, 40:70]), state))
    state.restore(snapshot)
    assert state.tokens == 40
    assert mx.array_equal(model.logits(model(mx.array(ids[None, 40:70]), state)), first)


def families() -> list[str]:
    """Tensor names without their layer, as the text model uses them: `linear_attn.A_log`, `mlp.gate.weight`, …"""
    found = []
    for name, shape, _ in tensors(PRESETS["tiny"]):
        family = name.removeprefix("model.language_model.")
        if family.startswith("layers."):
            family = family.split(".", 2)[2]
        if not name.startswith("mtp.") and family not in found and np.prod(shape) > 1:
            found.append(family)
    return found


@pytest.mark.parametrize("family", families())
def test_every_family_of_tensors_moves_the_logits(family, checkpoints, golden, logits_of, tmp_path):
    """A test of the tests: were a family ignored, or put in another's place, the parity above would notice."""
    source = checkpoints["F32"]
    (tmp_path / "config.json").write_text((source / "config.json").read_text())
    entries = []
    for index, (name, shape, kind) in enumerate(tensors(PRESETS["tiny"])):
        values = draw(np.random.default_rng([0, index]), shape, kind)
        if name.endswith(family) and not name.startswith("mtp."):
            flat = values.reshape(-1).copy()
            np.random.default_rng(5).shuffle(flat)
            values = flat.reshape(shape)
        entries.append((name, "F32", shape, encode(values, "F32")))
    write_safetensors(tmp_path / "model.safetensors", entries)
    ids, logits = golden["F32.ids"][:64], golden["F32.logits"][:64]
    moved = logits_of(load(tmp_path), ids)
    assert np.linalg.norm(moved - logits) > 0.2 * np.linalg.norm(logits)


def test_golden_vectors_have_provenance():
    provenance = json.loads((Path(__file__).parent.parent / "golden" / "tiny.json").read_text())
    assert {"made_by", "transformers", "torch"} <= set(provenance)
