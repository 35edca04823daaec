"""The guard and the strict reader: what must not come in, over real sockets."""

import json
import socket
import threading
import time

import httpx
import pytest
from server_cases import HI, TOOL

from qwen35_local.server import guard, listen
from qwen35_local.server.app import Settings
from qwen35_local.server.guard import Rules
from qwen35_local.server.refusal import Refused
from qwen35_local.server.strict import MAX_DEPTH, loads


@pytest.fixture
def door(serve):
    return serve()


def status_of(response: bytes) -> int:
    return int(response.split(b" ", 2)[1]) if response else 0


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:1", 200),  # a tunnel may use another port
        ("127.0.0.1", 200),
        ("[::1]:8035", 200),
        ("evil.test", 403),
        ("localhost.evil.test", 403),
        ("localhost.", 403),
        ("localhost:x", 403),
        ("", 403),
        ("127.0.0.1.evil.test", 403),
    ],
)
def test_hosts(door, host, status):
    got = door.raw(f"GET /v1/models HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    assert status_of(got) == status


@pytest.mark.parametrize(
    "head",
    [
        b"GET /v1/models HTTP/1.1\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nHost: evil.test\r\n",
        b"GET http://evil.test/v1/models HTTP/1.1\r\nHost: localhost\r\n",
        b"GET /v1/models HTTP/1.0\r\n",
        b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n",
    ],
)
def test_ambiguous_heads_are_400(door, head):
    assert status_of(door.raw(head + b"Connection: close\r\n\r\n0\r\n\r\n")) == 400


@pytest.mark.parametrize("lines", [[b"X: " + b"a" * 100_000], [b"X-%d: a" % at for at in range(1000)]])
def test_large_heads_are_refused(door, lines):
    got = door.raw(b"\r\n".join([b"GET /health HTTP/1.1", b"Host: localhost", *lines, b"Connection: close", b"", b""]))
    assert status_of(got) in (400, 431)


@pytest.mark.parametrize("origin", ["null", "https://evil.test", "http://localhost:3000"])
def test_web_pages_are_kept_out(door, origin):
    for answer in (
        httpx.get(door.url + "/v1/models", headers={"origin": origin}),
        httpx.options(door.url + "/v1/chat/completions", headers={"origin": origin}),
        door.post("/v1/chat/completions", {"messages": HI}, headers={"origin": origin}),
    ):
        assert answer.status_code == 403
        assert not [name for name in answer.headers if name.startswith("access-control")]
    assert door.engine.requests == []


def test_a_listed_origin_gets_cors(serve):
    origin = "http://localhost:3000"
    door = serve(settings=Settings(rules=Rules(origins=(origin,), api_key="sesame")))
    preflight = httpx.options(door.url + "/v1/chat/completions", headers={"origin": origin})
    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (204, origin)
    headers = {"origin": origin, "authorization": "Bearer sesame"}
    assert httpx.get(door.url + "/v1/models", headers=headers).headers["access-control-allow-origin"] == origin


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": "Bearer sésame".encode()}, 401),
        ({"authorization": "Bearer sesame"}, 200),
        ({"x-api-key": "sesame"}, 200),
    ],
)
def test_keys(serve, headers, status):
    door = serve(settings=Settings(rules=Rules(api_key="sesame")))
    assert httpx.get(door.url + "/v1/models", headers=headers).status_code == status
    assert httpx.get(door.url + "/health").status_code == 200


GOOD = b'{"content": "Hi"}'
BODIES = {
    "empty": b"",
    "cut": b'{"content": "Hi"',
    "trailing comma": b'{"content": "Hi",}',
    "two documents": GOOD + GOOD,
    "array": b"[1]",
    "NaN": b'{"content": NaN}',
    "Infinity": b'{"content": -Infinity}',
    "1e999": b'{"content": 1e999}',
    "10,000 digits": b'{"content": ' + b"1" * 10_000 + b"}",
    "invalid UTF-8": b'{"content": "\xff"}',
    "UTF-16": GOOD.decode().encode("utf-16"),
    "BOM": b"\xef\xbb\xbf" + GOOD,
    "lone surrogate": b'{"content": "\\ud800"}',
    "raw NUL": b'{"content": "\0"}',
    "duplicate keys": b'{"content": "a", "content": "b"}',
    "deep arrays": b'{"content": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "deep and unclosed": b"[" * 100_000,
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_bad_bodies_are_400(door, body):
    answer = door.post("/tokenize", body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"]


def test_brackets_in_strings_are_not_depth():
    assert loads(b'{"a": "' + b"[" * 1000 + b'\\""}') == {"a": "[" * 1000 + '"'}
    deep = b'{"a":' * MAX_DEPTH + b"1" + b"}" * MAX_DEPTH
    assert loads(deep)
    with pytest.raises(Refused, match="nested"):
        loads(b'{"a":' + deep + b"}")


def test_pairs_of_surrogates_and_nul_are_text():
    assert loads(b'{"a": "\\ud83d\\ude42\\u0000"}') == {"a": "🙂\0"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "text/plain"}, 415),
        ({"content-type": ""}, 415),
        ({"content-encoding": "gzip"}, 415),
        ({"content-encoding": "zstd"}, 415),
        ({"content-type": "application/json; charset=utf-8"}, 200),
    ],
)
def test_only_plain_json(door, headers, status):
    assert door.post("/tokenize", GOOD, headers=headers).status_code == status


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/chat/completions", 405), ("POST", "/nope", 404)])
def test_wrong_paths_and_methods(door, method, path, status):
    answer = httpx.request(method, door.url + path, json={})
    assert (answer.status_code, set(answer.json()["error"])) == (status, {"message", "type", "param", "code"})


