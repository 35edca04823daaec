"""Media that a request names by address: public ones only, bounded, and files only below one directory."""

import base64
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from qwen35_local.server import media, remote
from qwen35_local.server.app import Settings
from qwen35_local.server.media import Media
from qwen35_local.server.refusal import Refused

PICTURE = b"bytes of a picture"
Handle = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture
def web(monkeypatch) -> Iterator[Callable[[Handle], str]]:
    """`web(handle)` serves on 127.0.0.1 and gives the URL; that address alone counts as public."""
    monkeypatch.setattr(remote, "is_public", lambda address: address == "127.0.0.1")
    servers = []

    def start(handle: Handle) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                try:
                    handle(self)
                except OSError:
                    self.close_connection = True  # the other side has left

            def log_message(self, format: str, *args: object) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def answer(body: bytes = PICTURE, status: int = 200, **headers: str) -> Handle:
    def handle(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)

    return handle


def refused(fetch: Callable[[], object]) -> str:
    with pytest.raises(Refused) as info:
        fetch()
    assert info.value.status == 400
    return str(info.value)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.9.9.9", "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1"),
        *("0.0.0.0", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1%eth0", "fc00::1", "ff02::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"),
    ],
)
def test_addresses_of_this_network(address):
    assert not remote.is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_addresses_of_the_internet(address):
    assert remote.is_public(address)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f000001", "127.1", "0"])
def test_loopback_by_any_name(host):
    said = refused(lambda: Media(remote=True).fetch(f"http://{host}:1/a.png"))
    assert "not a public address" in said or "did not give the media" in said  # a resolver may not know the spelling


def test_one_private_address_among_several_is_enough(monkeypatch):
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 80)) for ip in ("93.184.216.34", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: found)
    assert "10.0.0.1" in refused(lambda: Media(remote=True).fetch("http://two.test/a.png"))


