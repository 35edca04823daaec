"""The held-out set as a file, and how answers to it are scored; for any backend, without torch."""

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen35_local.engine import ChatRequest, Completion, ImagePart, Message, Part, Sampling, TextPart, message_of

from .families.tools import TOOLS
from .task import Task

ROOT = Path(__file__).resolve().parents[2]
HELD_OUT = ROOT / "tests" / "golden" / "miniature_heldout.jsonl"
HELD_OUT_SIGHTS = HELD_OUT.with_name("miniature_sights.jsonl")
MOST_TOKENS = 120


@dataclass(frozen=True, slots=True)
class Item:
    """One prompt and the one right answer: the text after the thought, and the calls."""

    family: str
    thinking: bool
    messages: tuple[Message, ...]
    tools: tuple[str, ...]
    content: str
    calls: tuple[tuple[str, Mapping[str, Any]], ...]

    @property
    def request(self) -> ChatRequest:
        """Greedy, with room for a thought."""
        tools = tuple(TOOLS[name] for name in self.tools)
        return ChatRequest(self.messages, tools, self.thinking, Sampling(temperature=0), MOST_TOKENS)

    def is_right(self, answer: Completion) -> bool:
        """The answer to the letter; the thought is the model's own business."""
        calls = tuple((call.name, dict(call.arguments)) for call in answer.tool_calls)
        return answer.text.strip() == self.content and calls == self.calls


def items_of(task: Task) -> Iterator[Item]:
    """One item for each assistant turn of the reply, after the right turns before it."""
    tools = tuple(tool["function"]["name"] for tool in task.tools)
    for index, message in enumerate(task.reply):
        if message.role != "assistant":
            continue
        family = task.family
        if family == "tool":
            family = "tool_call" if message.tool_calls else "tool_answer"
        calls = tuple((call.name, dict(call.arguments)) for call in message.tool_calls)
        before = (*task.messages, *task.reply[:index])
        yield Item(family, task.thinking, before, tools, message.text, calls)


def _part_to_json(part: Part) -> dict[str, str]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    kind = "image" if isinstance(part, ImagePart) else "video"
    return {"type": kind, "data": base64.b64encode(part.data).decode()}


def _message_of(value: dict[str, Any]) -> Message:
    """A message of the file: pictures and clips are base64."""
    if isinstance(value["content"], list):
        parts = [
            part | {"data": base64.b64decode(part["data"])} if "data" in part else part for part in value["content"]
        ]
        value = value | {"content": parts}
    return message_of(value)


def _message_to_json(message: Message) -> dict[str, Any]:
    content = message.content if isinstance(message.content, str) else [_part_to_json(part) for part in message.content]
    value: dict[str, Any] = {"role": message.role, "content": content}
    if message.reasoning is not None:
        value["reasoning_content"] = message.reasoning
    if message.tool_calls:
        calls = [{"name": call.name, "arguments": dict(call.arguments)} for call in message.tool_calls]
        value["tool_calls"] = [{"type": "function", "function": call} for call in calls]
    return value


def write(path: Path, items: Iterable[Item]) -> None:
    """One JSON object a line."""
    with path.open("w") as file:
        for item in items:
            value = {
                "family": item.family,
                "thinking": item.thinking,
                "messages": [_message_to_json(message) for message in item.messages],
                "tools": item.tools,
                "expected": {
                    "content": item.content,
                    "tool_calls": [{"name": name, "arguments": arguments} for name, arguments in item.calls],
                },
            }
            file.write(json.dumps(value, ensure_ascii=False) + "\n")


def read(path: Path = HELD_OUT) -> list[Item]:
    items = []
    for line in path.read_text().splitlines():
        value = json.loads(line)
        expected = value["expected"]
        calls = tuple((call["name"], call["arguments"]) for call in expected["tool_calls"])
        messages = tuple(_message_of(message) for message in value["messages"])
        tools = tuple(value["tools"])
        items.append(Item(value["family"], value["thinking"], messages, tools, expected["content"], calls))
    return items


def some_of_each(items: Sequence[Item], count: int) -> list[Item]:
    """The first `count` of every family and mode."""
    seen: dict[tuple[str, bool], int] = {}
    chosen = []
    for item in items:
        key = item.family, item.thinking
        seen[key] = seen.get(key, 0) + 1
        if seen[key] <= count:
            chosen.append(item)
    return chosen
