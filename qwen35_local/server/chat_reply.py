"""Events -> what OpenAI's chat completions say: chunks of a stream, or one object. Pure."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..engine import Completion
from ..events import Done, Event, Progress, Reasoning, Stats, Text, TokenLogprob, ToolCall, Usage
from .asked import Asked

FINGERPRINT = "qwen35-local"


class ChatReply:
    """One answer, as `feed` and `finish` of its events (a stream) or `whole`: the same words in the same fields."""

    path = "/v1/chat/completions"

    def __init__(self, asked: Asked, name: str, created: int):
        """`name` is a number that no other answer has."""
        self._asked = asked
        self._base = {
            "id": f"chatcmpl-{name}",
            "created": created,
            "model": asked.model,
            "system_fingerprint": FINGERPRINT,
        }
        self._calls = 0

    def start(self) -> Iterator[bytes]:
        yield self._chunk({"role": "assistant", "content": ""})

    def feed(self, event: Event) -> Iterator[bytes]:
        match event:
            case Text(text, logprobs):
                yield self._chunk({"content": text}, logprobs=logprobs)
            case Reasoning(text, logprobs):
                yield self._chunk({"reasoning_content": text}, logprobs=logprobs)
            case ToolCall():
                head = {"index": self._calls, **call_of(event)}
                arguments = head["function"]["arguments"]
                head["function"] = {"name": event.name, "arguments": ""}
                yield self._chunk({"tool_calls": [head]})
                yield self._chunk({"tool_calls": [{"index": self._calls, "function": {"arguments": arguments}}]})
                self._calls += 1
            case Progress("prefill", done, total) if self._asked.progress:
                yield sse({**self._head(), "choices": [], "prompt_progress": {"total": total, "processed": done}})
            case Done():
                yield self._chunk({}, event.finish_reason, timings=timings(event.usage, event.stats))
                if self._asked.usage:
                    yield sse({**self._head(), "choices": [], "usage": usage_of(event.usage)})
                yield b"data: [DONE]\n\n"

    def error(self, body: dict[str, Any]) -> bytes:
        """A failure after the headers: clients raise on it; a stream that is merely cut looks complete to them."""
        return sse(body)

    def whole(self, answer: Completion, events: Sequence[Event]) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
        if answer.reasoning:
            message["reasoning_content"] = answer.reasoning
        if answer.tool_calls:
            message["tool_calls"] = [call_of(call) for call in answer.tool_calls]
            message["content"] = answer.text or None
        texts = (event.logprobs for event in events if isinstance(event, Text | Reasoning))
        logprobs = logprobs_of(one for piece in texts for one in piece) if self._asked.logprobs else None
        done = answer.done
        choice = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": done.finish_reason}
        return {
            **self._base,
            "object": "chat.completion",
            "choices": [choice],
            "usage": usage_of(done.usage),
            "timings": timings(done.usage, done.stats),
        }

    def _head(self) -> dict[str, Any]:
        return {**self._base, "object": "chat.completion.chunk"}

    def _chunk(
        self, delta: dict[str, Any], finish: str | None = None, logprobs: Iterable[TokenLogprob] = (), **more: Any
    ) -> bytes:
        listed = logprobs_of(logprobs) if logprobs and self._asked.logprobs else None
        choice = {"index": 0, "delta": delta, "logprobs": listed, "finish_reason": finish}
        extra = {"usage": None} if self._asked.usage else {}
        return sse({**self._head(), "choices": [choice], **extra, **more})


def sse(value: Any, event: str | None = None) -> bytes:
    """One server-sent event."""
    head = f"event: {event}\n" if event else ""
    return f"{head}data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


def call_of(call: ToolCall) -> dict[str, Any]:
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def usage_of(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def timings(usage: Usage, stats: Stats) -> dict[str, Any]:
    """Speed, under llama-server's names where it has one.

    `reuse` says why not more of the prompt was cached, `differs` which of its tokens is the first that is another than
    before, `notices` what of pictures and clips was left out.
    """
    return {
        "prompt_n": usage.prompt_tokens - usage.cached_tokens,
        "prompt_ms": round(1000 * stats.time_to_first_token, 3),
        "prompt_per_second": round(stats.prompt_tps, 3),
        "predicted_n": usage.completion_tokens,
        "predicted_ms": round(1000 * (stats.total_time - stats.time_to_first_token), 3),
        "predicted_per_second": round(stats.generation_tps, 3),
        "cache_n": usage.cached_tokens,
        "seed": stats.extra.get("seed"),
        "reuse": stats.extra.get("reuse", ""),
        "differs": stats.extra.get("differs"),
        **({"notices": notices} if (notices := stats.extra.get("notices")) else {}),
    }


def logprobs_of(tokens: Iterable[TokenLogprob]) -> dict[str, Any]:
    def entry(data: bytes, value: float) -> dict[str, Any]:
        # -inf is not JSON; OpenAI says -9999.0 for what has no chance.
        return {"token": data.decode(errors="replace"), "logprob": max(value, -9999.0), "bytes": [*data]}

    content = [
        {**entry(one.data, one.logprob), "top_logprobs": [entry(data, value) for _, data, value in one.top]}
        for one in tokens
    ]
    return {"content": content, "refusal": None}
