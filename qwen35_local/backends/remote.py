"""Any server that speaks OpenAI's chat API, as an engine. The protocol is plain HTTP and needs no library.

Closing the iterator closes the connection, which is how a server hears that nobody listens any more.
"""

import base64
import http.client
import json
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast
from urllib.parse import urlsplit

from ..engine import ChatRequest, Engine, EngineInfo, ImagePart, Message, Session, TextPart
from ..errors import BackendUnavailable, UsageError
from ..events import Done, Event, FinishReason, Progress, Reasoning, Stats, Text, ToolCall, Usage

CONNECT_TIMEOUT = 10.0  # seconds
SILENCE = 600.0  # seconds without a byte; a long prompt on a slow machine takes minutes
MOST_LINE = 64 << 20  # bytes of one event
OURS = "qwen35-local"  # what our own server says of itself in its list of models


class RemoteEngine(Engine):
    """`url` is the server, with or without "/v1". The first model that it lists is used unless one is named."""

    def __init__(
        self, url: str, api_key: str | None = None, model: str | None = None, timeout: float = CONNECT_TIMEOUT
    ):
        parts = urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"{url!r} is not the address of a server: use http://HOST:PORT", "connect")
        self._secure, self._host, self._port = parts.scheme == "https", parts.hostname, parts.port
        path = parts.path.rstrip("/")
        self._path = path if path.endswith("/v1") else f"{path}/v1"
        self._key = api_key
        self._url = url
        self._closed = False
        card = self._card(model, timeout)
        self._ours = card.get("owned_by") == OURS
        self.info = EngineInfo(
            model=str(card["id"]),
            backend="remote",
            context=_whole(card.get("context_length")) or 1 << 18,
            vocab_size=1,
            parameters=_whole(card.get("parameters")),
            quantization=str(card.get("quantization", "unknown")),
            # A foreign server does not say whether it sees; it will refuse a picture itself.
            vision=bool(card.get("vision", not self._ours)),
            device=f"{self._host}:{self._port}" if self._port else self._host,
        )

    @property
    def ours(self) -> bool:
        """Whether the server is `qwen35 serve`."""
        return self._ours

    def stream(self, request: ChatRequest) -> Iterator[Event]:
        if self._closed:
            raise UsageError("the engine is closed: open it again")
        body = request_body(request, self.info.model, self._ours)
        return self._events(json.dumps(body, ensure_ascii=False).encode(errors="replace"))

    def open_session(self) -> Session:
        raise UsageError("a server's timelines cannot be opened from outside")

    def tokenize(self, text: str, special: bool = False) -> list[int]:
        raise UsageError("a server's tokenizer cannot be used from outside")

    def detokenize(self, ids: Sequence[int]) -> str:
        raise UsageError("a server's tokenizer cannot be used from outside")

    def close(self) -> None:
        self._closed = True

    def _events(self, body: bytes) -> Iterator[Event]:
        connection = self._connection(SILENCE)
        try:
            response = self._ask(connection, "POST", "/chat/completions", body)
            yield from read_events(_data(response))
        except (OSError, http.client.HTTPException) as error:
            raise BackendUnavailable(
                f"the connection to {self._url} broke ({error or type(error).__name__})"
            ) from error
        finally:
            connection.close()

    def _card(self, model: str | None, timeout: float) -> Mapping[str, Any]:
        connection = self._connection(timeout)
        try:
            listed = json.loads(self._ask(connection, "GET", "/models").read(MOST_LINE))
            cards = [card for card in listed["data"] if isinstance(card, dict) and "id" in card]
        except (OSError, http.client.HTTPException) as error:
            raise BackendUnavailable(f"no server answers at {self._url} ({error or type(error).__name__})") from error
        except (ValueError, TypeError, KeyError) as error:
            raise BackendUnavailable(
                f"{self._url} does not speak OpenAI's API: its list of models is damaged"
            ) from error
        finally:
            connection.close()
        chosen = [card for card in cards if model is None or card["id"] == model]
        if not chosen:
            names = ", ".join(str(card["id"]) for card in cards) or "none"
            raise BackendUnavailable(f"{self._url} has no model {model or ''!r}: it lists {names}")
        return chosen[0]

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        if self._secure:
            return http.client.HTTPSConnection(
                self._host, self._port, timeout=timeout, context=ssl.create_default_context()
            )
        return http.client.HTTPConnection(self._host, self._port, timeout=timeout)

    def _ask(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None
    ) -> http.client.HTTPResponse:
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream, application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        connection.request(method, self._path + path, body, headers)
        response = connection.getresponse()
        if response.status != 200:
            raise BackendUnavailable(f"{self._url} answers {response.status}: {_why(response.read(1 << 16))}")
        return response


