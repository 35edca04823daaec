"""Messages -> segments: the prompt format that the model was trained on, to the character.

The released model ships this format as a Jinja program; here it is the same behaviour as plain functions (tests compare
the two). A segment is either markup, which may hold control tokens, or content, which never can: what people, tools and
files say stays text, whatever it spells.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..engine import ImagePart, Message, TextPart, VideoPart
from ..errors import TemplateError
from ..events import ToolCall

IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
VIDEO = "<|vision_start|><|video_pad|><|vision_end|>"

TOOLS_OPEN = "# Tools\n\nYou have access to the following functions:\n\n<tools>"
# The wording is the model's training data, so not one character of it is ours to improve.
TOOLS_CLOSE = """
</tools>

If you choose to call a function ONLY reply in the following format with NO suffix:

<tool_call>
<function=example_function_name>
<parameter=example_parameter_1>
value_1
</parameter>
<parameter=example_parameter_2>
This is the value for the second parameter
that can span
multiple lines
</parameter>
</function>
</tool_call>

<IMPORTANT>
Reminder:
- Function calls MUST follow the specified format: an inner <function=...></function> block must be nested within \
<tool_call></tool_call> XML tags
- Required parameters MUST be specified
- You may provide optional reasoning for your function call in natural language BEFORE the function call, but NOT after
- If there is no function call available, answer the question like normal with your current knowledge and do not tell \
the user about function calls
</IMPORTANT>"""


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of the prompt. Control tokens are recognised in `markup` only. `media` is what it holds a place for."""

    text: str
    markup: bool
    media: ImagePart | VideoPart | None = None


def render(
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] = (),
    thinking: bool = True,
    add_generation_prompt: bool = True,
    preserve_thinking: bool = False,
) -> list[Segment]:
    """The prompt of a conversation. Pictures and videos stay one pad token each, in the order of their parts.

    `preserve_thinking` keeps it in answers to earlier questions, as the template of Qwen3.6 can.

    Raises TemplateError for what the released template refuses: no messages, no user query, a system message that is
    not the first, pictures in it.
    """
    segments = [segment for turn in turns(messages, tools, preserve_thinking) for segment in turn.segments]
    if add_generation_prompt:
        opening = "<think>\n" if thinking else "<think>\n\n</think>\n\n"
        segments.append(_markup("<|im_start|>assistant\n" + opening))
    return segments


@dataclass(frozen=True, slots=True)
class Turn:
    """The segments of one message. `whole` says that an answer is there with its thinking, as it was given."""

    message: Message | None
    segments: list[Segment]
    whole: bool = False


def turns(
    messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = (), preserve_thinking: bool = False
) -> Iterator[Turn]:
    """What `render` renders, message by message; the tools are part of the system turn."""
    if not messages:
        raise TemplateError("no messages: give at least one user message", "messages")
    system = messages[0] if messages[0].role == "system" else None
    yield Turn(system, list(_system_turn(system, tools)))
    last_query = _last_query(messages)
    for index, message in enumerate(messages):
        match message.role:
            case "system":
                if index:
                    raise TemplateError(f"message {index} is a system message: only the first may be one", "messages")
            case "user":
                yield Turn(message, [_markup("<|im_start|>user\n"), *_content(message), _markup("<|im_end|>\n")])
            case "assistant":
                whole = preserve_thinking or index > last_query
                yield Turn(message, list(_assistant_turn(message, keep_reasoning=whole)), whole)
            case "tool":
                around = messages[index - 1 : index], messages[index + 1 : index + 2]
                yield Turn(message, list(_tool_response(message, *around)))


def _markup(text: str) -> Segment:
    return Segment(text, markup=True)


def _text(text: str) -> Segment:
    return Segment(text, markup=False)


def _joined(segments: Iterable[Segment]) -> str:
    return "".join(segment.text for segment in segments)


def _content(message: Message) -> list[Segment]:
    """Content as segments, trimmed at both ends of the whole."""
    if isinstance(message.content, str):
        return [_text(trimmed)] if (trimmed := message.content.strip()) else []
    segments: list[Segment] = []
    for part in message.content:
        if not isinstance(part, TextPart):
            segments.append(Segment(IMAGE if isinstance(part, ImagePart) else VIDEO, markup=True, media=part))
        elif segments and not segments[-1].markup:
            segments[-1] = _text(segments[-1].text + part.text)
        else:
            segments.append(_text(part.text))
    if segments and not segments[0].markup:
        segments[0] = _text(segments[0].text.lstrip())
    if segments and not segments[-1].markup:
        segments[-1] = _text(segments[-1].text.rstrip())
    return [segment for segment in segments if segment.text]


