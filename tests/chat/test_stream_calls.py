"""Tool calls in a stream of tokens: whole, broken, nested, cut, inside thinking, or only written about."""

import pytest
from streams import CALL, F3, TOOLS, Said, ids_of, said

from qwen35_local.chat.stream import Splitter
from qwen35_local.chat.tokenizer import Tokenizer
from qwen35_local.events import Text


def test_a_call(tokenizer: Tokenizer):
    answer = said(tokenizer, "hm", "</think>", "\n\nLooking.\n\n", "<tool_call>", CALL, "</tool_call>", thinking=True)
    assert answer == Said("hm", "Looking.", [F3])


def test_two_calls(tokenizer: Tokenizer):
    parts = ("<tool_call>", CALL, "</tool_call>", "\n", "<tool_call>", CALL.replace("3", "4"), "</tool_call>")
    assert said(tokenizer, *parts) == Said("", "", [F3, ("f", {"n": 4})])


def test_nothing_comes_after_a_call(tokenizer: Tokenizer):
    parts = ("<tool_call>", CALL, "</tool_call>", "\n \n", "It is sunny.")
    assert said(tokenizer, *parts) == Said("", "", [F3], ended=True)


def test_an_unknown_function_is_the_callers_business(tokenizer: Tokenizer):
    assert said(tokenizer, "<tool_call>", CALL.replace("=f", "=g"), "</tool_call>").calls == [("g", {"n": "3"})]


def test_without_tools_there_are_no_calls(tokenizer: Tokenizer):
    parts = ("a\n\n", "<tool_call>", CALL, "</tool_call>")
    assert said(tokenizer, *parts, tools=[]) == Said("", "".join(parts), [])


@pytest.mark.parametrize("body", ["\nhello\n", "<function", "\n<function=f>\nhello\n", "{}", "", "\n\n"])
@pytest.mark.parametrize("cut", [False, True])
def test_what_does_not_parse_is_text(tokenizer: Tokenizer, body: str, cut: bool):
    parts = ("So:\n\n", "<tool_call>", body, "</tool_call>", "\nover")
    assert said(tokenizer, *parts, cut=cut) == Said("", "".join(parts), [])


def test_prose_about_the_tag_streams_at_once(tokenizer: Tokenizer):
    splitter = Splitter(tokenizer, False, TOOLS)
    events = [event for token in ids_of(tokenizer, ["The ", "<tool_call>", " tag"]) for event in splitter.feed(token)]
    assert "".join(event.text for event in events if isinstance(event, Text)) == "The <tool_call> tag"


def test_a_broken_call_after_a_good_one_is_text(tokenizer: Tokenizer):
    parts = ("<tool_call>", CALL, "</tool_call>", "\n", "<tool_call>", "\n<function=f>\noops", "</tool_call>")
    assert said(tokenizer, *parts) == Said("", "<tool_call>\n<function=f>\noops</tool_call>", [F3])


VALUES = [
    ("a ", "</think>", " b"),
    ("a ", "<think>", " b ", "</think>", " c"),
    ("a ", "</tool_call>", " b"),
    ("a ", "<tool_call>", " b"),
    ("a ", "<tool_call>", CALL, "</tool_call>", " b"),
    ("<tool_call>", CALL, "</tool_call>", "\n", "<tool_call>", CALL, "</tool_call>"),
    ("a <|im_end|>", "<|im_start|>", "<tool_response>", " b"),
    ("a\n</parameter>\nb",),
]


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("thinking", [False, True])
def test_control_tokens_in_arguments_are_payload(tokenizer: Tokenizer, value: tuple[str, ...], thinking: bool):
    head, tail = "\n<function=write>\n<parameter=text>\n", "\n</parameter>\n</function>\n"
    before = ("hm\n", "</think>", "\n\n") if thinking else ()
    answer = said(tokenizer, *before, "<tool_call>", head, *value, tail, "</tool_call>", thinking=thinking)
    assert answer == Said("hm" if thinking else "", "", [("write", {"text": "".join(value)})])


OPEN_VALUE = "\n<function=f>\n<parameter=n>\n3"


@pytest.mark.parametrize("end", ["", "\n", "\n</parameter>", "\n</parameter>\n", "\n</parameter>\n</function>"])
@pytest.mark.parametrize("tag", [(), ("</tool_call>",)])
def test_missing_closing_tags(tokenizer: Tokenizer, end: str, tag: tuple[str, ...]):
    assert said(tokenizer, "<tool_call>", OPEN_VALUE + end, *tag) == Said("", "", [F3])


