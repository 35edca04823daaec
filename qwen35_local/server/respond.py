"""An answer -> the socket: streamed or whole, cancelled when the client leaves, never silent for long.

Liveness is the socket's, not the generator's: while a call is being written tokens flow and no bytes do, so what counts
is the time since bytes were last written.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import aclosing, suppress
from time import monotonic
from typing import Any, Protocol

from ..engine import Completion, gather
from ..events import Event, Held, Progress
from .guard import Receive, Scope, Send, refuse, reply
from .refusal import Refused, refusal_of

SILENCE = 5.0  # seconds without bytes before a comment is sent; clients give up after 60 to 600
STALL = 300.0  # seconds that a reader may take for one write
PIECE = 32 * 1024  # bytes of one write

Batches = AsyncGenerator[list[Event], None]
JSON = (b"content-type", b"application/json")


class Reply(Protocol):
    """How a surface tells an answer."""

    def start(self) -> Iterator[bytes]: ...
    def feed(self, event: Event) -> Iterator[bytes]: ...
    def error(self, body: dict[str, Any]) -> bytes: ...
    def whole(self, answer: Completion, events: list[Event]) -> dict[str, Any]: ...


class Left(Exception):
    """The client has gone."""


async def until_left(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do the work; cancel it as soon as the client disconnects."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    tasks = asyncio.ensure_future(work), asyncio.ensure_future(watch())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            if not task.done():
                task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    if isinstance(results[0], BaseException) and not isinstance(results[0], asyncio.CancelledError | Left):
        raise results[0]


async def send_whole(scope: Scope, send: Send, batches: Batches, answer: Reply) -> None:
    """One JSON object, or an error with its status."""
    events: list[Event] = []
    try:
        async with aclosing(batches) as coming:
            async for batch in coming:
                events += (event for event in batch if not isinstance(event, Held | Progress))
        body = answer.whole(gather(events), events)
    except Exception as error:
        await refuse(scope, send, error)
    else:
        await reply(send, 200, json.dumps(body, ensure_ascii=False).encode(errors="replace"), [JSON])


async def send_stream(scope: Scope, send: Send, batches: Batches, answer: Reply) -> None:
    """Server-sent events. Before the first byte a failure still has a status; after it, it is an error event."""
    started = False
    head = b"".join(answer.start())  # now, as replies may number what they say
    last = monotonic()

    async def write(data: bytes, more: bool = True) -> None:
        nonlocal started, last
        if not started:
            started = True
            headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
            headers.append((b"x-accel-buffering", b"no"))
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            data = head + data
        last = monotonic()
        # Not wait_for: in Python 3.11 it swallows a cancel that comes just as the write is done.
        async with asyncio.timeout(STALL):
            await send({"type": "http.response.body", "body": data, "more_body": more})

    async with aclosing(batches) as coming:
        waiting: asyncio.Future[list[Event]] | None = None
        try:
            while True:
                waiting = waiting or asyncio.ensure_future(anext(coming))
                # Not wait_for: a time-out must not cancel the step that is under way.
                await asyncio.wait([waiting], timeout=max(last + SILENCE - monotonic(), 0))
                if not waiting.done():
                    await write(b": still working\n\n")
                    continue
                batch, waiting = waiting.result(), None
                for data in pieces(batch, answer.feed):
                    await write(data)
        except StopAsyncIteration:
            await write(b"", more=False)
        except TimeoutError:
            raise Left from None
        except Exception as error:
            if started:
                await write(answer.error(_body(scope, refusal_of(error))), more=False)
            else:
                await refuse(scope, send, error)
        finally:
            if waiting is not None and not waiting.done():
                waiting.cancel()
                with suppress(asyncio.CancelledError, StopAsyncIteration):
                    await waiting


def pieces(batch: list[Event], feed: Callable[[Event], Iterator[bytes]]) -> Iterator[bytes]:
    """What a batch of events says, joined into a few writes."""
    joined: list[bytes] = []
    size = 0
    for event in batch:
        for data in feed(event):
            joined.append(data)
            size += len(data)
            if size >= PIECE:
                yield b"".join(joined)
                joined, size = [], 0
    if joined:
        yield b"".join(joined)


def _body(scope: Scope, refused: Refused) -> dict[str, Any]:
    return refused.anthropic() if scope["path"].startswith("/v1/messages") else refused.openai()
