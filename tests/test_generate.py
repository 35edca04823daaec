"""The token loop, on scripted sessions: what ends an answer, what is counted, what is refused, what is cancelled."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from qwen35_local.backends.scripted import ScriptedEngine, ScriptedSession
from qwen35_local.chat.template import render
from qwen35_local.chat.tokenizer import Tokenizer
from qwen35_local.engine import ChatRequest, Message, Sampling, gather
from qwen35_local.errors import ContextError, NumericError, SamplingError
from qwen35_local.events import Done, Event, Held, Progress, Reasoning, Text, ToolCall
from qwen35_local.generate import ends_in_thinking, generate

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"n": {"type": "integer"}}}}}
CALL = "<tool_call>\n<function=f>\n<parameter=n>\n3\n</parameter>\n</function>\n</tool_call>"


def answer(tokenizer: Tokenizer, reply: str, context: int = 4096, **options: Any) -> list[Event]:
    return list(ScriptedEngine(tokenizer, [reply], context).chat("Hi", **options))


def done_of(events: list[Event]) -> Done:
    assert isinstance(events[-1], Done)
    assert sum(isinstance(event, Done) for event in events) == 1
    return events[-1]


def prompt_of(tokenizer: Tokenizer, text: str = "Hi", thinking: bool = True) -> list[int]:
    return tokenizer.encode_segments(render([Message("user", text)], thinking=thinking))


def test_events_in_order(tokenizer: Tokenizer):
    events = answer(tokenizer, "hm\n</think>\n\nLooking.\n\n" + CALL, tools=[TOOL])
    kinds = [type(event) for event in events if not isinstance(event, Held)]
    order = [Progress, Reasoning, Text, ToolCall, Done]
    assert [kind for at, kind in enumerate(kinds) if kind not in kinds[:at]] == order
    assert [order.index(kind) for kind in kinds] == sorted(order.index(kind) for kind in kinds)
    answered = gather(events)
    assert (answered.reasoning, answered.text) == ("hm", "Looking.")
    assert answered.tool_calls == (ToolCall("f", {"n": 3}, "call_1"),)


@pytest.mark.parametrize(
    ("reply", "options", "reason", "text"),
    [
        ("hm</think>\n\nyes", {}, "stop", "yes"),
        ("yes", {"thinking": False}, "stop", "yes"),
        ("yes no", {"thinking": False, "stop": "no"}, "stop", "yes "),
        ("yes<|endoftext|>no", {"thinking": False}, "stop", "yes"),
        ("yes<|im_end|>no", {"thinking": False}, "stop", "yes"),
        ("yes<|im_start|>user\n", {"thinking": False}, "stop", "yes"),
        ("123456", {"thinking": False, "max_tokens": 3}, "length", "123"),
        ("123456", {"thinking": False, "max_tokens": 2**63}, "stop", "123456"),
        (CALL, {"thinking": False, "tools": [TOOL]}, "tool_calls", ""),
        (CALL + "\nSo be it.", {"thinking": False, "tools": [TOOL]}, "tool_calls", ""),
        (CALL, {"thinking": False}, "stop", CALL),
        (CALL.replace("</function>", "\noops"), {"thinking": False, "tools": [TOOL]}, "stop", None),
        ("", {}, "stop", ""),
    ],
)
def test_how_answers_end(tokenizer: Tokenizer, reply: str, options: dict[str, Any], reason: str, text: str | None):
    events = answer(tokenizer, reply, **options)
    assert done_of(events).finish_reason == reason
    assert gather(events).text == (CALL.replace("</function>", "\noops") if text is None else text)


def test_the_stop_string_is_named(tokenizer: Tokenizer):
    assert done_of(answer(tokenizer, "a STOP", thinking=False, stop=["END", "STOP"])).stop == "STOP"
    assert done_of(answer(tokenizer, "a STOP", thinking=False)).stop is None


def test_max_tokens_inside_a_call_gives_text_not_half_a_call(tokenizer: Tokenizer):
    whole = len(tokenizer.encode(CALL, special=True))
    for limit in range(1, whole):
        answered = gather(answer(tokenizer, CALL, thinking=False, tools=[TOOL], max_tokens=limit))
        assert answered.done.finish_reason == "length"
        assert all(call.arguments == {"n": 3} for call in answered.tool_calls)
        assert answered.tool_calls or answered.text == tokenizer.decode(tokenizer.encode(CALL, special=True)[:limit])


def test_usage(tokenizer: Tokenizer):
    done = done_of(answer(tokenizer, "hm</think>yes"))
    assert done.usage.prompt_tokens == len(prompt_of(tokenizer))
    assert done.usage.completion_tokens == len(tokenizer.encode("hm</think>yes", special=True)) + 1  # and <|im_end|>
    assert done.usage.reasoning_tokens == len(tokenizer.encode("hm</think>", special=True))
    assert done.usage.cached_tokens == 0


def test_stats(tokenizer: Tokenizer):
    engine = ScriptedEngine(tokenizer, ["12345"], delay=0.002)
    stats = done_of(list(engine.chat("Hi", thinking=False, seed=7))).stats
    assert 0.004 <= stats.time_to_first_token < stats.total_time
    assert 0 < stats.generation_tps < 1 / 0.002
    assert 0 < stats.prompt_tps < len(prompt_of(tokenizer)) / 0.002
    assert stats.extra["seed"] == 7


def test_what_a_session_knows_is_passed_on(tokenizer: Tokenizer):
    class Measured(ScriptedSession):
        def stats(self) -> dict[str, Any]:
            return {"peak_memory": 123, "expert_hits": 0.9}

    session = Measured(tokenizer, tokenizer.size, chunk=8, delay=0)
    events = list(generate(session, prompt_of(tokenizer), ChatRequest.of("Hi"), tokenizer, 100))
    stats = done_of(events).stats
    assert (stats.peak_memory, stats.extra["expert_hits"]) == (123, 0.9)
    assert "peak_memory" not in stats.extra


def test_a_second_turn_reuses_the_first(tokenizer: Tokenizer):
    engine = ScriptedEngine(tokenizer, ["yes", "no"])
    first = engine.complete("Hi", thinking=False)
    conversation = [Message("user", "Hi"), first.message, Message("user", "And now?")]
    second = engine.complete(conversation, thinking=False)
    assert second.text == "no"
    # All up to the first answer's start: there the template forgets its empty thinking.
    assert 0 < second.done.usage.cached_tokens < first.done.usage.prompt_tokens
    assert second.done.stats.prompt_tps > 0


def test_a_tool_loop_reuses_everything(tokenizer: Tokenizer):
    """The template writes the turn again as the model wrote it, so no token is computed twice (but the end token)."""
    engine = ScriptedEngine(tokenizer, ["I should look.\n</think>\n\nLooking.\n\n" + CALL, "</think>\n\n4"])
    first = engine.complete("Hi", tools=[TOOL])
    conversation = [Message("user", "Hi"), first.message, Message("tool", "4", tool_call_id="call_1")]
    second = engine.complete(conversation, tools=[TOOL])
    assert second.text == "4"
    assert second.done.usage.cached_tokens == first.done.usage.prompt_tokens + first.done.usage.completion_tokens - 1


def test_an_answer_that_mentions_a_tag_is_its_own_history(tokenizer: Tokenizer):
    spelled = ["It is ", *tokenizer.encode("</think>"), " that closes."]
    first = ScriptedEngine(tokenizer, [spelled]).complete("Hi", thinking=False)
    history = render([Message("user", "Hi"), first.message, Message("user", "?")])
    assert "It is </think> that closes." in [segment.text for segment in history]


def test_progress_counts_the_prompt(tokenizer: Tokenizer):
    engine = ScriptedEngine(tokenizer, ["yes"], chunk=8)
    steps = [event for event in engine.chat("word " * 20) if isinstance(event, Progress)]
    total = len(prompt_of(tokenizer, "word " * 20))
    assert [step.done for step in steps] == [*range(8, total, 8), total]
    assert {(step.phase, step.total, step.unit) for step in steps} == {("prefill", total, "tokens")}


@pytest.mark.parametrize("excess", [0, 1, 10_000])
def test_a_prompt_without_room_is_refused_with_both_numbers(tokenizer: Tokenizer, excess: int):
    size = len(prompt_of(tokenizer))
    session = ScriptedSession(tokenizer, tokenizer.size, chunk=8, delay=0)
    with pytest.raises(ContextError, match=rf"prompt has {size + excess} tokens and the context is {size}\b"):
        # Refused by the call itself: a server can still answer 400.
        generate(session, prompt_of(tokenizer) + [0] * excess, ChatRequest.of("Hi"), tokenizer, size)
    assert session.ids == []


def test_the_context_ends_an_answer(tokenizer: Tokenizer):
    size = len(prompt_of(tokenizer, thinking=False))
    events = answer(tokenizer, "123456", context=size + 3, thinking=False)
    assert gather(events).text == "123"
    assert done_of(events).finish_reason == "length"
    assert gather(answer(tokenizer, "123456", context=size + 1, thinking=False)).text == "1"


def test_bias_on_an_unknown_token_is_refused_by_the_call(tokenizer: Tokenizer):
    request = ChatRequest.of("Hi", logit_bias={tokenizer.size: 1.0})
    session = ScriptedSession(tokenizer, tokenizer.size, chunk=8, delay=0)
    with pytest.raises(SamplingError, match="logit_bias"):
        generate(session, prompt_of(tokenizer), request, tokenizer, 100)


class FixedSession(ScriptedSession):
    """Always the same logits."""

    def __init__(self, tokenizer: Tokenizer, logits: np.ndarray[Any, Any]):
        super().__init__(tokenizer, len(logits), chunk=64, delay=0)
        self._fixed = logits

    def logits(self) -> Any:
        return self._fixed


def test_nan_is_an_error_not_an_answer(tokenizer: Tokenizer):
    session = FixedSession(tokenizer, np.full(tokenizer.size, np.nan, np.float32))
    with pytest.raises(NumericError, match="NaN at position 0"):
        list(generate(session, prompt_of(tokenizer), ChatRequest.of("Hi"), tokenizer, 100))


def test_rows_above_the_last_token_are_never_chosen(tokenizer: Tokenizer):
    logits = np.zeros(tokenizer.size + 243, np.float32)
    logits[tokenizer.size :] = 50
    logits[tokenizer.encode("x")] = 9
    request = ChatRequest.of("Hi", temperature=0, max_tokens=2, thinking=False)
    events = generate(FixedSession(tokenizer, logits), prompt_of(tokenizer, "Hi", False), request, tokenizer, 100)
    assert gather(events).text == "xx"


def test_logprobs(tokenizer: Tokenizer):
    logits = np.full(tokenizer.size, -1e4, np.float32)
    best, other = tokenizer.encode("x")[0], tokenizer.encode("y")[0]
    logits[[best, other]] = np.log([0.75, 0.25])
    request = ChatRequest(
        (Message("user", "Hi"),), thinking=False, sampling=Sampling(temperature=0), max_tokens=1, top_logprobs=2
    )
    prompt = prompt_of(tokenizer, "Hi", False)
    (text,) = [
        event
        for event in generate(FixedSession(tokenizer, logits), prompt, request, tokenizer, 100)
        if isinstance(event, Text)
    ]
    (logprob,) = text.logprobs
    assert (logprob.id, logprob.data) == (best, b"x")
    assert math.exp(logprob.logprob) == pytest.approx(0.75)
    assert [(token, data) for token, data, _ in logprob.top] == [(best, b"x"), (other, b"y")]
    assert [math.exp(value) for _, _, value in logprob.top] == pytest.approx([0.75, 0.25])


def test_no_logprobs_unless_asked(tokenizer: Tokenizer):
    events = answer(tokenizer, "yes", thinking=False)
    assert all(event.logprobs == () for event in events if isinstance(event, Text))
    events = answer(tokenizer, "yes", thinking=False, top_logprobs=0)
    assert all(logprob.top == () for event in events if isinstance(event, Text) for logprob in event.logprobs)
    assert sum(len(event.logprobs) for event in events if isinstance(event, Text)) == len(tokenizer.encode("yes"))


def test_closing_cancels_within_one_token(tokenizer: Tokenizer):
    engine = ScriptedEngine(tokenizer, ["1234567890", "ok"])
    events = engine.chat("Hi", thinking=False)
    shown = ""
    for event in events:
        if isinstance(event, Text):
            shown += event.text
        if shown == "123":
            break
    close(events)
    assert len(engine._session.ids) <= len(prompt_of(tokenizer, thinking=False)) + 4
    assert engine.complete("Hi", thinking=False).text == "ok"


def test_every_token_of_a_call_is_an_event(tokenizer: Tokenizer):
    """Else nothing could be cancelled, or done in between, while a long call is written."""
    events = answer(tokenizer, CALL, thinking=False, tools=[TOOL])
    tokens = len(tokenizer.encode(CALL, special=True))
    assert [event.tokens for event in events if isinstance(event, Held)] == [*range(1, tokens)]


def test_closing_cancels_between_chunks_of_the_prompt(tokenizer: Tokenizer):
    engine = ScriptedEngine(tokenizer, ["no", "ok"], chunk=4)
    events = engine.chat("word " * 40, thinking=False)
    assert isinstance(next(events), Progress)
    close(events)
    assert len(engine._session.ids) == 4
    assert engine.complete("Hi", thinking=False).text == "ok"


def close(events: Iterator[Event]) -> None:
    getattr(events, "close")()  # noqa: B009  the protocol says Iterator; every engine gives a generator


def test_call_ids_differ_from_those_of_the_conversation(tokenizer: Tokenizer):
    engine = ScriptedEngine(tokenizer, [CALL])
    history = [
        Message("user", "Hi"),
        Message("assistant", "", None, (ToolCall("f", {}, "call_1"), ToolCall("f", {}, "call_3"))),
        Message("tool", "1"),
        Message("tool", "2"),
    ]
    assert [call.id for call in engine.complete(history, thinking=False, tools=[TOOL]).tool_calls] == ["call_4"]


def test_thinking_is_read_from_the_prompt(tokenizer: Tokenizer):
    def ends(text: str) -> bool:
        return ends_in_thinking(tokenizer.encode(text, special=True), tokenizer)

    assert ends("<|im_start|>assistant\n<think>\n")
    assert ends("<|im_start|>assistant\n<think>\nLet me ")
    assert not ends("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert not ends("<think>\n<|im_start|>user\n")
    assert not ends("Hi")
    typed = [Message("user", "<think>")]
    assert not ends_in_thinking(tokenizer.encode_segments(render(typed, thinking=False)), tokenizer)
