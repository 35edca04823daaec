"""The sentence that says why a prompt was read again."""

import pytest

from qwen35_local.backends.prefix import common_prefix
from qwen35_local.backends.reasons import why
from qwen35_local.chat.prompt import prompt_of
from qwen35_local.engine import ChatRequest, ImagePart, Message, TextPart
from qwen35_local.events import ToolCall

ASKED = (Message("system", "You are kind."), Message("user", "Weather?"))
WEATHER, CLOCK = (
    {"type": "function", "function": {"name": name, "parameters": {}}} for name in ("get_weather", "get_time")
)
CALLED = Message("assistant", "", "let me look", (ToolCall("get_weather", {"city": "Paris"}),))


def test_each_cause_is_named(tokenizer):
    def reason(old: ChatRequest, new: ChatRequest) -> str:
        before, after = (prompt_of(request, tokenizer) for request in (old, new))
        return why(before, after, common_prefix(before, after), tokenizer)

    def asked(*messages: Message, tools: tuple = ()) -> ChatRequest:
        return ChatRequest(messages, tools)

    both = asked(*ASKED, tools=(WEATHER, CLOCK))
    assert "turn 1 (system) lists its tools in another order" in reason(both, asked(*ASKED, tools=(CLOCK, WEATHER)))
    assert "turn 1 (system) lists other tools" in reason(both, asked(*ASKED, tools=(WEATHER,)))
    billed = asked(Message("system", "x-header: 17; You are kind."), ASKED[1])
    assert "turn 1 (system) begins differently: a header" in reason(asked(*ASKED), billed)
    assert "turn 2 (user) is another one" in reason(asked(*ASKED), asked(ASKED[0], Message("user", "Time?")))
    result = Message("tool", "sunny", tool_call_id="a")
    loop = asked(*ASKED, CALLED, result)
    next_question = asked(*ASKED, CALLED, result, Message("assistant", "Sunny."), Message("user", "And now?"))
    said = reason(loop, next_question)
    assert "turn 3 (assistant) is given without its thinking" in said
    assert "the first differing token is number" in said
    other = asked(*ASKED, Message("assistant", "", "let me look", (ToolCall("get_time", {}),)), result)
    assert "turn 3 (assistant) was rewritten" in reason(loop, other)
    picture = asked(Message("user", (ImagePart(b"1"), TextPart("what?"))))
    assert "turn 1 (user) has another picture or video" in reason(asked(Message("user", "what?")), picture)
    shorter = prompt_of(asked(*ASKED), tokenizer)
    assert "ends after" in why([*shorter, 1], shorter, len(shorter), tokenizer)


@pytest.mark.parametrize("at", [0, 5])
def test_text_that_is_no_conversation(tokenizer, at):
    ids = tokenizer.encode("some plain text that goes on")
    assert "turn 0 (text) is another one" in why(ids, [*ids[:at], ids[at] + 1, *ids[at + 1 :]], at, tokenizer)
