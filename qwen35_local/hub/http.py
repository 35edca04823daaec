"""One ranged GET, and what its answer means. Redirects are followed by us, so that the token stays with its host."""

import http.client
import os
import re
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.message import Message
from typing import Any, cast
from urllib.parse import urljoin, urlsplit

from ..errors import DownloadError
from .remote import http_reason, not_the_hub

REDIRECTS = 5
LONGEST_WAIT = 300.0  # seconds; a Retry-After beyond it is not believed


class Again(Exception):
    """A failure that may pass: try again, `after` seconds later if the server said so."""

    def __init__(self, reason: str, after: float | None = None):
        super().__init__(reason)
        self.after = after


class StartOver(Exception):
    """The file on the server is not the one that was begun: nothing of it can be kept."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An open body. `start` is the first byte's place in the file: 0 if the server ignored the range."""

    body: http.client.HTTPResponse
    start: int
    etag: str


class Bodies:
    """The bodies that are being read, so that another thread can end those reads at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ends: set[socket.socket] = set()

    @contextmanager
    def reading(self, answer: Answer) -> Iterator[http.client.HTTPResponse]:
        """The body of `answer`, closed on the way out however that is taken."""
        with answer.body as body, socket.socket(fileno=os.dup(body.fileno())) as end:
            with self._lock:
                self._ends.add(end)
            try:
                yield body
            finally:
                with self._lock:
                    self._ends.discard(end)

    def cut(self) -> None:
        """Readers that wait for bytes find their connection closed."""
        with self._lock:
            for end in self._ends:
                with suppress(OSError):  # closed by the other side already
                    end.shutdown(socket.SHUT_RDWR)


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


class Client:
    """Opens ranges of files with the system's proxies and certificates. Used from many threads."""

    def __init__(self, headers: Mapping[str, str], timeout: float):
        """`headers` go to the first host only. `timeout` (seconds) is the longest silence of a socket."""
        self._headers = dict(headers) | {"Accept-Encoding": "identity"}
        self._timeout = timeout
        secure = urllib.request.HTTPSHandler(context=_certificates())
        self._opener = urllib.request.build_opener(_Stay, secure)

    def get(self, url: str, start: int, end: int, size: int, name: str) -> Answer:
        """Bytes start..end-1 of a file of `size` bytes. Raises Again, StartOver or DownloadError."""
        origin, linked_etag = url, ""
        for _ in range(REDIRECTS + 1):
            response = self._open(url, start, end, _host(url) == _host(origin))
            status = response.status
            linked_etag = _etag(response.headers.get("X-Linked-ETag")) or linked_etag
            if status in (301, 302, 303, 307, 308):
                target = response.headers.get("Location")
                response.close()
                if not target:
                    raise Again(f"a redirect of {name} leads nowhere")
                url = urljoin(url, target)
                if urlsplit(url).scheme not in ("http", "https"):
                    raise DownloadError(f"a redirect of {name} leads to {urlsplit(url).scheme}:, which is not followed")
                continue
            if status not in (200, 206):
                response.close()
                raise self._failure(status, response.headers, name, _endpoint(origin))
            etag = linked_etag or _etag(response.headers.get("ETag"))
            try:
                return Answer(response, _first_byte(response, start, end, size, name, _endpoint(origin)), etag)
            except BaseException:
                response.close()
                raise
        raise DownloadError(f"{name} is redirected more than {REDIRECTS} times")

    def _open(self, url: str, start: int, end: int, trusted: bool) -> http.client.HTTPResponse:
        headers = {"Range": f"bytes={start}-{end - 1}"} | (self._headers if trusted else {})
        try:
            return self._opener.open(urllib.request.Request(url, headers=headers), timeout=self._timeout)
        except urllib.error.HTTPError as error:  # also an answer
            return cast(http.client.HTTPResponse, error.fp)
        except (OSError, http.client.HTTPException) as error:
            raise Again(reason(error)) from error

    @staticmethod
    def _failure(status: int, headers: Message, name: str, endpoint: str) -> Exception:
        if status == 416:
            return StartOver(f"{name} has another length now")
        if status in (408, 425, 429) or status >= 500:
            return Again(f"the server answered {status}", _retry_after(headers))
        if headers.get("X-Error-Code") == "GatedRepo":
            return DownloadError(f"{name} is gated: accept its terms on its page and log in with `hf auth login`")
        return DownloadError(http_reason(status, name, endpoint))


def reason(error: Exception) -> str:
    """An error of sockets or HTTP, in words."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return "the connection stalled"
    return str(getattr(cause, "strerror", None) or cause or type(cause).__name__)


def _first_byte(response: http.client.HTTPResponse, start: int, end: int, size: int, name: str, endpoint: str) -> int:
    """Where the body begins; refuses bodies that cannot be this file, before a byte of them is written."""
    html = (response.headers.get("Content-Type") or "").startswith("text/html")
    if response.status == 206:
        found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("Content-Range") or "")
        if not found or (int(found[1]), int(found[2])) != (start, end - 1):
            raise Again(f"the server sent another range of {name} than was asked for")
        if found[3] not in ("*", str(size)):
            raise StartOver(f"{name} has {found[3]} bytes now, {size} were listed")
        return start
    length = response.headers.get("Content-Length")
    if html and not name.endswith((".html", ".htm")):
        raise DownloadError(not_the_hub(endpoint))
    if length is not None and int(length) != size:
        raise StartOver(f"{name} has {length} bytes now, {size} were listed")
    return 0


def _retry_after(headers: Message) -> float | None:
    try:
        seconds = float(headers.get("Retry-After") or "")
    except ValueError:  # absent, or a date; our own back-off serves
        return None
    return min(max(seconds, 0.0), LONGEST_WAIT)


def _etag(value: str | None) -> str:
    return (value or "").removeprefix("W/").strip('"')


def _host(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _endpoint(url: str) -> str:
    return "{}://{}".format(*_host(url))


def _certificates() -> ssl.SSLContext:
    """The system's certificates as huggingface_hub's transport sees them; a python.org build on macOS has none."""
    try:
        import truststore

        return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    except ImportError:
        return ssl.create_default_context()
