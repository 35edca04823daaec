"""The MTP head against its equations in numpy, float64, and against itself in pieces."""

import mlx.core as mx
import numpy as np
import pytest
from tiny import opened

from qwen35_local.model.config import ModelConfig
from qwen35_local.model.mtp import has_head
from qwen35_local.model.qwen35 import Qwen35
from qwen35_local.model.rope import inverse_frequencies

IDS = np.random.default_rng(3).integers(0, 600, 40)


@pytest.fixture(scope="module")
def model(checkpoints) -> Qwen35:
    weights, config = opened(checkpoints["F32"])
    assert has_head(weights.tensors)
    return Qwen35(weights, config.text, mtp=True)


@pytest.fixture(scope="module")
def raw(checkpoints) -> dict[str, np.ndarray]:
    arrays = {}
    for file in sorted(checkpoints["F32"].glob("*.safetensors")):
        arrays |= {name: np.array(array, np.float64) for name, array in mx.load(str(file)).items()}  # pyright: ignore
    return arrays


def norm(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * (1 + w)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def mlp(raw: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    gate, up, down = (raw[f"{name}.{part}_proj.weight"] for part in ("gate", "up", "down"))
    hidden = x @ gate.T
    return (hidden * sigmoid(hidden) * (x @ up.T)) @ down.T


def head(raw: dict[str, np.ndarray], config: ModelConfig, hidden: np.ndarray, followers: np.ndarray) -> np.ndarray:
    """hidden [T, H] of tokens t, followers [T] -> logits [T, V] for tokens t + 2, by the definitions."""
    c, T, layer = config.text, len(hidden), "mtp.layers.0"
    embedded = raw["model.language_model.embed_tokens.weight"][followers]
    parts = [
        norm(embedded, raw["mtp.pre_fc_norm_embedding.weight"]),
        norm(hidden, raw["mtp.pre_fc_norm_hidden.weight"]),
    ]
    x = np.concatenate(parts, axis=-1) @ raw["mtp.fc.weight"].T
    y = norm(x, raw[f"{layer}.input_layernorm.weight"])
    D, heads, groups = c.head_dim, c.num_attention_heads, c.num_key_value_heads
    q, gate = np.split((y @ raw[f"{layer}.self_attn.q_proj.weight"].T).reshape(T, heads, 2 * D), 2, axis=-1)
    k = (y @ raw[f"{layer}.self_attn.k_proj.weight"].T).reshape(T, groups, D)
    v = (y @ raw[f"{layer}.self_attn.v_proj.weight"].T).reshape(T, groups, D)
    frequencies, _ = inverse_frequencies(c.rope)
    angle, half = np.arange(T)[:, None] * frequencies.astype(np.float64), len(frequencies)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]

    def turned(z: np.ndarray) -> np.ndarray:
        a, b = z[..., :half], z[..., half : 2 * half]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin, z[..., 2 * half :]], axis=-1)

    q = turned(norm(q, raw[f"{layer}.self_attn.q_norm.weight"]))
    k = turned(norm(k, raw[f"{layer}.self_attn.k_norm.weight"]))
    out = np.zeros((T, heads, D))
    for h in range(heads):
        scores = q[:, h] @ k[:, h // (heads // groups)].T / np.sqrt(D)
        scores[np.triu_indices(T, 1)] = -np.inf
        p = np.exp(scores - scores.max(-1, keepdims=True))
        out[:, h] = p / p.sum(-1, keepdims=True) @ v[:, h // (heads // groups)]
    x = x + (out * sigmoid(gate)).reshape(T, -1) @ raw[f"{layer}.self_attn.o_proj.weight"].T
    y = norm(x, raw[f"{layer}.post_attention_layernorm.weight"])
    p = np.exp(y @ raw[f"{layer}.mlp.gate.weight"].T)
    total = sigmoid(y @ raw[f"{layer}.mlp.shared_expert_gate.weight"].T) * mlp(raw, f"{layer}.mlp.shared_expert", y)
    for t in range(T):
        best = np.argsort(-p[t])[: c.num_experts_per_tok]
        for e in best:
            total[t] += p[t, e] / p[t, best].sum() * mlp(raw, f"{layer}.mlp.experts.{e}", y[t])
    return norm(x + total, raw["mtp.norm.weight"]) @ raw["lm_head.weight"].T


def test_the_head_is_its_equations(model, raw, checkpoints):
    _, config = opened(checkpoints["F32"])
    state = model.new_state()
    hidden = model(mx.array(IDS[None]), state)
    rows, followers = hidden[:, :-1], IDS[1:]
    embedded = model.embed_tokens.rows(mx.array(followers[None]), mx.float32)
    ours = np.array(model.logits(model.mtp(rows, embedded, model.rope, state)))[0]
    expected = head(raw, config, np.array(rows[0], np.float64), followers)
    assert np.abs(ours - expected).max() <= 5e-4
    assert (ours.argmax(-1) == expected.argmax(-1)).all()
    assert state.mtp.length == len(IDS) - 1


def test_drafts_are_the_same_however_the_prompt_was_read(model):
    drafts = []
    for pieces in ([40], [13, 27], [1] * 40):
        state, read = model.new_state(), 0
        for length in pieces:
            hidden = model(mx.array(IDS[None, read : read + length]), state)
            read += length
            model.see(state, hidden, IDS[:read].tolist())
        assert state.mtp.length == 39
        tail = np.array(state.tail)
        drafts.append(np.array(model.draft(state, [*IDS.tolist(), 5], 3)))
        assert state.mtp.length == 40  # the guesses' own rows are gone
        assert tail.shape == (1, 1, 128)
    assert all((other == drafts[0]).all() for other in drafts)
    assert drafts[0].shape == (1, 3)


@pytest.mark.parametrize("kept", [1, 2, 3, 4])
def test_a_trail_leads_back_to_every_token(model, kept):
    """The state after some of the tokens is that of reading only them, without reading anything again."""
    first, more = IDS[:20].tolist(), IDS[20:24].tolist()
    state, alone = model.new_state(), model.new_state()
    for each in (state, alone):
        model(mx.array([first]), each)
    state.record()
    model(mx.array([more]), state)
    state.back_to(20 + kept, 20)
    for token in more[:kept]:
        model(mx.array([[token]]), alone)
    for ours, theirs in zip(state.snapshot().recurrent, alone.snapshot().recurrent, strict=True):
        np.testing.assert_allclose(np.array(ours.delta), np.array(theirs.delta), atol=1e-5)
        np.testing.assert_allclose(np.array(ours.conv), np.array(theirs.conv), atol=1e-5)
    state.forget_trail()
    ours, theirs = (np.array(model.logits(model(mx.array([[7]]), each))) for each in (state, alone))
    np.testing.assert_allclose(ours, theirs, atol=2e-4)
    assert state.tokens == alone.tokens == 21 + kept
