"""Fetching media from the web without becoming a way into the local network.

Each name is resolved once, every address it has must be public, and the connection goes to the address that was
checked, so an answer that changes in between changes nothing. Redirects pass the same door.
"""

import http.client
import ipaddress
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Timer
from time import monotonic
from urllib.parse import SplitResult, urljoin, urlsplit

from .refusal import Refused, bad

MAX_REDIRECTS = 3
STEP_TIME, TOTAL_TIME = 10.0, 30.0  # seconds


def fetch_remote(url: str, most: int) -> bytes:
    """The body of a public http(s) URL, at most `most` bytes. Raises Refused (400)."""
    ends = monotonic() + TOTAL_TIME
    for _ in range(MAX_REDIRECTS + 1):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise _bad("a media URL must be http or https, with a host and without a user")
        try:
            found = _get(parts, most, ends)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _bad(f"{parts.hostname} did not give the media: {error}") from error
        if isinstance(found, bytes):
            return found
        url = urljoin(url, found)
    raise _bad(f"the media URL redirects more than {MAX_REDIRECTS} times")


def _get(parts: SplitResult, most: int, ends: float) -> bytes | str:
    """The body, or where the server sends us."""
    assert parts.hostname
    port = parts.port or (443 if parts.scheme == "https" else 80)
    connection = http.client.HTTPConnection(parts.hostname, port, timeout=STEP_TIME)
    connection.sock = socket.create_connection((public_address(parts.hostname, port), port), STEP_TIME)
    try:
        with _cut_at(ends, connection.sock):
            return _exchange(connection, parts, most)
    finally:
        connection.close()


@contextmanager
def _cut_at(ends: float, sock: socket.socket) -> Iterator[None]:
    """Cuts the connection at that time: a byte now and then would reset the time-out of each step for ever."""
    with sock.dup() as same:

        def cut() -> None:
            with suppress(OSError):
                same.shutdown(socket.SHUT_RDWR)

        alarm = Timer(max(0.0, ends - monotonic()), cut)
        alarm.start()
        try:
            yield
            if monotonic() > ends:
                raise ValueError(f"it took more than {TOTAL_TIME:g} seconds")
        finally:
            alarm.cancel()
            alarm.join()


def _exchange(connection: http.client.HTTPConnection, parts: SplitResult, most: int) -> bytes | str:
    if parts.scheme == "https":
        connection.sock = ssl.create_default_context().wrap_socket(connection.sock, server_hostname=parts.hostname)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection.request("GET", target, headers={"Accept": "image/*, video/*", "Accept-Encoding": "identity"})
    with connection.getresponse() as response:
        if response.status in (301, 302, 303, 307, 308):
            return response.getheader("Location") or ""
        if response.status != 200:
            raise ValueError(f"HTTP status {response.status}")
        body = response.read(most + 1)
        if len(body) > most:
            raise _bad(f"the media at {parts.hostname} has more than {most} bytes")
        return body


def public_address(host: str, port: int) -> str:
    """An address of `host`. Raises Refused if any of them is not of the public internet."""
    found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    for address in found:
        if not is_public(address):
            raise _bad(f"{host} is at {address}, which is not a public address")
    return sorted(found)[0]


def is_public(address: str) -> bool:
    """Whether an address belongs to the internet, also when it is an IPv4 one in IPv6 clothes."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


def _bad(message: str) -> Refused:
    return bad(message, "messages", "invalid_media")
