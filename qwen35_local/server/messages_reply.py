"""Events -> Anthropic's messages: a stream of content blocks, or one message. Pure."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ..engine import Completion
from ..events import Done, Event, FinishReason, Reasoning, Text, ToolCall, Usage
from .asked import Asked
from .chat_reply import sse

REASONS: Mapping[FinishReason, str] = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


class MessageReply:
    """One message, streamed or whole."""

    def __init__(self, asked: Asked, name: str, created: int):
        self._name, self._model = f"msg_{name}", asked.model
        self._kind: str | None = None  # of the block that is open
        self._index = -1

    def start(self) -> Iterator[bytes]:
        message = self._message([], None, None, {"input_tokens": 0, "output_tokens": 0})
        yield _event("message_start", message=message)

    def feed(self, event: Event) -> Iterator[bytes]:
        match event:
            case Reasoning(text):
                yield from self._open("thinking", {"thinking": "", "signature": ""})
                yield self._delta("thinking_delta", thinking=text)
            case Text(text):
                yield from self._open("text", {"text": ""})
                yield self._delta("text_delta", text=text)
            case ToolCall():
                yield from self._close()
                yield from self._open("tool_use", {"id": event.id, "name": event.name, "input": {}})
                yield self._delta("input_json_delta", partial_json=json.dumps(event.arguments, ensure_ascii=False))
            case Done():
                yield from self._close()
                reason, stop = _ending(event)
                delta = {"stop_reason": reason, "stop_sequence": stop}
                yield _event("message_delta", delta=delta, usage=_usage(event.usage))
                yield _event("message_stop")

    def error(self, body: dict[str, Any]) -> bytes:
        return sse(body, "error")

    def whole(self, answer: Completion, events: list[Event]) -> dict[str, Any]:
        content: list[dict[str, Any]] = []
        if answer.reasoning:
            content.append({"type": "thinking", "thinking": answer.reasoning, "signature": ""})
        if answer.text:
            content.append({"type": "text", "text": answer.text})
        content += (
            {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments}
            for call in answer.tool_calls
        )
        return self._message(content, *_ending(answer.done), _usage(answer.done.usage))

    def _message(
        self, content: list[Any], reason: str | None, stop: str | None, usage: dict[str, Any]
    ) -> dict[str, Any]:
        return {
            "id": self._name,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": content,
            "stop_reason": reason,
            "stop_sequence": stop,
            "usage": usage,
        }

    def _open(self, kind: str, empty: dict[str, Any]) -> Iterator[bytes]:
        if self._kind != kind:
            yield from self._close()
            self._kind = kind
            self._index += 1
            yield _event("content_block_start", index=self._index, content_block={"type": kind, **empty})

    def _delta(self, kind: str, **delta: Any) -> bytes:
        return _event("content_block_delta", index=self._index, delta={"type": kind, **delta})

    def _close(self) -> Iterator[bytes]:
        if self._kind is not None:
            self._kind = None
            yield _event("content_block_stop", index=self._index)


def _event(kind: str, **fields: Any) -> bytes:
    return sse({"type": kind, **fields}, kind)


def _ending(done: Done) -> tuple[str, str | None]:
    return ("stop_sequence" if done.stop else REASONS[done.finish_reason]), done.stop


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    }
