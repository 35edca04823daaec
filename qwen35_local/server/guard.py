"""The door, in front of everything: which hosts and origins, how much, how deep, how slow, and with which key.

A web page that a user happens to visit can send requests to localhost. It is kept out by the Host list (a rebound name
is not on it), by the Origin list (empty by default, and no CORS headers), and by asking for JSON.
"""

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any

from .refusal import Refused, bad, refusal_of

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
MAX_HEADERS, MAX_HEADER_BYTES = 100, 32 * 1024
OPEN_PATHS = ("/health",)  # answered without a key: a probe has none


@dataclass(frozen=True)
class Rules:
    """`hosts` and `origins` are exact names; sizes are in bytes, times in seconds."""

    hosts: tuple[str, ...] = LOOPBACK
    origins: tuple[str, ...] = ()
    api_key: str | None = None
    max_body: int = 64 * 2**20
    max_bodies: int = 256 * 2**20  # of all requests that are being read
    body_stall: float = 20.0  # without a byte
    body_time: float = 300.0


class Guard:
    """ASGI middleware. The body is read here, whole, so that nothing behind it waits for a slow sender."""

    def __init__(self, app: App, rules: Rules):
        self._app = app
        self._rules = rules
        self._reading = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            return None  # no websockets here
        allowed = self._rules.origins
        origin = _one(scope, b"origin")
        try:
            self._check(scope)
            if origin in allowed and scope["method"] == "OPTIONS":
                return await reply(send, 204, b"", _cors(origin, preflight=True))
            body = await self._body(scope, receive)
        except Refused as refused:
            return await refuse(scope, send, refused)
        sent = False

        async def replay() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def with_cors(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_cors(origin)]
            await send(message)

        return await self._app(scope, replay, with_cors if origin in allowed else send)

    def _check(self, scope: Scope) -> None:
        headers = scope["headers"]
        if len(headers) > MAX_HEADERS or sum(len(name) + len(value) for name, value in headers) > MAX_HEADER_BYTES:
            raise Refused(431, f"the headers exceed {MAX_HEADERS} lines or {MAX_HEADER_BYTES} bytes")
        names = [name for name, _ in headers]
        if names.count(b"host") != 1:
            raise bad("send exactly one Host header")
        if b"content-length" in names and b"transfer-encoding" in names:
            raise bad("send Content-Length or Transfer-Encoding, not both")
        if not scope.get("raw_path", b"/").startswith(b"/"):
            raise bad("the request target must be a path")
        host = _one(scope, b"host") or ""
        if not _host_allowed(host, self._rules.hosts):
            raise Refused(403, f"host {host[:80]!r} is not served here: start the server with --allow-host to add it")
        origin = _one(scope, b"origin")
        if origin is not None and origin not in self._rules.origins:
            raise Refused(
                403, f"web pages of {origin[:80]!r} may not use this server: start it with --allow-origin to let them"
            )
        if origin is None or scope["method"] != "OPTIONS":
            self._check_key(scope)

    def _check_key(self, scope: Scope) -> None:
        key = self._rules.api_key
        if key is None or scope["path"] in OPEN_PATHS:
            return
        bearer = (_one(scope, b"authorization") or "").removeprefix("Bearer ").strip()
        given = [given for given in (bearer, _one(scope, b"x-api-key") or "") if given]
        if not any(hmac.compare_digest(one.encode(), key.encode()) for one in given):
            message = "the API key is wrong" if given else "an API key is needed: send Authorization: Bearer KEY"
            raise Refused(401, message, None, "invalid_api_key", headers={"WWW-Authenticate": "Bearer"})

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body, within the limits."""
        length = _one(scope, b"content-length") or "0"
        if not length.isascii() or not length.isdigit():
            raise bad("Content-Length must be a whole number")
        if scope["method"] == "POST":
            if (kind := (_one(scope, b"content-type") or "").partition(";")[0].strip().lower()) != "application/json":
                raise Refused(415, f"Content-Type must be application/json, not {kind[:80]!r}")
            if (coding := _one(scope, b"content-encoding") or "identity").lower() != "identity":
                raise Refused(415, f"Content-Encoding {coding[:40]!r} is not read: send the JSON as it is")
        most = self._rules.max_body
        if int(length) > most:
            raise Refused(413, f"the body has {length} bytes, and {most} is the most", code="request_too_large")
        pieces: list[bytes] = []
        size = 0
        ends = asyncio.get_running_loop().time() + self._rules.body_time
        try:
            while True:
                left = min(self._rules.body_stall, ends - asyncio.get_running_loop().time())
                async with asyncio.timeout(max(left, 0)):
                    message = await receive()
                if message["type"] == "http.disconnect":
                    raise bad("the client left before its request was whole")
                piece = message.get("body", b"")
                size += len(piece)
                self._reading += len(piece)
                if size > most:
                    raise Refused(413, f"the body has more than {most} bytes", code="request_too_large")
                if self._reading > self._rules.max_bodies:
                    raise Refused(503, "too many large requests at once: try again", None, "server_busy", "server_busy")
                pieces.append(piece)
                if not message.get("more_body"):
                    return b"".join(pieces)
        except TimeoutError:
            raise Refused(408, "the body came too slowly") from None
        finally:
            self._reading -= size


def _one(scope: Scope, name: bytes) -> str | None:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), None)


def _host_allowed(host: str, hosts: Iterable[str]) -> bool:
    """Whether a Host header names one of `hosts`; any port will do, as a tunnel may use another."""
    name, colon, port = host.rpartition(":") if not host.endswith("]") else (host, "", "")
    if not colon:
        name, port = host, "0"
    return port.isascii() and port.isdigit() and name.lower() in hosts


def _cors(origin: str | None, preflight: bool = False) -> list[tuple[bytes, bytes]]:
    headers = [(b"access-control-allow-origin", (origin or "").encode("latin-1")), (b"vary", b"Origin")]
    if preflight:
        headers += [
            (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
            (b"access-control-allow-headers", b"authorization, content-type, x-api-key, anthropic-version"),
            (b"access-control-max-age", b"600"),
        ]
    return headers


async def reply(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    """One whole response."""
    length = [] if status == 204 else [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *length]})
    await send({"type": "http.response.body", "body": body})


async def refuse(scope: Scope, send: Send, error: BaseException) -> None:
    """Answer with an error, in the shape of the surface that was asked."""
    refused = refusal_of(error)
    shape = refused.anthropic() if scope["path"].startswith("/v1/messages") else refused.openai()
    headers = [(name.lower().encode(), value.encode()) for name, value in refused.headers.items()]
    body = json.dumps(shape, ensure_ascii=False).encode(errors="replace")
    await reply(send, refused.status, body, [(b"content-type", b"application/json"), *headers])
