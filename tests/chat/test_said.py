"""Answers that are put back token for token when a client sends them as JSON."""

from dataclasses import replace

import pytest

from qwen35_local.chat.prompt import prompt_of
from qwen35_local.chat.said import Digest, Said
from qwen35_local.engine import ChatRequest, Message
from qwen35_local.events import ToolCall

QUESTION = Message("user", "Weather in Paris?")
# As a model might write it: blanks where the template has none, and a number with a blank behind it.
WRITTEN = (
    "Let me see.\n\n</think>\n\n\n<tool_call>\n<function=get_weather>\n<parameter=days>\n3 \n</parameter>\n"
    "</function>\n</tool_call>"
)
ANSWER = Message("assistant", "", "Let me see.", (ToolCall("get_weather", {"days": 3}, "call_1"),))
RESULT = Message("tool", "sunny", tool_call_id="call_1")


@pytest.fixture
def said(tokenizer):
    said = Said()
    said.keep(asked(tokenizer), written(tokenizer), ANSWER, tokenizer.special["<|im_start|>"])
    return said


def asked(tokenizer) -> list[int]:
    return list(prompt_of(ChatRequest((QUESTION,)), tokenizer))


def written(tokenizer) -> list[int]:
    return tokenizer.encode(WRITTEN, special=True)


def prompt(tokenizer, said, *messages: Message, preserve: bool = False) -> list[int]:
    return list(prompt_of(ChatRequest(messages, preserve_thinking=preserve), tokenizer, said))


def test_the_answer_comes_back_as_it_was_written(tokenizer, said):
    sent = replace(ANSWER, reasoning=None)  # as OpenAI's clients send it
    ids = prompt(tokenizer, said, QUESTION, sent, RESULT)
    exact = [*asked(tokenizer), *written(tokenizer)]
    assert ids[: len(exact)] == exact
    assert ids[len(exact) :] == tokenizer.encode(
        "<|im_end|>\n<|im_start|>user\n<tool_response>\nsunny\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n<think>\n",
        special=True,
    )
    assert prompt(tokenizer, Said(), QUESTION, sent, RESULT)[: len(exact)] != exact


def test_answers_chain(tokenizer, said):
    loop = prompt(tokenizer, said, QUESTION, ANSWER, RESULT)
    said.keep(
        loop,
        tokenizer.encode("Sunny.</think>\n\n Sun!", special=True),
        Message("assistant", "Sun!", "Sunny."),
        tokenizer.special["<|im_start|>"],
    )
    again = prompt(tokenizer, said, QUESTION, ANSWER, RESULT, Message("assistant", "Sun!"), RESULT)
    assert again[: len(loop)] == loop
    assert tokenizer.decode(again[len(loop) :]).startswith("Sunny.</think>\n\n Sun!<|im_end|>")


@pytest.mark.parametrize(
    "other",
    [
        replace(ANSWER, content="But first"),
        replace(ANSWER, reasoning="I thought otherwise."),
        replace(ANSWER, tool_calls=(ToolCall("get_weather", {"days": 4}),)),
        replace(ANSWER, tool_calls=()),
    ],
)
def test_an_edited_answer_is_rendered(tokenizer, said, other):
    assert prompt(tokenizer, said, QUESTION, other, RESULT) == prompt(tokenizer, None, QUESTION, other, RESULT)


def test_only_after_the_very_same_tokens(tokenizer, said):
    other = Message("user", "Weather in Rome?")
    assert prompt(tokenizer, said, other, ANSWER, RESULT) == prompt(tokenizer, None, other, ANSWER, RESULT)


def test_a_new_question_drops_the_thinking_as_the_format_does(tokenizer, said):
    after = (QUESTION, ANSWER, RESULT, Message("user", "Thanks"))
    assert prompt(tokenizer, said, *after) == prompt(tokenizer, None, *after)


@pytest.mark.parametrize("reasoning", ["Let me see.", None])
def test_it_stays_if_that_is_wished_for(tokenizer, said, reasoning):
    """A new question goes on from the very tokens of the answers before it, its thinking sent back or not."""
    sent = replace(ANSWER, reasoning=reasoning)
    loop = prompt(tokenizer, said, QUESTION, sent, RESULT, preserve=True)
    said.keep(
        loop,
        tokenizer.encode("Sunny.</think>\n\n Sun!", special=True),
        Message("assistant", "Sun!", "Sunny."),
        tokenizer.special["<|im_start|>"],
    )
    after = (QUESTION, sent, RESULT, Message("assistant", "Sun!"), Message("user", "Thanks"))
    ids = prompt(tokenizer, said, *after, preserve=True)
    known = [*loop, *tokenizer.encode("Sunny.</think>\n\n Sun!", special=True)]
    assert ids[: len(known)] == known
    opening = "<|im_end|>\n<|im_start|>user\nThanks<|im_end|>\n<|im_start|>assistant\n<think>\n"
    assert tokenizer.decode(ids[len(known) :]) == opening
    assert prompt(tokenizer, said, *after)[: len(known)] != known


def test_without_answers_to_remember_prompts_are_those_of_the_template(tokenizer):
    for messages in ((QUESTION,), (QUESTION, ANSWER, RESULT), (QUESTION, ANSWER, RESULT, Message("user", "Thanks"))):
        assert prompt(tokenizer, Said(), *messages) == prompt(tokenizer, None, *messages)


def test_the_oldest_is_forgotten(tokenizer):
    said = Said(most=2)
    turn = tokenizer.special["<|im_start|>"]
    for number in range(3):
        said.keep([turn, number, turn], [7, number], Message("assistant", str(number)), turn)
    found = [said.find(Digest([turn, number]), Message("assistant", str(number))) for number in range(3)]
    assert [list(ids) if ids else None for ids in found] == [None, [turn, 7, 1], [turn, 7, 2]]
    said.keep([5, 6], [7], Message("assistant", "no turn"), turn)  # nothing to put it behind
