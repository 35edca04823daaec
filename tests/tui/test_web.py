"""The app in a browser: reached by this machine's own page, refused to every other."""

import base64
import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from qwen35_local.cli import parser
from qwen35_local.commands.browser import allowed, answer_flags, free_port, model_flags

pytest.importorskip("textual_serve")
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("host", "origin", "upgrade", "wanted"),
    [
        ("127.0.0.1:9", None, False, True),
        ("localhost:9", "http://localhost:9", True, True),
        ("localhost:9", "http://127.0.0.1:9", True, True),
        ("localhost:9", None, True, False),  # no browser: a WebSocket without an origin
        ("evil.test:9", "http://evil.test:9", True, False),  # a name that was made to point here
        ("127.0.0.1:9", "http://evil.test", True, False),
        ("127.0.0.1:9", "null", True, False),
        ("127.0.0.1:8", None, False, False),
        (None, None, False, False),
    ],
)
def test_who_may_come(host: str | None, origin: str | None, upgrade: bool, wanted: bool):
    assert allowed(host, origin, 9, upgrade) is wanted


def test_what_was_said_reaches_the_server_and_the_app():
    """Every flag that is handed on means the same there."""
    chat = ["--model", "m", "--context", "64", "--memory", "2GB", "--hot-set", "h", "--experts", "e", "--direct"]
    chat += ["--threads", "3", "--speculate", "auto"]
    answer = ["--system", "Be brief.", "--no-think", "--temperature", "0.5", "--stop", "x", "--max-tokens", "9"]
    said = parser("chat").parse_args(["chat", *chat, *answer])
    served = parser("serve").parse_args(["serve", *model_flags(said)])
    names = (
        "model",
        "context",
        "memory",
        "dtype",
        "backend",
        "speculate",
        "hot_set",
        "experts",
        "lookahead",
        "direct",
        "gpu_layers",
        "threads",
    )
    assert [getattr(served, name) for name in names] == [getattr(said, name) for name in names]
    shown = parser("chat").parse_args(["chat", *answer_flags(said)])
    names = ("system", "no_think", "temperature", "stop", "max_tokens", "seed")
    assert [getattr(shown, name) for name in names] == [getattr(said, name) for name in names]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[int]:
    """The app in a browser, with an engine server that does not answer: the app must come up all the same."""
    port = free_port()
    command = [sys.executable, "-m", "qwen35_local.cli", "chat", "--web", str(port), "--connect", "http://127.0.0.1:9"]
    env = {**os.environ, "QWEN35_DATA": str(tmp_path)}
    with subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.DEVNULL) as child:
        end = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert child.poll() is None
                assert time.monotonic() < end
                time.sleep(0.05)
        yield port
        child.terminate()


def handshake(port: int, origin: str) -> tuple[int, bytes]:
    """Status of a WebSocket's handshake, and what came until the composer was drawn."""
    with socket.create_connection(("127.0.0.1", port), 60) as line:
        key = base64.b64encode(os.urandom(16)).decode()
        line.sendall(
            f"GET /ws?width=80&height=24 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nOrigin: {origin}\r\n"
            f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        seen = line.recv(4096)
        status = int(seen.split()[1])
        while status == 101 and b"Ask anything" not in seen:
            chunk = line.recv(65536)
            assert chunk, seen[-300:]
            seen += chunk
        return status, seen


@pytest.mark.slow
def test_a_browser_sees_the_app_and_others_see_nothing(served: int):
    page = http.client.HTTPConnection("127.0.0.1", served, timeout=30)
    page.request("GET", "/")
    answer = page.getresponse()
    assert answer.status == 200
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert b"qwen35 chat" in answer.read()
    page.request("GET", "/", headers={"Host": f"evil.test:{served}"})
    answer = page.getresponse()
    assert answer.status == 403
    answer.read()
    page.close()
    assert handshake(served, "http://evil.test")[0] == 403
    status, seen = handshake(served, f"http://127.0.0.1:{served}")
    assert status == 101
    assert b"Ask anything" in seen
