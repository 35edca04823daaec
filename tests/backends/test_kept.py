"""Sessions that outlive their process: the same tokens as without a break, and refusals that lose nothing."""

import shutil

import numpy as np
import pytest
from make_checkpoint import write

import qwen35_local
from qwen35_local.backends.scripted import ScriptedEngine
from qwen35_local.engine import Message
from qwen35_local.errors import SessionError, UsageError

OPTIONS = {"max_tokens": 12, "temperature": 0, "thinking": False}
SYSTEM = Message("system", "Be terse. " * 10)


def talk(engine, directory, questions, name="notes", compress=False):
    """Ask, as `qwen35 chat --session` does; the answers' statistics."""
    kept = engine.keep(name, directory, compress)
    messages, found = list(kept.messages or (SYSTEM,)), []
    for question in questions:
        messages.append(Message("user", question))
        answer = engine.complete(messages, **OPTIONS)
        messages.append(answer.message)
        kept.remember(messages)
        found.append(answer)
    return kept, found


@pytest.mark.parametrize("compress", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_conversation_goes_on_in_another_process(open_local, tmp_path, compress):
    with open_local("mlx") as engine:
        _, through = talk(engine, tmp_path / "a", ["One", "Two", "Three"])
    with open_local("mlx") as engine:
        kept, first = talk(engine, tmp_path / "b", ["One", "Two"], compress=compress)
        assert kept.resumed == 0
    with open_local("mlx") as engine:
        kept, (third,) = talk(engine, tmp_path / "b", ["Three"])
        assert kept.resumed == first[-1].done.usage.prompt_tokens + first[-1].done.usage.completion_tokens - 1
        assert third.text == through[2].text
        assert third.done.usage == through[2].done.usage, "as much was reused as without a break"
        assert third.done.usage.cached_tokens > 0
        assert [m.role for m in kept.messages] == ["system"] + ["user", "assistant"] * 3


def test_both_backends_go_on(open_local, tmp_path):
    with open_local("llama.cpp") as engine:
        talk(engine, tmp_path, ["One", "Two"])
    with open_local("llama.cpp") as engine:
        kept, (third,) = talk(engine, tmp_path, ["Three"])
        assert kept.resumed > 0
        fresh = third.done.usage.prompt_tokens - third.done.usage.cached_tokens
        assert fresh < third.done.usage.prompt_tokens // 2
        again = engine.open_session()
        for _ in again.sync(list(engine.sessions[-1].ids)[:-3]):
            pass
        again.close()
    with open_local("mlx") as engine, pytest.raises(SessionError, match="was saved with tiny"):
        engine.keep("notes", tmp_path)


def test_llama_cpp_goes_on_exactly(open_local, tmp_path):
    with open_local("llama.cpp") as engine:
        talk(engine, tmp_path, ["One", "Two"])
        ids = list(engine.sessions[-1].ids)
        fresh = engine.open_session()
        for _ in fresh.sync(ids):
            pass
        fresh.advance(5)
        expected = fresh.logits().copy()
        fresh.close()
    with open_local("llama.cpp") as engine:
        engine.keep("notes", tmp_path)
        session = engine.sessions[-1]
        assert list(session.ids) == ids
        session.advance(5)
        np.testing.assert_allclose(session.logits(), expected, atol=2e-4)
    refusal = "was saved with KV cache type 0, and this is 8"
    with open_local("llama.cpp", kv_bits=8, dtype="auto") as engine, pytest.raises(SessionError, match=refusal):
        engine.keep("notes", tmp_path)


def test_logits_after_resuming_are_those_before(open_local, tmp_path):
    with open_local("mlx") as engine:
        talk(engine, tmp_path, ["One"])
        before = engine.sessions[-1].logits().copy()
    with open_local("mlx") as engine:
        engine.keep("notes", tmp_path)
        session = engine.sessions[-1]
        np.testing.assert_array_equal(session.logits(), before)
        session.advance(5)
        after = session.logits()
        fresh = engine.open_session()
        for _ in fresh.sync(list(session.ids)):
            pass
        np.testing.assert_allclose(after, fresh.logits(), atol=2e-4)


def test_guessing_goes_on_too(tmp_path):
    for questions in (["What is 3 + 4?"], ["What is 30 + 40?"]):
        with qwen35_local.open("miniature", speculate=2) as engine:
            _, (answer,) = talk(engine, tmp_path, questions)
    with qwen35_local.open("miniature") as engine:  # without the head, and then with it again
        talk(engine, tmp_path, ["What is 1 + 1?"])
    with qwen35_local.open("miniature", speculate=2) as engine:
        _, (answer,) = talk(engine, tmp_path, ["What is 2 + 2?"])
        assert answer.done.usage.cached_tokens > 0
    with qwen35_local.open("miniature") as engine:
        _, whole = talk(
            engine, tmp_path / "new", ["What is 3 + 4?", "What is 30 + 40?", "What is 1 + 1?", "What is 2 + 2?"]
        )
    assert whole[-1].text == answer.text


def test_other_models_and_terms_are_refused_and_nothing_is_lost(open_local, pristine, tmp_path):
    with open_local("mlx") as engine:
        talk(engine, tmp_path, ["One"])
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def refused(sentence: str, path=pristine, **options) -> None:
        with qwen35_local.open(path, **options) as engine, pytest.raises(SessionError, match=sentence):
            engine.keep("notes", tmp_path)
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == files

    other = write(tmp_path.parent / "other", "tiny", "F32", seed=1)
    shutil.copy(pristine / "tokenizer.json", other)
    refused(r"was saved with tiny \(revision [0-9a-f]{16}\), and this is other \(revision", other)
    refused("was saved with kv_bits None, and this is 8", kv_bits=8)
    refused("was saved with reproducible False, and this is True", reproducible=True)
    refused(r"has \d+ tokens, and the context is 20: load a longer one", context=20)
    state = tmp_path / "notes.state"
    whole = state.read_bytes()
    for damaged, sentence in ((whole[:-100], "is cut"), (whole[:5000] + b"?" + whole[5001:], "another checksum")):
        state.write_bytes(damaged)
        files[state] = damaged
        refused(sentence)
    state.write_bytes(whole)
    with open_local("mlx") as engine:
        kept = engine.keep("notes", tmp_path)
        assert kept.resumed > 0
        with pytest.raises(SessionError, match="in use by another process"):
            engine.keep("notes", tmp_path)


def test_engines_without_states_say_so(tokenizer):
    with ScriptedEngine(tokenizer) as engine, pytest.raises(UsageError, match="kept by the process that has the model"):
        engine.keep("notes")
