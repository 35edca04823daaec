"""A real server on a real socket, in a thread: on the scripted engine, or on the miniature."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
import uvicorn

from qwen35_local.backends.scripted import Reply, ScriptedEngine
from qwen35_local.bridge import Worker
from qwen35_local.chat.tokenizer import Tokenizer
from qwen35_local.engine import Engine
from qwen35_local.server.app import Settings, make_app
from qwen35_local.server.listen import configure, listen


@dataclass
class Running:
    """A server under test, and the clients that it handed out. `engine` is the scripted one, where it is that."""

    url: str
    worker: Worker
    engine: Any = None
    clients: ExitStack = field(default_factory=ExitStack)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def openai(self, **options: Any) -> openai.OpenAI:
        client = openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, **options)
        return self.clients.enter_context(client)

    def anthropic(self) -> anthropic.Anthropic:
        client = anthropic.Anthropic(base_url=self.url, api_key="none", max_retries=0)
        return self.clients.enter_context(client)

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"content-type": "application/json"} | options.pop("headers", {})
        return httpx.post(self.url + path, content=data, headers=headers, timeout=30, **options)

    def chat(self, **body: Any) -> httpx.Response:
        return self.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], **body})

    def raw(self, data: bytes, timeout: float = 5) -> bytes:
        """All that the server says to some bytes, until it closes or falls silent."""
        with socket.create_connection(("127.0.0.1", self.port), timeout) as connection:
            connection.sendall(data)
            got = b""
            try:
                while piece := connection.recv(65536):
                    got += piece
            except TimeoutError:
                pass
            return got


@contextmanager
def running(open_engine: Callable[..., Engine], settings: Settings | None = None, **limits: Any) -> Iterator[Running]:
    worker = Worker(open_engine, **limits)
    bound = listen("127.0.0.1", 0)
    server = uvicorn.Server(configure(make_app(worker, settings), drain=1))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[bound])), daemon=True)
    worker.start()
    thread.start()
    try:
        worker._loaded.result(60)
        with ExitStack() as clients:  # left to the garbage collector, sockets are closed late and with a warning
            yield Running(f"http://127.0.0.1:{bound.getsockname()[1]}", worker, clients=clients)
    finally:
        worker.close(timeout=20)
        server.should_exit = True
        thread.join(20)
        bound.close()
        assert not thread.is_alive()


Serve = Callable[..., Running]


@pytest.fixture
def serve(tokenizer: Tokenizer) -> Iterator[Serve]:
    """`serve(replies, settings=…, context=…, delay=…, waiting=…, parallel=…)`: a server that gives these replies."""
    stack = []

    def start(replies: Iterable[Reply] = (), settings: Settings | None = None, **options: Any) -> Running:
        limits = {name: options.pop(name) for name in ("waiting", "parallel", "idle_timeout") if name in options}
        engines = []

        def open_engine(report: Any) -> Engine:
            engines.append(ScriptedEngine(tokenizer, replies, **options))
            return engines[-1]

        context = running(open_engine, settings, **limits)
        found = context.__enter__()
        stack.append(context)
        found.engine = engines[0]
        return found

    yield start
    for context in stack:
        context.__exit__(None, None, None)


@pytest.fixture(scope="session")
def miniature() -> Iterator[Running]:
    """The shipped model behind the real server."""
    import qwen35_local

    with running(lambda report: qwen35_local.open("miniature", on_progress=report), parallel=4, waiting=32) as found:
        yield found


@pytest.fixture(scope="session")
def gguf_miniature(llama_cpp: None) -> Iterator[Running]:
    """The same through llama.cpp."""
    import qwen35_local

    def open_engine(report: Any) -> Engine:
        return qwen35_local.open("miniature", backend="llama.cpp", threads=1, context=4096, on_progress=report)

    with running(open_engine, parallel=2) as found:
        yield found


@pytest.fixture(scope="session")
def seeing(sighted: Path) -> Iterator[Running]:
    """A tiny random model with eyes behind the real server."""
    import qwen35_local

    with running(lambda report: qwen35_local.open(sighted, on_progress=report), parallel=2) as found:
        yield found


@pytest.fixture
def blind(pristine: Path) -> Iterator[Running]:
    """The same without eyes."""
    import qwen35_local

    with running(lambda report: qwen35_local.open(pristine, on_progress=report)) as found:
        yield found
