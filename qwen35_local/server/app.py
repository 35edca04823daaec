"""The routes."""

import asyncio
import itertools
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from .. import __version__
from ..bridge import Answer, Worker
from ..engine import Engine
from ..events import Done, Progress
from .asked import Asked, Served
from .chat_reply import ChatReply
from .completions import CompletionReply, Texts, parse_completion
from .guard import App, Guard, Receive, Rules, Scope, Send, refuse, reply
from .inflight import InFlight, key_of
from .media import Media, prefetch
from .messages import parse_count, parse_messages
from .messages_reply import MessageReply
from .metrics import Metrics
from .openai import parse_chat
from .refusal import Refused
from .respond import JSON, Batches, Reply, send_stream, send_whole, until_left
from .responses import Store, parse_response
from .responses_reply import ResponseReply
from .strict import loads
from .texts import apply_template, detokenize, tokenize

Handler = Callable[[Request, Send], Awaitable[None]]
Parse = Callable[[Mapping[str, Any], Served], Asked | Awaitable[Asked]]
MakeReply = Callable[[Asked, str, int], Reply]
MakeBody = Callable[[Mapping[str, Any], Served, Engine], dict[str, Any]]


@dataclass(frozen=True)
class Settings:
    """What the server was started with, but for the model and the socket."""

    rules: Rules = field(default_factory=Rules)
    aliases: tuple[str, ...] = ()
    media: Media = field(default_factory=Media)
    preserve_thinking: bool = False  # of requests that do not say