def _system_turn(message: Message | None, tools: Sequence[Mapping[str, Any]]) -> Iterator[Segment]:
    if message is None and not tools:
        return
    content = _content(message) if message else []
    if any(segment.markup for segment in content):
        raise TemplateError("the system message must be text: put pictures and videos into a user message", "messages")
    yield _markup("<|im_start|>system\n")
    if tools:
        yield _markup(TOOLS_OPEN)
        for tool in tools:
            yield _markup("\n")
            yield _text(_json(tool))
        yield _markup(TOOLS_CLOSE + ("\n\n" if content else ""))
    yield from content
    yield _markup("<|im_end|>\n")


def _last_query(messages: Sequence[Message]) -> int:
    """Index of the last user message that is not a tool result in disguise; thinking before it is dropped."""
    for index in reversed(range(len(messages))):
        if messages[index].role == "user":
            text = _joined(_content(messages[index]))
            if not (text.startswith("<tool_response>") and text.endswith("</tool_response>")):
                return index
    raise TemplateError("no user query found in messages: add a user message", "messages")


def _assistant_turn(message: Message, keep_reasoning: bool) -> Iterator[Segment]:
    content = _content(message)
    if message.reasoning is not None:
        reasoning = [_text(message.reasoning.strip())]
    else:
        reasoning, content = _split_thinking(content)
    yield _markup("<|im_start|>assistant\n")
    if keep_reasoning:
        yield from (_markup("<think>\n"), *reasoning, _markup("\n</think>\n\n"))
    yield from content
    before = "\n\n" if _joined(content).strip() else ""
    for call in message.tool_calls:
        yield _markup(before + "<tool_call>\n")
        yield from _call(call)
        yield _markup("</tool_call>")
        before = "\n"
    yield _markup("<|im_end|>\n")


def _split_thinking(content: list[Segment]) -> tuple[list[Segment], list[Segment]]:
    """(reasoning, answer) of a turn whose thinking is still inside its content, up to `</think>`."""
    text = _joined(content)
    before, close, _ = text.partition("</think>")
    if not close:
        return [], content
    start = before.rfind("<think>")
    thinking = _slice(content, start + len("<think>") if start >= 0 else 0, len(before))
    answer = text.rpartition("</think>")[2].lstrip("\n")
    stripped = _joined(thinking)
    head = len(stripped) - len(stripped.lstrip())
    return _slice(thinking, head, len(stripped.rstrip())), _slice(content, len(text) - len(answer), len(text))


def _slice(segments: Iterable[Segment], start: int, stop: int) -> list[Segment]:
    """The segments of characters start..stop of the joined text; cuts never fall inside markup here."""
    kept, position = [], 0
    for segment in segments:
        text = segment.text[max(start - position, 0) : max(stop - position, 0)]
        position += len(segment.text)
        if text:
            kept.append(replace(segment, text=text))
    return kept


def _call(call: ToolCall) -> Iterator[Segment]:
    yield _text(f"<function={call.name}>\n")
    for key, value in call.arguments.items():
        structured = isinstance(value, Mapping | Sequence) and not isinstance(value, str)
        # The released template writes True, False and None as Python does, and only structures as JSON.
        yield _text(f"<parameter={key}>\n{_json(value) if structured else value}\n</parameter>\n")
    yield _text("</function>\n")


def _tool_response(message: Message, before: Sequence[Message], after: Sequence[Message]) -> Iterator[Segment]:
    """One result; consecutive results share a user turn. As released, a result with nothing before opens no turn."""
    opens = bool(before) and before[0].role != "tool"
    closes = not after or after[0].role != "tool"
    yield _markup(("<|im_start|>user" if opens else "") + "\n<tool_response>\n")
    yield from _content(message)
    yield _markup("\n</tool_response>" + ("<|im_end|>\n" if closes else ""))


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise TemplateError(f"a tool or its arguments cannot be written as JSON: {error}", "tools") from error
