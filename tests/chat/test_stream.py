"""Tokens -> events: structure by id, nothing lost, nothing early, the same whatever the token borders."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from streams import CALL, F3, TOOLS, Said, events_of, ids_of, said

from qwen35_local.chat.stream import Splitter
from qwen35_local.chat.template import render
from qwen35_local.chat.tokenizer import Tokenizer
from qwen35_local.engine import Message
from qwen35_local.events import Reasoning, Text, TokenLogprob, ToolCall


def test_thinking_then_answer(tokenizer: Tokenizer):
    assert said(tokenizer, "Let me see.\n", "</think>", "\n\nIt is 4.", thinking=True) == Said(
        "Let me see.", "It is 4.", []
    )


def test_no_thinking(tokenizer: Tokenizer):
    assert said(tokenizer, "It is 4.\n") == Said("", "It is 4.\n", [])


def test_newlines_inside_are_kept(tokenizer: Tokenizer):
    assert said(tokenizer, "a\n\nb\n\n", "</think>", "\n\nc\n\n\nd\n\n", thinking=True) == Said(
        "a\n\nb", "c\n\n\nd\n\n", []
    )


def test_thinking_that_never_ends(tokenizer: Tokenizer):
    assert said(tokenizer, "hm, well\n", thinking=True, cut=True) == Said("hm, well\n", "", [])


def test_spelled_tags_are_text(tokenizer: Tokenizer):
    spelled = ("<thi", "nk></", "think> <tool_", "call></tool", "_call>")
    assert said(tokenizer, *spelled).text == "".join(spelled)
    assert said(tokenizer, *spelled, thinking=True).reasoning == "".join(spelled)


def test_tags_out_of_place(tokenizer: Tokenizer):
    assert said(tokenizer, "</think>", "\n\nyes") == Said("", "yes", [])
    assert said(tokenizer, "the tag ", "</think>", " closes") == Said("", "the tag </think> closes", [])
    assert said(tokenizer, "<think>", "\nhm\n", "</think>", "\n\nyes") == Said("hm", "yes", [])
    assert said(tokenizer, "<think>", "hm", "</think>", "yes", thinking=True) == Said("hm", "yes", [])
    assert said(tokenizer, "a ", "<think>", " b", thinking=True) == Said("a <think> b", "", [])
    assert said(tokenizer, "a ", "<think>", " b") == Said("", "a <think> b", [])
    assert said(tokenizer, "a ", "</tool_call>", " b") == Said("", "a </tool_call> b", [])


@pytest.mark.parametrize("speaker", ["<|im_start|>", "<tool_response>"])
def test_the_model_does_not_speak_for_others(tokenizer: Tokenizer, speaker: str):
    assert said(tokenizer, "yes", speaker, "user\nno") == Said("", "yes", [], ended=True)


# --- characters ---


def test_whole_characters_only(tokenizer: Tokenizer):
    text = "naïve 👩🏽‍🚀 🏳️‍🌈 שלום עليكم e\u0301 東京"
    splitter = Splitter(tokenizer, thinking=False)
    events = events_of(splitter, ids_of(tokenizer, [text], by_byte=True))
    assert "".join(event.text for event in events if isinstance(event, Text)) == text
    assert all("�" not in event.text for event in events if isinstance(event, Text))


def test_a_cut_character_becomes_one_replacement(tokenizer: Tokenizer):
    ids = ids_of(tokenizer, ["a🙂"], by_byte=True)[:-1]
    assert events_of(Splitter(tokenizer, thinking=False), ids)[-1] == Text("�")
    closed = events_of(Splitter(tokenizer, thinking=True), [*ids, *ids_of(tokenizer, ["</think>", "b"])])
    assert [event.text for event in closed if isinstance(event, Reasoning)] == ["a", "�"]


# --- stop strings ---


@pytest.mark.parametrize(
    ("stops", "text", "expected", "stopped"),
    [
        (["END"], "one END two", "one ", "END"),
        (["END"], "one EN", "one EN", None),
        (["END"], "ENEND", "EN", "END"),
        (["\n\n"], "a\nb\n\nc", "a\nb", "\n\n"),
        (["abcd", "bc"], "xabcd", "xa", "bc"),
        (["ab", "abc"], "xabc", "x", "ab"),
        (["c", "abc"], "xabc", "x", "abc"),
        (["🙂"], "a🙂b", "a", "🙂"),
        (["é"], "caf\u00e9!", "caf", "é"),
        ([f"stop {number}" for number in range(100)], "now stop 73!", "now ", "stop 7"),
        (["x"], "x", "", "x"),
    ],
)
def test_stop_strings(tokenizer: Tokenizer, stops: list[str], text: str, expected: str, stopped: str | None):
    assert said(tokenizer, text, stops=stops) == Said("", expected, [], stopped)


def test_stop_strings_end_the_answer_only(tokenizer: Tokenizer):
    assert said(tokenizer, "END 3", "</think>", "\n\na END b", thinking=True, stops=["END"]) == Said(
        "END 3", "a ", [], "END"
    )
    assert said(tokenizer, "<tool_call>", CALL, "</tool_call>", stops=["3", "f"]) == Said("", "", [F3])


words = st.text(st.sampled_from("abc\n🙂"), max_size=12)


@given(st.lists(words.filter(bool), max_size=3), words)
def test_stop_strings_as_a_reference_finds_them(tokenizer: Tokenizer, stops: list[str], text: str):
    body = text.lstrip("\n")
    end = min((body.find(stop) + len(stop) for stop in stops if stop in body), default=None)
    matched = [] if end is None else [stop for stop in stops if body[:end].endswith(stop)]
    longest = max(matched, key=len, default=None)
    expected = body if end is None or longest is None else body[: end - len(longest)]
    assert said(tokenizer, text, stops=stops) == Said("", expected, [], longest)


# --- any stream ---

part = st.sampled_from(
    [
        *("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", CALL, "<function=f>", "\n", "\n\n"),
        *("<parameter=n>\n", "\n</parameter>", "</function>", "a", " b", "🙂", '{"name": "f", "arguments": {}}'),
    ]
)
streams = st.lists(part, max_size=10)


@given(streams, st.booleans(), st.booleans(), st.sampled_from([(), ("b",), ("\n\n",)]))
def test_any_stream_is_the_same_in_any_tokens(
    tokenizer: Tokenizer, parts: list[str], thinking: bool, cut: bool, stops: tuple[str, ...]
):
    said(tokenizer, *parts, thinking=thinking, cut=cut, stops=stops)


@given(streams, st.booleans(), st.booleans())
def test_nothing_is_lost(tokenizer: Tokenizer, parts: list[str], thinking: bool, cut: bool):
    """Where no call was made, everything but structural tags and newlines is shown, in order."""
    answer = said(tokenizer, *parts, thinking=thinking, cut=cut)
    if answer.calls or answer.ended:
        return
    shown = answer.reasoning + answer.text
    assert bare(shown) == bare("".join(parts))


def bare(text: str) -> str:
    return text.replace("<think>", "").replace("</think>", "").replace("\n", "")


arguments = st.dictionaries(
    st.sampled_from(["text", "n", "other"]),
    st.lists(st.sampled_from(["a", "\n", " ", "</parameter>", "<b>", "🙂"]), max_size=4).map("".join),
    max_size=2,
)
words = st.lists(st.sampled_from(["a", "\n", " b", "🙂", "<", "é"]), max_size=5).map("".join).map(str.strip)


@given(words, words, st.lists(st.tuples(st.sampled_from(["f", "write"]), arguments), max_size=2), st.booleans())
def test_round_trip_of_an_answer(
    tokenizer: Tokenizer,
    reasoning: str,
    text: str,
    calls: list[tuple[str, dict[str, str]]],
    by_byte: bool,
):
    """Message -> template -> tokens -> splitter -> the same message."""
    turn = Message("assistant", text, reasoning, tuple(ToolCall(name, values) for name, values in calls))
    question = [Message("user", "?")]
    ids = tokenizer.encode_segments(render([*question, turn], add_generation_prompt=False))
    prompt = tokenizer.encode_segments(render(question))
    # "<think>\n" may be tokenised with what follows it; the model continues the prompt as it stands.
    answer = tokenizer.decode(ids).removeprefix(tokenizer.decode(prompt)).removesuffix("<|im_end|>\n")
    tags = tokenizer.encode(answer, special=True)
    splitter = Splitter(tokenizer, True, [{"name": "f"}, {"name": "write"}])
    events = events_of(splitter, tags)
    assert "".join(event.text for event in events if isinstance(event, Reasoning)) == reasoning
    assert "".join(event.text for event in events if isinstance(event, Text)) == text
    made = [(event.name, dict(event.arguments)) for event in events if isinstance(event, ToolCall)]
    assert made == calls


# --- logprobs and counts ---


def test_each_logprob_goes_with_the_text_of_its_token(tokenizer: Tokenizer):
    ids = ids_of(tokenizer, ["hm 🙂\n", "</think>", "\n\na STOX b"], by_byte=True)
    splitter = Splitter(tokenizer, thinking=True, stops=["STOP"])
    carried: list[tuple[str, bytes]] = []
    for token in ids:
        logprob = TokenLogprob(token, tokenizer.token_bytes(token), -0.5)
        for event in splitter.feed(token, logprob):
            assert isinstance(event, Text | Reasoning)
            carried.append((event.text, b"".join(item.data for item in event.logprobs)))
    splitter.finish()
    # Newlines of the template are said by no event; those before the answer come with its first text.
    assert all(text.encode() == data.lstrip(b"\n") for text, data in carried)
    assert [text for text, _ in carried] == [*"hm 🙂", "a", " ", "STOX", " ", "b"]


def test_no_logprob_of_what_a_stop_string_cut_off(tokenizer: Tokenizer):
    splitter = Splitter(tokenizer, thinking=False, stops=["STOP"])
    events = [
        event
        for token in ids_of(tokenizer, ["a STOP"], by_byte=True)
        for event in splitter.feed(token, TokenLogprob(token, tokenizer.token_bytes(token), 0.0))
    ]
    assert [(event.text, len(event.logprobs)) for event in events if isinstance(event, Text)] == [("a", 1), (" ", 1)]


def test_reasoning_tokens_are_counted_with_their_closing_tag(tokenizer: Tokenizer):
    thought = ids_of(tokenizer, ["hm, well\n", "</think>"])
    splitter = Splitter(tokenizer, thinking=True)
    events_of(splitter, [*thought, *ids_of(tokenizer, ["\n\nyes"])])
    assert splitter.reasoning_tokens == len(thought)


def test_text_comes_as_soon_as_it_can(tokenizer: Tokenizer):
    """One event a token, where nothing must be held back."""
    splitter = Splitter(tokenizer, False, TOOLS, stops=["END"])
    texts = [splitter.feed(token) for token in ids_of(tokenizer, ["plain words"], by_byte=True)]
    assert texts == [[Text(char)] for char in "plain words"]