class Server:
    """The endpoints over one worker."""

    def __init__(self, worker: Worker, settings: Settings):
        self._worker = worker
        self._settings = settings
        self._started = int(time.time())
        self._run = secrets.token_hex(6)
        self._numbers = itertools.count(1)
        self._store = Store()
        self._in_flight = InFlight()
        self.counts = Metrics()

    def routes(self) -> list[Route]:
        def route(path: str, handler: Handler, method: str = "GET") -> Route:
            return Route(path, endpoint=_Endpoint(handler), methods=[method])

        return [
            route("/health", self.health),
            route("/v1/models", self.models),
            route("/v1/models/{name:path}", self.model),
            route("/metrics", self.metrics),
            route("/v1/chat/completions", self._answering(parse_chat, ChatReply), "POST"),
            route("/v1/completions", self._answering(self._completion, CompletionReply), "POST"),
            route("/v1/responses", self._answering(self._response, ResponseReply), "POST"),
            route("/v1/responses/{name}", self.kept),
            route("/v1/responses/{name}", self.forget, "DELETE"),
            route("/v1/messages", self._answering(parse_messages, MessageReply), "POST"),
            route("/v1/messages/count_tokens", self._telling(_count), "POST"),
            route("/tokenize", self._telling(tokenize), "POST"),
            route("/detokenize", self._telling(detokenize), "POST"),
            route("/apply-template", self._telling(apply_template), "POST"),
        ]

    def _response(self, value: Mapping[str, Any], served: Served) -> Asked:
        return parse_response(value, served, self._store)

    async def _completion(self, value: Mapping[str, Any], served: Served) -> Asked:
        """Raw prompts are text or tokens, so the engine's tokenizer has a say."""

        def parse(engine: Engine) -> Asked:
            texts = Texts(lambda text: engine.tokenize(text, special=True), engine.detokenize)
            return parse_completion(value, served, texts)

        return await self._worker.call(parse)

    @property
    def served(self) -> Served:
        """Raises Refused (503) while the model is loading: nothing can be said of a request before that."""
        worker = self._worker
        if worker.info is None or worker.state in ("failed", "closed"):
            reason = "the model is loading" if worker.state == "loading" else f"the model is not there: {worker.error}"
            raise Refused(503, reason, None, "loading", "server_error", {"Retry-After": "5"})
        info = worker.info
        return Served(
            info.model,
            info.context,
            info.vocab_size,
            self._settings.media.fetch,
            self._settings.aliases,
            self._started,
            self._settings.preserve_thinking,
        )

    async def _read(self, request: Request) -> tuple[dict[str, Any], Served]:
        """The body as JSON, and what it may ask for; media on the web are fetched now."""
        value, served = loads(await request.body()), self.served
        if self._settings.media.remote:
            return value, replace(served, fetch=await asyncio.to_thread(prefetch, value, self._settings.media))
        return value, served

    def _answering(self, parse: Parse, make: MakeReply) -> Handler:
        """An endpoint that answers, streamed or whole."""

        async def handler(request: Request, send: Send) -> None:
            async def work() -> None:
                value, served = await self._read(request)
                asked = parse(value, served)
                asked = asked if isinstance(asked, Asked) else await asked
                reader = (await self._answer(request, value, asked)).read()
                told = make(asked, f"{self._run}{next(self._numbers)}", int(time.time()))
                tell = send_stream if asked.stream else send_whole
                try:
                    await tell(request.scope, send, self._counted(reader.batches()), told)
                finally:
                    reader.leave()

            await until_left(request.receive, work())

        return handler

    async def _answer(self, request: Request, value: Mapping[str, Any], asked: Asked) -> Answer:
        """A new answer, or one under way that this request may join."""
        key = key_of(request.url.path, value, request.headers)
        sampling = asked.request.effective_sampling
        repeats = sampling.temperature == 0 or sampling.seed is not None
        if (answer := self._in_flight.find(key, request.headers, repeats)) is not None:
            self.counts.add("joined_total")
            return answer
        answer = await self._worker.ask(asked.request)
        self._in_flight.add(key, answer)
        return answer

    def _telling(self, make: MakeBody) -> Handler:
        """An endpoint that says something about text, and generates nothing."""

        async def handler(request: Request, send: Send) -> None:
            value, served = await self._read(request)
            await send_json(send, await self._worker.call(lambda engine: make(value, served, engine)))

        return handler

    async def _counted(self, batches: Batches) -> Batches:
        async with aclosing(batches):
            async for batch in batches:
                if isinstance(done := batch[-1], Done):
                    self.counts.done(done)
                yield batch

    async def metrics(self, request: Request, send: Send) -> None:
        text = self.counts.text(self._worker).encode()
        await reply(send, 200, text, [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")])

    async def kept(self, request: Request, send: Send) -> None:
        await send_json(send, self._store.get(request.path_params["name"]).body)

    async def forget(self, request: Request, send: Send) -> None:
        name = request.path_params["name"]
        self._store.drop(name)
        await send_json(send, {"id": name, "object": "response", "deleted": True})

    async def health(self, request: Request, send: Send) -> None:
        state, progress = self._worker.state, self._worker.progress
        body: dict[str, Any] = {"status": {"ready": "ok", "idle": "ok"}.get(state, state), "version": __version__}
        if state == "loading" and isinstance(progress, Progress):
            body["progress"] = {"done": progress.done, "total": progress.total, "unit": progress.unit}
        body |= {"active": self._worker.active, "waiting": self._worker.waiting}
        await send_json(send, body, 200 if body["status"] == "ok" else 503)

    async def models(self, request: Request, send: Send) -> None:
        served = self.served
        names = (served.model, *(name for name in served.aliases if name != "*"))
        await send_json(send, {"object": "list", "data": [self._card(name) for name in names]})

    async def model(self, request: Request, send: Send) -> None:
        await send_json(send, self._card(self.served.check_model(request.path_params["name"])))

    def _card(self, name: str) -> dict[str, Any]:
        info = self._worker.info
        assert info
        return {
            "id": name,
            "object": "model",
            "created": self._started,
            "owned_by": "qwen35-local",
            "context_length": info.context,
            "parameters": info.parameters,
            "quantization": info.quantization,
            "vision": info.vision,
        }


class _Endpoint:
    """An ASGI app of one handler, whose errors become answers."""

    def __init__(self, handler: Handler):
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._handler(Request(scope, receive), send)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            await refuse(scope, send, error)


def _count(value: Mapping[str, Any], served: Served, engine: Engine) -> dict[str, Any]:
    return {"input_tokens": len(engine.prompt(parse_count(value, served).request))}


async def send_json(send: Send, value: Any, status: int = 200) -> None:
    await reply(send, status, json.dumps(value, ensure_ascii=False).encode(errors="replace"), [JSON])


def make_app(worker: Worker, settings: Settings | None = None) -> App:
    """The whole ASGI application. The worker must have been started, and is the caller's to close."""
    settings = settings or Settings()

    async def not_here(request: Request, error: Exception) -> Any:
        status = getattr(error, "status_code", 404)
        what = "no such path" if status == 404 else f"{request.method} is not for this path"
        return _Refusal(Refused(status, f"{what}: {request.method} {request.url.path[:100]}"))

    server = Server(worker, settings)
    app = Starlette(routes=server.routes(), exception_handlers={404: not_here, 405: not_here})
    app.router.redirect_slashes = False
    return server.counts.watching(Guard(app, settings.rules))


class _Refusal:
    def __init__(self, refused: Refused):
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await refuse(scope, send, self._refused)