@pytest.mark.parametrize("end", ["", "\n", "\n</parameter>", "\n</parameter>\n"])
def test_half_a_call_cut_by_max_tokens_is_text(tokenizer: Tokenizer, end: str):
    assert said(tokenizer, "<tool_call>", OPEN_VALUE + end, cut=True) == Said("", "<tool_call>" + OPEN_VALUE + end, [])


def test_a_whole_call_cut_before_its_closing_tag_is_a_call(tokenizer: Tokenizer):
    assert said(tokenizer, "<tool_call>", CALL, cut=True) == Said("", "", [F3])


@pytest.mark.parametrize("end", ["", "\n</parameter>\n", "\n</parameter>\n</function>\n"])
def test_missing_closing_tags_between_calls(tokenizer: Tokenizer, end: str):
    parts = ("<tool_call>", OPEN_VALUE + end, "</tool_call>", "\n", "<tool_call>", CALL, "</tool_call>")
    assert said(tokenizer, *parts) == Said("", "", [F3, F3])


def test_missing_closing_token_between_calls(tokenizer: Tokenizer):
    assert said(tokenizer, "<tool_call>", CALL, "<tool_call>", CALL, "</tool_call>") == Said("", "", [F3, F3])


@pytest.mark.parametrize("end", [(), ("</tool_call>",), ("</tool_call>", "\n", "<tool_call>", CALL, "</tool_call>")])
def test_missing_opener(tokenizer: Tokenizer, end: tuple[str, ...]):
    calls = [F3, F3] if "<tool_call>" in end else [F3]
    assert said(tokenizer, CALL, *end) == Said("", "", calls)
    assert said(tokenizer, "Looking.\n\n" + CALL.lstrip(), *end) == Said("", "Looking.", calls)


@pytest.mark.parametrize(
    "text",
    [
        "Write `<function=f>` to call it.",
        "Write\n<function=f>\n<parameter=n>\n3",
        "Write\n" + CALL + "and see.",
        "Write\n<function=g>\n</function>",
        "<function=f",
        "a\n\n<func",
    ],
)
def test_writing_about_calls_is_text(tokenizer: Tokenizer, text: str):
    assert said(tokenizer, text) == Said("", text, [])


# --- calls inside thinking ---


def test_an_answer_that_is_a_call_inside_thinking(tokenizer: Tokenizer):
    for end in ((), ("\n",), ("\n", "</think>", "\n\n")):
        assert said(tokenizer, "hm\n\n", "<tool_call>", CALL, "</tool_call>", *end, thinking=True) == Said(
            "hm", "", [F3]
        )


def test_a_draft_of_a_call_is_thinking(tokenizer: Tokenizer):
    draft = ("hm\n", "<tool_call>", CALL, "</tool_call>", "\nno, wait\n")
    real = ("</think>", "\n\n", "<tool_call>", CALL.replace("3", "4"), "</tool_call>")
    assert said(tokenizer, *draft, *real, thinking=True) == Said("".join(draft).rstrip(), "", [("f", {"n": 4})])
    draft = ("hm\n", "<tool_call>", CALL, "</tool_call>")
    assert said(tokenizer, *draft, *real, thinking=True) == Said("".join(draft), "", [("f", {"n": 4})])
    assert said(tokenizer, *draft, "</think>", "\n\nyes", thinking=True) == Said("".join(draft), "yes", [])
    assert said(tokenizer, *draft, cut=True, thinking=True) == Said("".join(draft), "", [])


def test_a_call_inside_thinking_must_name_a_tool(tokenizer: Tokenizer):
    draft = ("hm\n", "<tool_call>", CALL.replace("=f", "=g"), "</tool_call>")
    assert said(tokenizer, *draft, thinking=True) == Said("".join(draft), "", [])


def test_a_call_inside_thinking_that_never_closes(tokenizer: Tokenizer):
    parts = ("hm ", "<tool_call>", "\n<function=f>\nor so\n", "</think>", "\n\nyes")
    assert said(tokenizer, *parts, thinking=True) == Said("hm <tool_call>\n<function=f>\nor so", "yes", [])
    parts = ("the ", "<tool_call>", " tag\n", "</think>", "\n\nyes")
    assert said(tokenizer, *parts, thinking=True) == Said("the <tool_call> tag", "yes", [])