@pytest.mark.parametrize("chunked", [False, True])
def test_large_bodies_are_413(serve, chunked):
    door = serve(settings=Settings(rules=Rules(max_body=1000)))
    if chunked:
        head = b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        head += b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        got = door.raw(head + b"".join(b"64\r\n" + b"a" * 100 + b"\r\n" for _ in range(20)) + b"0\r\n\r\n")
        assert status_of(got) == 413
    else:
        assert door.post("/tokenize", b"a" * 2000).status_code == 413


def test_slow_bodies_are_408(serve):
    door = serve(settings=Settings(rules=Rules(body_stall=0.2)))
    head = b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
    assert status_of(door.raw(head)) == 408


def test_slow_heads_are_closed(serve, monkeypatch):
    monkeypatch.setattr(listen, "HEADER_TIME", 0.2)
    door = serve()
    started = time.monotonic()
    assert door.raw(b"GET /health HTTP/1.1\r\nHost: loc", timeout=20) in (b"",)
    assert time.monotonic() - started < 15


def test_a_used_port_is_one_sentence():
    bound = listen.listen("127.0.0.1", 0)
    with pytest.raises(Exception, match="cannot listen on"):
        listen.listen("127.0.0.1", bound.getsockname()[1])
    bound.close()


def test_loopback_names():
    assert all(listen.is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "127.1.2.3"))
    assert not any(listen.is_loopback(host) for host in ("0.0.0.0", "192.168.1.2", "::", "example.test"))
    assert guard.LOOPBACK == ("localhost", "127.0.0.1", "[::1]")


def test_a_wide_bind_needs_a_key(capsys):
    from qwen35_local.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["serve", "--host", "0.0.0.0"])
    assert ended.value.code == 2
    assert "--api-key" in capsys.readouterr().err


def wait_for(condition, seconds: float = 60) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.01)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("when", ["prefill", "answer", "call"])
def test_leaving_cancels(serve, when, stream):
    call = "<tool_call>\n<function=f>\n<parameter=n>\n" + "3 " * 3000
    door = serve(["</think>" + ("one " * 3000 if when != "call" else call)], delay=0.005, context=30_000, chunk=8)
    content = "word " * 3000 if when == "prefill" else "Hi"
    fields = {"messages": [{"role": "user", "content": content}], "stream": stream, "tools": [{**TOOL}]}
    body = json.dumps(fields)
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", door.port)) as connection:
        connection.sendall((head + body).encode())
        wait_for(lambda: door.engine.requests and len(door.engine._session.ids) > (8 if when == "prefill" else 400))
    wait_for(lambda: door.worker.active == 0)
    tokens = len(door.engine._session.ids)
    time.sleep(0.1)
    assert len(door.engine._session.ids) == tokens < 3000


def test_leaving_the_queue(serve):
    door = serve(["</think>" + "one " * 120, "</think>two"], delay=0.01, parallel=1)
    first = threading.Thread(target=door.chat)
    first.start()
    wait_for(lambda: door.worker.active == 1)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(door.url + "/v1/chat/completions", json={"messages": HI}, timeout=0.5)
    wait_for(lambda: door.worker.waiting == 0)
    first.join()
    assert door.chat().status_code == 200


def test_a_full_queue_is_503(serve):
    door = serve(["</think>" + "one " * 50] * 9, delay=0.01, parallel=1, waiting=1)
    threads = [threading.Thread(target=door.chat) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_for(lambda: door.worker.active + door.worker.waiting == 2)
    answer = door.chat()
    assert (answer.status_code, answer.json()["error"]["type"]) == (503, "server_busy")
    assert int(answer.headers["retry-after"]) > 0
    assert httpx.get(door.url + "/health").json()["waiting"] == 1
    for thread in threads:
        thread.join()


def test_silence_is_filled_even_while_a_call_is_written(serve, monkeypatch):
    monkeypatch.setattr("qwen35_local.server.respond.SILENCE", 0.05)
    call = "<tool_call>\n<function=f>\n<parameter=n>\n" + "3 " * 40 + "\n</parameter>\n</function>\n</tool_call>"
    body = serve(["</think>" + call], delay=0.01).chat(
        stream=True, tools=[{"type": "function", "function": {"name": "f"}}]
    )
    assert body.text.count(": still working") >= 3
    assert body.text.endswith("data: [DONE]\n\n")


def test_a_reader_that_never_reads_is_bounded(serve):
    door = serve(["</think>" + "word " * 20_000], context=100_000, parallel=2)
    body = b'{"messages": [{"role": "user", "content": "Hi"}], "stream": true}'
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", door.port))
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        wait_for(lambda: door.engine.requests)
        seen = -1
        while len(door.engine._session.ids) != seen:  # until it has stopped
            seen = len(door.engine._session.ids)
            time.sleep(0.5)
        assert seen < 40_000
        assert door.chat(messages=[{"role": "user", "content": "x"}], max_tokens=1).status_code in (200, 503)
    wait_for(lambda: door.worker.active == 0)


def test_a_retry_joins_the_work_under_way(serve):
    door = serve(["</think>" + "one " * 60, "</think>two", "</think>three"], delay=0.01, parallel=4)
    answers: list[str] = []

    def ask(**headers: str) -> None:
        answer = door.post("/v1/chat/completions", {"messages": HI}, headers=headers).json()
        answers.append(answer["choices"][0]["message"]["content"])

    first = threading.Thread(target=ask)
    first.start()
    wait_for(lambda: door.worker.active == 1)
    retry = threading.Thread(target=ask, kwargs={"x-stainless-retry-count": "1"})
    retry.start()
    ask()  # no retry: an answer of its own
    first.join()
    retry.join()
    assert sorted(answers) == sorted(["one " * 60, "one " * 60, "two"])
    assert "qwen35_joined_total 1" in httpx.get(door.url + "/metrics").text