def request_body(request: ChatRequest, model: str, ours: bool) -> dict[str, Any]:
    """The request as OpenAI's API has it; what only our server knows is sent to ours alone."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [_message(message) for message in request.messages],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.prefill:  # as llama-server and our own have it
        body["messages"].append({"role": "assistant", "content": request.prefill})
    if ours:
        body |= {"return_progress": True, "chat_template_kwargs": {"enable_thinking": request.thinking}}
        if request.preserve_thinking:
            body["chat_template_kwargs"]["preserve_thinking"] = True
        if request.thinking_budget is not None:
            body["thinking_budget"] = request.thinking_budget
    if request.tools:
        body["tools"] = [dict(tool) for tool in request.tools]
    if request.max_tokens is not None:
        body["max_tokens"] = request.max_tokens
    if request.stop:
        body["stop"] = list(request.stop)
    if (sampling := request.sampling) is not None:
        names = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "seed")
        if ours:
            names += ("top_k", "min_p", "repetition_penalty")
        body |= {name: value for name in names if (value := getattr(sampling, name)) is not None}
    return body


def read_events(data: Iterator[str]) -> Iterator[Event]:
    """Events from the `data:` fields of a stream; tool calls come whole, as the engine's do.

    Raises BackendUnavailable for an error in the stream, and for one that ends without a finish reason.
    """
    began, first = time.perf_counter(), 0.0
    calls: dict[int, dict[str, str]] = {}
    finish, usage, timings, pieces = "", {}, {}, 0
    for text in data:
        if text == "[DONE]":
            break
        try:
            chunk = json.loads(text)
        except ValueError as error:
            raise BackendUnavailable("the server sent an event that is not JSON") from error
        if not isinstance(chunk, dict):
            continue
        if error := chunk.get("error"):
            raise BackendUnavailable(f"the server says: {error.get('message') if isinstance(error, dict) else error}")
        if progress := chunk.get("prompt_progress"):
            yield Progress("prefill", _whole(progress.get("processed")), _whole(progress.get("total")))
        usage, timings = chunk.get("usage") or usage, chunk.get("timings") or timings
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            for kind, words in (
                (Reasoning, delta.get("reasoning_content") or delta.get("reasoning")),
                (Text, delta.get("content")),
            ):
                if words:
                    pieces += 1
                    first = first or time.perf_counter()
                    yield kind(words)
            for part in delta.get("tool_calls") or ():
                call = calls.setdefault(_whole(part.get("index")), {"id": "", "name": "", "arguments": ""})
                function = part.get("function") or {}
                call["id"] = part.get("id") or call["id"]
                call["name"] += function.get("name") or ""
                call["arguments"] += function.get("arguments") or ""
            finish = choice.get("finish_reason") or finish
    if not finish:
        raise BackendUnavailable("the server stopped in the middle of the answer")
    for call in calls.values():
        yield ToolCall(call["name"], _arguments(call["arguments"]), call["id"])
    yield _done(finish, usage, timings, pieces, began, first or time.perf_counter())


def _done(
    finish: str, usage: Mapping[str, Any], timings: Mapping[str, Any], pieces: int, began: float, first: float
) -> Done:
    """The server's own numbers where it gives them, else what was seen from here."""
    ended = time.perf_counter()
    cached = _whole((usage.get("prompt_tokens_details") or {}).get("cached_tokens"))
    thought = _whole((usage.get("completion_tokens_details") or {}).get("reasoning_tokens"))
    tokens = _whole(usage.get("completion_tokens")) or pieces
    seen = (tokens - 1) / (ended - first) if tokens > 1 and ended > first else 0.0
    stats = Stats(
        prompt_tps=float(timings.get("prompt_per_second") or 0.0),
        generation_tps=float(timings.get("predicted_per_second") or seen),
        time_to_first_token=first - began,
        total_time=ended - began,
        extra={"reuse": timings["reuse"]} if timings.get("reuse") else {},
    )
    reason = finish if finish in ("stop", "length", "tool_calls") else "stop"
    return Done(cast(FinishReason, reason), Usage(_whole(usage.get("prompt_tokens")), tokens, thought, cached), stats)


def _data(response: http.client.HTTPResponse) -> Iterator[str]:
    """The `data` of each server-sent event; comments keep the line open and say nothing."""
    while line := response.readline(MOST_LINE):
        text = line.decode(errors="replace").strip()
        if text.startswith("data:"):
            yield text[5:].strip()


def _message(message: Message) -> dict[str, Any]:
    sent: dict[str, Any] = {"role": message.role, "content": message.text}
    if not isinstance(message.content, str):
        sent["content"] = [_part(part) for part in message.content]
    if message.reasoning:
        sent["reasoning_content"] = message.reasoning
    if message.tool_calls:
        sent["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(dict(call.arguments), ensure_ascii=False)},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id:
        sent["tool_call_id"] = message.tool_call_id
    return sent


def _part(part: Any) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    kind, mime = ("image_url", "image/png") if isinstance(part, ImagePart) else ("video_url", "video/mp4")
    return {"type": kind, kind: {"url": f"data:{mime};base64,{base64.b64encode(part.data).decode()}"}}


def _arguments(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {"arguments": text}
    return found if isinstance(found, dict) else {"arguments": found}


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _why(body: bytes) -> str:
    """The sentence in an error's body, or its beginning."""
    try:
        error = json.loads(body)["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, TypeError, KeyError):
        return body[:200].decode(errors="replace").strip() or "nothing more"
