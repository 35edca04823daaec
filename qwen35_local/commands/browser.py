"""`qwen35 chat --web`: the app in a browser on this machine, by textual-serve. Every tab is an app of its own, and one
server, which they share, holds the model.

The page can do what the user can, so nothing but this machine's own browser may reach it: it listens on the loopback
address, and refuses names and origins that are not its own, as a page of another site would have them.
"""

import argparse
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from ..engine import SAMPLING_FIELDS
from ..errors import BackendUnavailable, UsageError
from .chat import LOCAL_SERVER, running_server

HOST = "127.0.0.1"
PATIENCE = 0.2  # seconds between two looks whether the server answers


def run_web(args: argparse.Namespace) -> int:
    try:
        from aiohttp import web
        from textual_serve.server import Server
    except ImportError as error:
        raise BackendUnavailable("the app in a browser needs textual-serve: pip install 'qwen35-local[web]'") from error
    port = args.web

    @web.middleware
    async def guard(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if not allowed(request.headers.get("Host"), request.headers.get("Origin"), port, "Upgrade" in request.headers):
            raise web.HTTPForbidden(text="this page is for the browser of this machine alone")
        response = await handler(request)
        if not response.prepared:
            response.headers["X-Frame-Options"] = "DENY"
        return response

    class Guarded(Server):
        async def _make_app(self) -> web.Application:
            app = await super()._make_app()
            app.middlewares.append(guard)
            return app

        async def on_startup(self, app: web.Application) -> None:
            print(f"the chat app is at {self.public_url} (Ctrl+C ends it)", file=sys.stderr)

        def initialize_logging(self) -> None: ...

    check_free(port)
    with engine_server(args) as url:
        command = [sys.executable, "-m", "qwen35_local.cli", "chat", "--connect", url, *answer_flags(args)]
        Guarded(shlex.join(command), HOST, port, title="qwen35 chat").serve()
    return 0


def allowed(host: str | None, origin: str | None, port: int, upgrade: bool) -> bool:
    """Whether a request comes from this machine's own page. A browser names the origin of every WebSocket."""
    names = {f"{name}:{port}" for name in (HOST, "localhost", "[::1]")}
    if host not in names:
        return False
    return origin in {f"http://{name}" for name in names} or (origin is None and not upgrade)


@contextmanager
def engine_server(args: argparse.Namespace) -> Iterator[str]:
    """The address of a server with the model: the one named, the one that runs, or one started for as long."""
    if args.connect:
        yield args.connect
        return
    if not args.no_attach and (running := running_server(args)) is not None:
        running.close()
        yield LOCAL_SERVER
        return
    port = free_port()
    command = [sys.executable, "-m", "qwen35_local.cli", "serve", "--port", str(port), "--log-level", "warning"]
    server = subprocess.Popen([*command, *model_flags(args)])
    try:
        url = f"http://{HOST}:{port}"
        wait_for(server, url)
        yield url
    finally:
        server.terminate()
        server.wait()


def wait_for(server: subprocess.Popen[bytes], url: str) -> None:
    from ..backends.remote import RemoteEngine

    print("loading the model", file=sys.stderr)
    while server.poll() is None:
        try:
            RemoteEngine(url, timeout=5.0).close()
            return
        except BackendUnavailable:
            time.sleep(PATIENCE)
    raise BackendUnavailable("the model's server ended; what it said is above")


def model_flags(args: argparse.Namespace) -> list[str]:
    """What was said of the model, for `qwen35 serve`."""
    names = ("model", "context", "memory", "dtype", "backend", "speculate", "hot_set", "experts", "lookahead")
    names += ("gpu_layers", "cpu_experts", "threads")
    said = {name: value for name in names if (value := getattr(args, name)) is not None}
    flags = [part for name, value in said.items() for part in (_flag(name), str(value))]
    return [*flags, *(["--direct"] if args.direct else [])]


def answer_flags(args: argparse.Namespace) -> list[str]:
    """What was said of the answers and the key, for `qwen35 chat`."""
    names = ("system", "max_tokens", "api_key", *SAMPLING_FIELDS)
    flags = [
        part for name in names if (value := getattr(args, name, None)) is not None for part in (_flag(name), value)
    ]
    flags += [part for stop in args.stop for part in ("--stop", stop)]
    return [str(flag) for flag in [*flags, *(["--no-think"] if args.no_think else [])]]


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise UsageError(f"port {port} on {HOST} cannot be used ({error}): --web PORT takes another") from error
