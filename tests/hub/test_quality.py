"""Perplexity, divergence and agreement: against formulas, and on conversions of the miniature's kind."""

import json
from pathlib import Path

import numpy as np
import pytest

from qwen35_local.cli import main
from qwen35_local.commands.compare import _routers
from qwen35_local.gguf.convert import Types, convert
from qwen35_local.hub.quality import ROWS, _agreement, agreement, shared_experts


def test_against_the_formulas():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(2, 6, 5)).astype(np.float32)
    ids = [0, 3, 1, 4, 2, 2]
    p, q = (np.exp(x[:-1]) / np.exp(x[:-1]).sum(-1, keepdims=True) for x in (a, b))
    found = agreement(a, b, ids).summary()
    assert found["perplexity_a"] == pytest.approx(np.exp(-np.log(p[range(5), ids[1:]]).mean()), rel=1e-5)
    assert found["perplexity_b"] == pytest.approx(np.exp(-np.log(q[range(5), ids[1:]]).mean()), rel=1e-5)
    assert found["kl"] == pytest.approx((p * np.log(p / q)).sum(-1).mean(), rel=1e-4)
    assert found["top1"] == (p.argmax(-1) == q.argmax(-1)).mean()


def test_windows_add_up_and_a_model_agrees_with_itself():
    x = np.random.default_rng(4).normal(size=(9, 7)).astype(np.float32)
    one = agreement(x, x, [*range(7), 0, 1])
    both = one + one
    assert both.tokens == 16
    assert both.summary() == pytest.approx(one.summary())
    assert (one.divergence, one.summary()["top1"]) == (0, 1)


def test_shared_experts():
    a = np.array([[0, 1, 2, 3], [4, 5, 6, 7]])
    b = np.array([[3, 2, 8, 9], [4, 5, 6, 7]])
    assert shared_experts(a, b) == 0.75


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    text = tmp_path / "text.txt"
    text.write_text("The capital of France is Paris. Two and two make four.\n" * 2)
    with pytest.raises(SystemExit) as exit_:
        main(["compare", "miniature", "miniature", "--text", str(text), "--tokens", "40", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert exit_.value.code == 0
    assert 30 < found["tokens"] < 40
    assert found["kl"] == 0
    assert found["routers"] == [1.0] * 8
    assert list(_routers([0.5, 0.25, *[1.0] * 10]))[1:] == [
        "           0 to 7   50.0  25.0 100.0 100.0 100.0 100.0 100.0 100.0",
        "          8 to 11  100.0 100.0 100.0 100.0",
    ]
    assert "least in layer 1" in next(_routers([0.5, 0.25, *[1.0] * 10]))
    chats = tmp_path / "chats.jsonl"
    turns = [{"role": "user", "content": "What is 20 + 3?"}, {"role": "assistant", "content": "23"}]
    chats.write_text(json.dumps({"messages": turns}) + "\n")
    with pytest.raises(SystemExit):
        main(["compare", "miniature", "miniature", "--chats", str(chats)])
    assert "same first choice  100.00 %" in capsys.readouterr().out
    chats.write_text("{}\n")
    with pytest.raises(SystemExit) as exit_:
        main(["compare", "miniature", "miniature", "--chats", str(chats)])
    assert "line 1 of the chats is not a conversation" in capsys.readouterr().err
    with pytest.raises(SystemExit) as exit_:
        main(["compare", "miniature", "miniature", "--text", str(tmp_path / "none")])
    assert exit_.value.code == 2


def test_many_tokens_are_judged_in_pieces():
    rng = np.random.default_rng(4)
    a, b = (rng.standard_normal((3 * ROWS + 5, 40), np.float32) for _ in "ab")
    ids = rng.integers(0, 40, 3 * ROWS + 5).tolist()
    whole, ours = _agreement(a[6:-1], b[6:-1], np.array(ids[7:])), agreement(a, b, ids, 7)
    assert (ours.tokens, ours.same_top, ours.worst) == (whole.tokens, whole.same_top, whole.worst)
    np.testing.assert_allclose(ours.divergence, whole.divergence)


def test_a_gguf_file_against_its_source(pristine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """In float32 it is the same model; which experts it takes is not told."""
    pytest.importorskip("llama_cpp")
    out, text = tmp_path / "tiny.gguf", tmp_path / "text.txt"
    for _ in convert(pristine, out, Types("f32", "f32")):
        pass
    text.write_text("The quick brown fox jumps over the lazy dog. " * 4)
    with pytest.raises(SystemExit) as exit_:
        main(["compare", str(pristine), str(out), "--text", str(text), "--tokens", "40"])
    said = capsys.readouterr().out
    assert exit_.value.code == 0
    assert "same first choice  100.00 %" in said
    assert "same experts       not told" in said
