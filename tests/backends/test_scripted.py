"""The scripted engine keeps the promises of every engine, so that tests may stand on it."""

import pytest

from qwen35_local.backends.scripted import ScriptedEngine
from qwen35_local.chat.tokenizer import Tokenizer
from qwen35_local.engine import Message
from qwen35_local.errors import MemoryPlanError, TemplateError, UsageError
from qwen35_local.events import Event, Text


def test_replies_in_order_then_nothing(tokenizer: Tokenizer):
    with ScriptedEngine(tokenizer, ["one", "</think>two"]) as engine:
        answers = [engine.complete("Hi") for _ in range(3)]
    assert [(answer.reasoning, answer.text) for answer in answers] == [("one", ""), ("", "two"), ("", "")]
    assert [request.messages[0].text for request in engine.requests] == ["Hi"] * 3


def test_no_sampling_misses_the_script(tokenizer: Tokenizer):
    engine = ScriptedEngine(tokenizer, ["aaaaaaaa"])
    options = {"temperature": 100, "presence_penalty": 2, "frequency_penalty": 2, "repetition_penalty": 10}
    assert engine.complete("aaa", thinking=False, **options).text == "aaaaaaaa"


def test_token_ids_as_a_reply(tokenizer: Tokenizer):
    engine = ScriptedEngine(tokenizer, [tokenizer.encode("<think>")])
    assert engine.complete("Hi", thinking=False).text == "<think>"


def test_a_failure_in_the_middle(tokenizer: Tokenizer):
    engine = ScriptedEngine(tokenizer, [["some ", MemoryPlanError("no more memory")], "fine"])
    events = engine.chat("Hi", thinking=False)
    shown: list[Event] = []
    with pytest.raises(MemoryPlanError):
        shown.extend(events)
    assert "".join(event.text for event in shown if isinstance(event, Text)) == "some "
    assert engine.complete("Hi", thinking=False).text == "fine"


def test_a_bad_request_is_refused_by_the_call(tokenizer: Tokenizer):
    engine = ScriptedEngine(tokenizer)
    with pytest.raises(TemplateError):
        engine.chat([Message("system", "only")])


def test_closed(tokenizer: Tokenizer):
    engine = ScriptedEngine(tokenizer)
    engine.close()
    with pytest.raises(UsageError, match="closed"):
        engine.chat("Hi")


def test_text_and_tokens(tokenizer: Tokenizer):
    engine = ScriptedEngine(tokenizer)
    assert engine.detokenize(engine.tokenize("<think> é")) == "<think> é"
    assert engine.tokenize("<think>", special=True) == [tokenizer.special["<think>"]]
