"""What the splitter's tests share: streams of tokens from readable parts, and the sum of what comes out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from qwen35_local.chat.stream import Splitter
from qwen35_local.chat.tokenizer import BYTE_OF_CHAR, Tokenizer
from qwen35_local.events import Event, Reasoning, Text, ToolCall

TOOLS = [
    {"type": "function", "function": {"name": "f", "parameters": {"properties": {"n": {"type": "integer"}}}}},
    {"type": "function", "function": {"name": "write", "parameters": {"properties": {"text": {"type": "string"}}}}},
]
CALL = "\n<function=f>\n<parameter=n>\n3\n</parameter>\n</function>\n"
F3: tuple[str, dict[str, Any]] = ("f", {"n": 3})


@dataclass
class Said:
    """What the events add up to."""

    reasoning: str
    text: str
    calls: list[tuple[str, dict[str, Any]]]
    stopped: str | None = None
    ended: bool = False


def ids_of(tokenizer: Tokenizer, parts: Iterable[str], by_byte: bool = False) -> list[int]:
    """Tokens of `parts`: a part that spells a control token is one, others are text (one token a byte if `by_byte`)."""
    bytes_ids = {byte: tokenizer._bpe.token_to_id(char) or 0 for char, byte in BYTE_OF_CHAR.items()}
    ids: list[int] = []
    for part in parts:
        if part in tokenizer.special:
            ids.append(tokenizer.special[part])
        else:
            ids += [bytes_ids[byte] for byte in part.encode()] if by_byte else tokenizer.encode(part)
    return ids


def events_of(splitter: Splitter, ids: Sequence[int], cut: bool = False) -> list[Event]:
    """Feed as the token loop does: until the splitter says that the answer is over."""
    events: list[Event] = []
    for token in ids:
        events += splitter.feed(token)
        if splitter.stopped is not None or splitter.ended:
            break
    return events + splitter.finish(cut)


def said(
    tokenizer: Tokenizer,
    *parts: str,
    thinking: bool = False,
    tools: Sequence[dict[str, Any]] = TOOLS,
    stops: Sequence[str] = (),
    cut: bool = False,
) -> Said:
    """The sum of the events, the same for two ways to cut the text into tokens."""
    sums = []
    for by_byte in (False, True):
        splitter = Splitter(tokenizer, thinking, tools, stops)
        events = events_of(splitter, ids_of(tokenizer, parts, by_byte), cut)
        calls = [event for event in events if isinstance(event, ToolCall)]
        assert [call.id for call in calls] == [f"call_{number + 1}" for number in range(len(calls))]
        assert all(event.text for event in events if isinstance(event, Text | Reasoning))
        sums.append(
            Said(
                "".join(event.text for event in events if isinstance(event, Reasoning)),
                "".join(event.text for event in events if isinstance(event, Text)),
                [(call.name, dict(call.arguments)) for call in calls],
                splitter.stopped,
                splitter.ended,
            )
        )
    assert sums[0] == sums[1]
    return sums[0]
