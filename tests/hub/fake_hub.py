"""A small Hub over real HTTP: the API that huggingface_hub speaks, resolve with a redirect to a second host, ranges.

Faults are functions `fault(request) -> Fault | None`, asked for every request before it is answered.
"""

import contextlib
import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34
TOKEN = "hf_secret"


@dataclass(frozen=True)
class Fault:
    """`status` instead of the answer; `cut` ends the body after so many bytes, `stall` keeps it open after them."""

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: int | None = None
    stall: int | None = None
    ignore_range: bool = False
    data: bytes | None = None
    etag: str = ""


@dataclass
class Request:
    kind: str  # api, resolve or cdn
    path: str
    headers: dict[str, str]
    number: int  # of requests of this kind, from 0
    sent: int = 0


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients die in these tests."""


@dataclass
class FakeHub:
    """`files` are those of repository `me/model`. `rate` is bytes a second for each connection."""

    files: dict[str, bytes]
    fault: Callable[[Request], Fault | None] = lambda request: None
    rate: float | None = None
    gated: bool = False
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._servers = [self._serve(("127.0.0.1", 0)), self._serve(("127.0.0.1", 0))]
        hub, cdn = (server.server_address[1] for server in self._servers)
        self.endpoint, self.cdn = f"http://127.0.0.1:{hub}", f"http://localhost:{cdn}"
        return self

    def _serve(self, address: tuple[str, int]) -> Quiet:
        handler = type("Handler", (_Handler,), {"hub": self})
        server = Quiet(address, handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return server

    def __exit__(self, *_: Any) -> None:
        self._stopped.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def seen(self, kind: str) -> list[Request]:
        return [request for request in self.requests if request.kind == kind]

    @property
    def sent(self) -> int:
        """Bytes of file contents that left the server."""
        return sum(request.sent for request in self.requests if request.kind == "cdn")

    def record(self, kind: str, path: str, headers: dict[str, str]) -> Request:
        with self._lock:
            request = Request(kind, path, headers, len(self.seen(kind)))
            self.requests.append(request)
            return request

    def is_lfs(self, path: str) -> bool:
        return path.endswith((".safetensors", ".gguf"))

    def tree(self) -> list[dict[str, Any]]:
        entries = []
        for path, data in self.files.items():
            entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": git_hash(data)}
            if self.is_lfs(path):
                entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
            entries.append(entry)
        return entries


def git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        kind = "api" if path.startswith("/api/") else "cdn" if path.startswith("/cdn/") else "resolve"
        request = hub.record(kind, path, dict(self.headers))
        fault = hub.fault(request) or Fault()
        if fault.status:
            return self._reply(fault.status, fault.body, fault.headers)
        if kind == "api":
            return self._api(path)
        if not path.startswith(("/me/model/resolve/", "/cdn/")):
            return self._reply(404, b"", {"X-Error-Code": "RepoNotFound"})
        name = path.split(f"/{COMMIT}/", 1)[-1] if kind == "resolve" else path.removeprefix("/cdn/")
        if name not in hub.files:
            return self._reply(404, b"", {"X-Error-Code": "EntryNotFound"})
        if kind == "resolve" and hub.is_lfs(name):
            etag = fault.etag or hashlib.sha256(hub.files[name]).hexdigest()
            headers = {"Location": f"{hub.cdn}/cdn/{name}?signed=1", "X-Linked-ETag": f'"{etag}"'}
            headers |= {"X-Linked-Size": str(len(hub.files[name])), "X-Repo-Commit": COMMIT}
            return self._reply(302, b"", headers)
        return self._file(request, fault, hub.files[name] if fault.data is None else fault.data)

    def _api(self, path: str) -> None:
        hub = self.hub
        if not path.startswith("/api/models/me/model"):
            return self._reply(401, b"", {"X-Error-Code": "RepoNotFound"})
        if hub.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._reply(403, b"", {"X-Error-Code": "GatedRepo"})
        if "/tree/" in path:
            return self._json(hub.tree())
        if "/revision/" in path and path.rsplit("/", 1)[1] not in ("main", COMMIT):
            return self._reply(404, b"", {"X-Error-Code": "RevisionNotFound"})
        return self._json({"id": "me/model", "sha": COMMIT, "cardData": {"license": "apache-2.0"}})

    def _json(self, value: Any) -> None:
        self._reply(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _reply(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _file(self, request: Request, fault: Fault, data: bytes) -> None:
        size, start, end = len(data), 0, len(data)
        wanted = self.headers.get("Range")
        if wanted and not fault.ignore_range:
            first, last = wanted.removeprefix("bytes=").split("-")
            start, end = int(first), min(int(last) + 1, size)
            if start >= size and size:
                self._reply(416, b"", {"Content-Range": f"bytes */{size}"})
                return
        self.send_response(206 if start or end < size or (wanted and not fault.ignore_range and size) else 200)
        if wanted and not fault.ignore_range:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.send_header("Content-Length", str(end - start))
        self.send_header("Content-Type", "application/octet-stream")
        if request.kind == "resolve":
            self.send_header("ETag", f'"{fault.etag or git_hash(data)}"')
            self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.hub.rate:  # a wide pipe would hold what a killed client never reads
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 << 10)
        body = memoryview(data)[start:end]
        stop = next((n for n in (fault.cut, fault.stall) if n is not None), len(body))
        piece = 4096 if self.hub.rate else 1 << 16
        try:
            while request.sent < min(stop, len(body)):
                chunk = body[request.sent : min(request.sent + piece, stop)]
                self.wfile.write(chunk)
                request.sent += len(chunk)
                if self.hub.rate:
                    time.sleep(len(chunk) / self.hub.rate)
            if fault.stall is not None:
                self.hub._stopped.wait(30)
        except OSError:
            pass
        if request.sent < len(body):
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
