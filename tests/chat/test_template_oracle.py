"""Any conversation at all, rendered by the released template itself.

    QWEN35_CHAT_TEMPLATE=MODEL_DIR/chat_template.jinja pytest -m oracle tests/chat

The template comes with the model and is not kept here; `tests/golden/chat_template.json` holds what it renders.
"""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen35_local.chat.template import render
from qwen35_local.engine import ImagePart, VideoPart, message_of
from qwen35_local.errors import TemplateError

pytestmark = pytest.mark.oracle

words = st.lists(
    st.sampled_from(
        [
            *("<think>", "</think>", "<tool_response>", "</tool_response>", "<tool_call>", "<|im_end|>"),
            *("\n", "\n\n", " ", "\t", "\u00a0", "word", "é", "東京", "🙂", "{{ x }}", "{%", '"', "&"),
        ]
    ),
    max_size=6,
).map("".join)
media = st.sampled_from([{"type": "image"}, {"type": "video"}])
contents = words | st.lists(media | words.map(lambda text: {"type": "text", "text": text}), max_size=4)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
calls = st.lists(
    st.fixed_dictionaries({"name": words, "arguments": st.dictionaries(words, values, max_size=3)}), max_size=3
)
messages = st.one_of(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "user", "tool"]), "content": contents}),
    st.fixed_dictionaries(
        {"role": st.just("assistant"), "content": contents},
        optional={"reasoning_content": words, "tool_calls": calls},
    ),
)
systems = st.lists(st.fixed_dictionaries({"role": st.just("system"), "content": contents}), max_size=1)
tools = st.lists(st.dictionaries(words, values, max_size=3), max_size=2)


@pytest.fixture(scope="module")
def template() -> str:
    if not (path := os.environ.get("QWEN35_CHAT_TEMPLATE")):
        pytest.skip("set QWEN35_CHAT_TEMPLATE to the chat_template.jinja of the released model")
    return Path(path).read_text(encoding="utf-8")


@given(systems, st.lists(messages, max_size=5), tools, st.booleans(), st.booleans())
@settings(max_examples=2000, deadline=None)
def test_any_conversation(
    template: str,
    systems: list[dict[str, Any]],
    turns: list[dict[str, Any]],
    tools: list[dict[str, Any]],
    thinking: bool,
    add_generation_prompt: bool,
):
    from jinja2.exceptions import TemplateError as JinjaError  # pyright: ignore[reportMissingImports]
    from transformers.utils.chat_template_utils import render_jinja_template  # pyright: ignore[reportMissingImports]

    conversation = systems + turns
    try:
        rendered, _ = render_jinja_template(
            conversations=[conversation],
            chat_template=template,
            tools=tools or None,  # pyright: ignore[reportArgumentType]
            add_generation_prompt=add_generation_prompt,
            enable_thinking=thinking,
        )
        expected = rendered[0]
    except JinjaError:
        expected = None
    try:
        segments = render([message_of(typed(turn)) for turn in conversation], tools, thinking, add_generation_prompt)
        actual = "".join(segment.text for segment in segments)
    except TemplateError:
        actual = None
    assert actual == expected


def typed(message: dict[str, Any]) -> dict[str, Any]:
    parts = {"image": ImagePart(b""), "video": VideoPart(b"")}
    if isinstance(message["content"], str):
        return message
    return {**message, "content": [parts.get(part["type"], part) for part in message["content"]]}
