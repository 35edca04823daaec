"""The socket and uvicorn: limits below HTTP, orderly starting and stopping."""

import asyncio
import ipaddress
import logging
import signal
import socket
import sys
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..bridge import Gone, Worker
from ..errors import UsageError
from .guard import App

log = logging.getLogger("qwen35.server")
HEADER_TIME = 20.0  # seconds for a whole request head
DRAIN_TIME = 5.0  # seconds that answers under way get when the server is told to stop


class Protocol(H11Protocol):
    """uvicorn's, which would wait for ever for the head of a first request."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEADER_TIME, self._give_up)

    def _give_up(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_timer.cancel()
        super().connection_lost(exc)


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """A bound socket. Raises UsageError if the address cannot be had."""
    if not 0 <= port <= 65535:
        raise UsageError(f"--port must be from 0 to 65535, not {port}", "port")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only where the protocol is named; without it each answer waits 40 ms for an ACK.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host.strip("[]"), port))
        made.listen(1024)
    except OSError as error:
        made.close()
        raise UsageError(f"cannot listen on {host}:{port}: {error.strerror or error}", "port") from error
    return made


def configure(app: App, drain: float = DRAIN_TIME) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # pyright: ignore[reportArgumentType]  the same shape, spelled with other aliases
        http=Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=int(drain) + 10,
    )


def serve(app: App, worker: Worker, bound: socket.socket) -> int:
    """Run until SIGINT or SIGTERM: then stop accepting, let answers finish for a while, cancel the rest."""
    return asyncio.run(_serve(app, worker, bound))


async def _serve(app: App, worker: Worker, bound: socket.socket) -> int:
    server = uvicorn.Server(configure(app))
    host, port = bound.getsockname()[:2]
    shown = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    print(f"qwen35 serves {shown}/v1 (Ctrl-C stops)", file=sys.stderr, flush=True)
    # uvicorn raises the signal again when it is done; by then there is nothing left to stop.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    worker.start()
    loading = asyncio.create_task(_announce(worker, server))
    ending = asyncio.create_task(_drain(worker, server))
    await server.serve(sockets=[bound])
    await ending
    if (error := await loading) is not None and not isinstance(error, Gone):
        raise error
    return 0


async def _drain(worker: Worker, server: uvicorn.Server) -> None:
    """Once the server is told to stop: give answers a moment, then end the rest with an error event each."""
    while not server.should_exit:
        await asyncio.sleep(0.1)
    ends = asyncio.get_running_loop().time() + DRAIN_TIME
    while (worker.active or worker.waiting) and asyncio.get_running_loop().time() < ends:
        await asyncio.sleep(0.05)
    await asyncio.to_thread(worker.close, 30)


async def _announce(worker: Worker, server: uvicorn.Server) -> BaseException | None:
    """Say when the model is there; stop the server if it never will be."""
    try:
        info = await worker.ready()
    except Exception as error:
        server.should_exit = True
        return error
    log.info("%s is ready: context %d, %s", info.model, info.context, info.device or info.backend)
    return None
