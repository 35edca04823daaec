"""Events -> OpenAI's responses: a stream of typed events, or the object that they build. Pure."""

import json
from collections.abc import Iterator
from typing import Any

from ..engine import Completion
from ..events import Done, Event, Reasoning, Text, TokenLogprob, ToolCall
from .asked import Asked
from .chat_reply import logprobs_of, sse
from .responses import Kept
from .responses_tools import Named

# The part inside an item: (its type, the event's name before .delta and .done).
PARTS = {"message": ("output_text", "response.output_text"), "reasoning": ("reasoning_text", "response.reasoning_text")}


class ResponseReply:
    """One response. The object grows as events come, so streamed and whole ones cannot differ."""

    def __init__(self, asked: Asked, name: str, created: int):
        self._asked, self._name, self._created = asked, name, created
        self._number = -1
        self._output: list[dict[str, Any]] = []
        self._open: dict[str, Any] | None = None
        self._words: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._said: list[Event] = []

    def start(self) -> Iterator[bytes]:
        yield self._event("response.created", response=self._object("in_progress"))
        yield self._event("response.in_progress", response=self._object("in_progress"))

    def feed(self, event: Event) -> Iterator[bytes]:
        match event:
            case Text(text, logprobs) | Reasoning(text, logprobs):
                yield from self._begin("message" if isinstance(event, Text) else "reasoning")
                self._words.append(text)
                self._logprobs += logprobs
                more = {"logprobs": self._listed(list(logprobs))} if isinstance(event, Text) else {}
                yield self._part_event("delta", delta=text, **more)
            case ToolCall():
                yield from self._end()
                yield from self._call(event)
            case Done():
                yield from self._end()
                whole = self._finished(event)
                kind = "response.incomplete" if whole["status"] == "incomplete" else "response.completed"
                yield self._event(kind, response=whole)
        self._said.append(event)

    def error(self, body: dict[str, Any]) -> bytes:
        error = {"code": "server_error", "message": body["error"]["message"]}
        return self._event("response.failed", response={**self._object("failed"), "error": error}) + self._event(
            "error", code="server_error", message=error["message"], param=None, error=body["error"]
        )  # "error" on top is what makes the Python client raise

    def whole(self, answer: Completion, events: list[Event]) -> dict[str, Any]:
        for event in events:
            for _ in self.feed(event):
                pass
        return self._finished(answer.done)

    def _finished(self, done: Done) -> dict[str, Any]:
        cut = done.finish_reason == "length"
        usage = done.usage
        whole = self._object("incomplete" if cut else "completed")
        whole["incomplete_details"] = {"reason": "max_output_tokens"} if cut else None
        whole["usage"] = {
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        }
        if (store := self._asked.extra["store"]) is not None:
            words = "".join(event.text for event in self._said if isinstance(event, Text))
            thoughts = "".join(event.text for event in self._said if isinstance(event, Reasoning))
            calls = tuple(event for event in self._said if isinstance(event, ToolCall))
            answer = Completion(words, thoughts, calls, done).message
            store.put(whole["id"], Kept((*self._asked.extra["messages"], answer), whole))
        return whole

    def _begin(self, kind: str) -> Iterator[bytes]:
        if self._open is not None and self._open["type"] == kind:
            return
        yield from self._end()
        if kind == "message":
            item = {
                "id": self._item("msg"),
                "type": "message",
                "role": "assistant",
                "status": "in_progress",
                "content": [],
            }
        else:
            item = {"id": self._item("rs"), "type": "reasoning", "summary": [], "content": [], "status": "in_progress"}
        self._open, self._words, self._logprobs = item, [], []
        yield self._event("response.output_item.added", output_index=len(self._output), item=item)
        yield self._event("response.content_part.added", **self._place(), part=self._part(""))

    def _end(self) -> Iterator[bytes]:
        if (item := self._open) is None:
            return
        text = "".join(self._words)
        more = {"logprobs": self._listed(self._logprobs)} if item["type"] == "message" else {}
        yield self._part_event("done", text=text, **more)
        yield self._event("response.content_part.done", **self._place(), part=self._part(text))
        done = {**item, "status": "completed", "content": [self._part(text)]}
        yield self._event("response.output_item.done", output_index=len(self._output), item=done)
        self._output.append(done)
        self._open = None

    def _call(self, call: ToolCall) -> Iterator[bytes]:
        at = len(self._output)
        named = self._asked.extra["names"].get(call.name, Named(call.name))
        identity = {"id": self._item("fc"), "call_id": call.id, "name": named.name}
        if named.namespace is not None:
            identity["namespace"] = named.namespace
        if named.custom:
            key, kind = "input", "custom_tool_call"
            value, name, more = str(call.arguments.get("input", "")), "custom_tool_call_input", {}
        else:
            key, kind = "arguments", "function_call"
            value, name = json.dumps(call.arguments, ensure_ascii=False), "function_call_arguments"
            more = {"name": named.name}
        item = {**identity, "type": kind, key: ""}
        yield self._event("response.output_item.added", output_index=at, item={**item, "status": "in_progress"})
        place = {"item_id": item["id"], "output_index": at}
        yield self._event(f"response.{name}.delta", **place, delta=value)
        yield self._event(f"response.{name}.done", **place, **more, **{key: value})
        done = {**item, key: value, "status": "completed"}
        yield self._event("response.output_item.done", output_index=at, item=done)
        self._output.append(done)

    def _part(self, text: str) -> dict[str, Any]:
        assert self._open
        if self._open["type"] == "reasoning":
            return {"type": "reasoning_text", "text": text}
        listed = self._listed(self._logprobs) if text else []
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": listed}

    def _part_event(self, what: str, **fields: Any) -> bytes:
        assert self._open
        return self._event(f"{PARTS[self._open['type']][1]}.{what}", **self._place(), **fields)

    def _place(self) -> dict[str, Any]:
        assert self._open
        return {"item_id": self._open["id"], "output_index": len(self._output), "content_index": 0}

    def _listed(self, tokens: list[TokenLogprob]) -> list[Any]:
        return logprobs_of(tokens)["content"] if self._asked.logprobs else []

    def _item(self, kind: str) -> str:
        return f"{kind}_{self._name}_{len(self._output)}"

    def _event(self, kind: str, **fields: Any) -> bytes:
        self._number += 1
        return sse({"type": kind, "sequence_number": self._number, **fields}, kind)

    def _object(self, status: str) -> dict[str, Any]:
        defaults: dict[str, Any] = {
            "instructions": None,
            "max_output_tokens": None,
            "metadata": {},
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": True,
            "temperature": self._asked.request.effective_sampling.temperature,
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": [],
            "top_p": self._asked.request.effective_sampling.top_p,
        }
        return {
            "id": f"resp_{self._name}",
            "object": "response",
            "created_at": self._created,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "model": self._asked.model,
            "output": list(self._output),
            "service_tier": "default",
            "truncation": "disabled",
            **defaults,
            **self._asked.extra["echoed"],
        }