def test_the_address_that_was_checked_is_the_one_connected_to(web, monkeypatch):
    """A name that has another address the second time is not asked a second time."""
    port, real, asked = int(web(answer()).rpartition(":")[2]), socket.getaddrinfo, []

    def resolve(host, *args, **options):
        if host != "changes.test":
            return real(host, *args, **options)
        asked.append(host)
        return real("127.0.0.1" if len(asked) == 1 else "127.0.0.2", *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert Media(remote=True).fetch(f"http://changes.test:{port}/") == PICTURE
    assert asked == ["changes.test"]


def test_it_is_fetched_also_after_redirects(web):
    target = web(answer())
    for status in (301, 302, 303, 307, 308):
        assert Media(remote=True).fetch(web(answer(b"", status, Location=target))) == PICTURE


@pytest.mark.parametrize("location", ["http://127.0.0.2/", "http://169.254.169.254/latest", "file:///etc/passwd", ""])
def test_redirects_pass_the_same_door(web, location):
    url = web(answer(b"", 302, Location=location))
    refused(lambda: Media(remote=True).fetch(url))


def test_redirects_end(web):
    assert "more than 3" in refused(lambda: Media(remote=True).fetch(web(answer(b"", 302, Location="/again"))))


@pytest.mark.parametrize("status", [204, 401, 404, 500])
def test_other_answers_are_refused(web, status):
    assert str(status) in refused(lambda: Media(remote=True).fetch(web(answer(b"", status))))


@pytest.mark.parametrize("length", [{}, {"Content-Length": "5"}])
def test_endless_bodies_are_cut(web, monkeypatch, length):
    monkeypatch.setattr(media, "MAX_MEDIA", 1 << 20)
    sent = [0]

    def pour(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        while sent[0] < 1 << 26:
            sent[0] += request.wfile.write(b"x" * 65536)

    url = web(pour)
    assert f"more than {1 << 20} bytes" in refused(lambda: Media(remote=True).fetch(url))
    assert sent[0] < 1 << 25


@pytest.mark.parametrize("where", ["head", "body"])
def test_a_drip_is_cut(web, monkeypatch, where):
    """Each byte comes in time; the whole does not."""
    monkeypatch.setattr(remote, "TOTAL_TIME", 0.6)

    def drip(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\n" + (b"" if where == "head" else b"\r\n"))
        for _ in range(100):
            request.wfile.write(b"X")
            time.sleep(0.05)

    url, began = web(drip), time.monotonic()
    assert "did not give the media" in refused(lambda: Media(remote=True).fetch(url))
    assert time.monotonic() - began < 4


@pytest.mark.parametrize("url", ["ftp://a.test/a", "javascript:1", "http://u:p@a.test/", "http:///a", "//a.test/a", ""])
def test_other_addresses_are_refused(url):
    refused(lambda: Media(remote=True).fetch(url))


@pytest.mark.parametrize(
    "uri", ["data:image/png;base64", "data:image/png;base64,%%%", "data:;base64,QQ", "data:,", "data:image/png;base64,"]
)
def test_data_uris_that_hold_nothing(uri):
    refused(lambda: Media().fetch(uri))


def test_data_uris():
    assert Media().fetch("data:image/png;base64," + base64.b64encode(PICTURE).decode()) == PICTURE
    assert Media().fetch("data:,a%20b") == b"a b"


def test_large_data_uris(monkeypatch):
    monkeypatch.setattr(media, "MAX_MEDIA", 10)
    assert "more than 10 bytes" in refused(lambda: Media().fetch("data:,12345678901"))


def test_files_only_below_the_directory(tmp_path):
    inside = tmp_path / "pictures of mine"
    inside.mkdir()
    (inside / "a.png").write_bytes(PICTURE)
    (tmp_path / "secret").write_bytes(b"secret")
    (inside / "out").symlink_to(tmp_path / "secret")
    (inside / "zero").symlink_to("/dev/zero")
    (inside / "loop").symlink_to(inside / "loop")
    os.mkfifo(inside / "pipe")
    files = Media(inside)
    quoted = f"file://{inside}/".replace(" ", "%20")
    assert files.fetch(f"{quoted}a.png") == PICTURE
    assert files.fetch(f"file://localhost{inside}/a.png") == PICTURE
    for name in ("../secret", "%2e%2e/secret", "out", "zero", "loop", "pipe", "missing", "", "a.png/b", "%00"):
        refused(lambda name=name: files.fetch(quoted + name))
    refused(lambda: files.fetch(f"file://other{inside}/a.png"))
    assert "--media-dir" in refused(lambda: Media().fetch(f"{quoted}a.png"))


def asked_for(url: str) -> dict:
    return {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]}


def test_requests_reach_neither_web_nor_files_by_default(serve, tmp_path):
    (tmp_path / "a.png").write_bytes(PICTURE)
    server = serve(["</think>never"])
    for url, option in (
        ("http://example.test/a.png", "--allow-remote-media"),
        (f"file://{tmp_path}/a.png", "--media-dir"),
    ):
        got = server.chat(**asked_for(url))
        assert got.status_code == 400
        assert option in got.json()["error"]["message"]
        assert got.json()["error"]["code"] == "invalid_media"
    assert server.engine.requests == []


def test_requests_reach_what_the_user_allowed(serve, web, tmp_path):
    (tmp_path / "a.png").write_bytes(PICTURE)
    server = serve(["</think>one", "</think>two"], settings=Settings(media=Media(tmp_path, remote=True)))
    hits = []
    counted = answer()
    url = web(lambda request: hits.append(request.path) or counted(request))
    for address in (f"{url}/a.png", f"file://{tmp_path}/a.png"):
        got = server.chat(**asked_for(address))
        assert got.status_code == 200, got.text
        [part] = server.engine.requests[-1].messages[-1].content
        assert part.data == PICTURE
    assert hits == ["/a.png"]  # once
    got = server.chat(**asked_for("http://127.0.0.2/a.png"))
    assert (got.status_code, got.json()["error"]["param"]) == (400, "messages")
