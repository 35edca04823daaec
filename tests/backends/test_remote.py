"""The engine over HTTP: against our own server's stream format, and against servers that break it."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from qwen35_local.backends.remote import RemoteEngine, read_events, request_body
from qwen35_local.engine import ChatRequest, ImagePart, Message, TextPart, gather
from qwen35_local.errors import BackendUnavailable, UsageError
from qwen35_local.events import Progress, ToolCall

CARD = {"id": "m", "object": "model", "owned_by": "qwen35-local", "context_length": 4096, "vision": True}


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> str:
    return json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more})


class Server(BaseHTTPRequestHandler):
    """Says `lines` to every question."""

    lines: ClassVar[list[str]] = []
    asked: ClassVar[list[dict[str, Any]]] = []
    status = 200

    def do_GET(self) -> None:
        self._send(200, json.dumps({"data": [CARD]}).encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Server.asked.append(body | {"authorization": self.headers.get("Authorization")})
        if Server.status != 200:
            return self._send(Server.status, b'{"error": {"message": "too long"}}')
        return self._send(200, "".join(f"{line}\n\n" for line in Server.lines).encode())

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    Server.status, Server.lines = 200, []
    Server.asked.clear()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_whole_answer(url: str):
    Server.lines = [
        ": ping",
        'data: {"choices": [], "prompt_progress": {"total": 9, "processed": 4}}',
        "data: " + chunk({"role": "assistant", "content": ""}),
        "data: " + chunk({"reasoning_content": "hm"}),
        "data: " + chunk({"content": "Hé"}),
        "data: " + chunk({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": '{"n"'}}]}),
        "data: " + chunk({"tool_calls": [{"index": 0, "function": {"arguments": ": 3}"}}]}),
        "data: " + chunk({}, "tool_calls", timings={"predicted_per_second": 7.5}),
        'data: {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}}',
        "data: [DONE]",
    ]
    with RemoteEngine(url, "key") as engine:
        assert (engine.info.model, engine.info.context, engine.info.vision) == ("m", 4096, True)
        events = list(engine.chat("Hi", max_tokens=9, temperature=0.5))
        assert Progress("prefill", 4, 9) in events
        answer = gather(events)
        assert (answer.reasoning, answer.text) == ("hm", "Hé")
        assert answer.tool_calls == (ToolCall("f", {"n": 3}, "c"),)
        assert (answer.done.usage.prompt_tokens, answer.done.stats.generation_tps) == (9, 7.5)
    asked = Server.asked[0]
    assert (asked["max_tokens"], asked["temperature"], asked["authorization"]) == (9, 0.5, "Bearer key")


def test_errors_are_sentences(url: str):
    Server.status = 400
    with pytest.raises(BackendUnavailable, match="400: too long"):
        list(RemoteEngine(url).chat("Hi"))
    with pytest.raises(BackendUnavailable, match="no model 'other'"):
        RemoteEngine(url, model="other")
    with pytest.raises(BackendUnavailable, match="no server answers"):
        RemoteEngine("http://127.0.0.1:9")
    with pytest.raises(UsageError, match="not the address"):
        RemoteEngine("ftp://x")


def test_a_cut_stream_is_an_error(url: str):
    Server.lines = ["data: " + chunk({"content": "half"})]
    with pytest.raises(BackendUnavailable, match="middle of the answer"):
        list(RemoteEngine(url).chat("Hi"))


@pytest.mark.parametrize(
    ("data", "said"),
    [('{"error": {"message": "boom"}}', "says: boom"), ("{nonsense", "not JSON")],
)
def test_an_error_in_the_stream(data: str, said: str):
    with pytest.raises(BackendUnavailable, match=said):
        list(read_events(iter([chunk({"content": "a"}), data])))


def test_pictures_go_as_data_uris_and_foreign_servers_get_only_standard_fields():
    message = Message("user", (ImagePart(b"\x89PNG"), TextPart("what?")))
    request = ChatRequest.of([message], temperature=1.0, top_k=5)
    body = request_body(request, "m", ours=False)
    assert body["messages"][0]["content"][0]["image_url"]["url"] == "data:image/png;base64,iVBORw=="
    assert "top_k" not in body
    assert "chat_template_kwargs" not in body
    assert request_body(request, "m", ours=True)["top_k"] == 5
    preserving = request_body(replace(request, preserve_thinking=True), "m", ours=True)
    assert preserving["chat_template_kwargs"] == {"enable_thinking": True, "preserve_thinking": True}
    begun = replace(request, prefill="It is", thinking_budget=9)
    assert request_body(begun, "m", ours=False)["messages"][-1] == {"role": "assistant", "content": "It is"}
    assert "thinking_budget" not in request_body(begun, "m", ours=False)
    assert request_body(begun, "m", ours=True)["thinking_budget"] == 9
