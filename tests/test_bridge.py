"""The bridge: one thread, turns, bounds, cancelling, and several readers of one answer."""

import asyncio
import threading
from typing import Any

import pytest

from qwen35_local.backends.scripted import ScriptedEngine
from qwen35_local.bridge import BUFFER, Busy, Gone, Worker
from qwen35_local.chat.tokenizer import Tokenizer
from qwen35_local.engine import ChatRequest, Engine, gather
from qwen35_local.errors import ContextError, ModelNotFound, UsageError
from qwen35_local.events import Progress

HI = ChatRequest.of("Hi", thinking=False)


class Threaded(ScriptedEngine):
    """Remembers which threads touched it."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.threads = {threading.get_ident()}

    def stream(self, request: ChatRequest) -> Any:
        self.threads.add(threading.get_ident())
        return super().stream(request)

    def close(self) -> None:
        self.threads.add(threading.get_ident())
        super().close()


def run(tokenizer: Tokenizer, replies: Any, test: Any, delay: float = 0.0, **limits: Any) -> list[Threaded]:
    """Run an async test with a worker; gives the engines that were opened."""
    engines: list[Threaded] = []

    def open_engine(report: Any) -> Engine:
        report(Progress("load", 1, 2, "bytes"))
        engines.append(Threaded(tokenizer, replies, delay=delay, context=20_000))
        return engines[-1]

    worker = Worker(open_engine, **limits)
    worker.start()

    async def whole() -> None:
        await worker.ready()
        await test(worker)

    try:
        asyncio.run(asyncio.wait_for(whole(), 60))
    finally:
        worker.close(timeout=30)
    assert worker.state == "closed"
    return engines


async def answer_of(worker: Worker, request: ChatRequest = HI) -> Any:
    reader = (await worker.ask(request)).read()
    try:
        return gather([event async for batch in reader.batches() for event in batch])
    finally:
        reader.leave()


def test_one_thread_owns_the_engine(tokenizer: Tokenizer):
    async def test(worker: Worker) -> None:
        assert (await answer_of(worker)).text == "yes"
        assert await worker.call(lambda engine: threading.get_ident()) != threading.get_ident()

    (engine,) = run(tokenizer, ["yes"], test)
    assert engine.closed
    assert len(engine.threads) == 1
    assert engine.threads != {threading.get_ident()}


def test_what_the_engine_refuses_is_raised_by_the_question(tokenizer: Tokenizer):
    async def test(worker: Worker) -> None:
        with pytest.raises(ContextError):
            await worker.ask(ChatRequest.of("word " * 30_000))
        assert (await answer_of(worker)).text == "no"

    run(tokenizer, ["yes", "no"], test)


def test_the_queue_is_bounded(tokenizer: Tokenizer):
    async def test(worker: Worker) -> None:
        answers = [await worker.ask(HI) for _ in range(3)]
        with pytest.raises(Busy, match="requests are waiting"):
            await worker.ask(HI)
        for answer in answers:
            answer.cancel()
        while worker.active or worker.waiting:
            await asyncio.sleep(0.01)
        assert await answer_of(worker, ChatRequest.of("Hi", thinking=False, max_tokens=3))

    run(tokenizer, ["one " * 1000] * 9, test, delay=0.01, parallel=1, waiting=2)


def test_an_unread_answer_stops_at_the_buffer(tokenizer: Tokenizer):
    async def test(worker: Worker) -> None:
        answer = await worker.ask(HI)
        while not answer.full:
            await asyncio.sleep(0.01)
        assert len(answer._events) == BUFFER
        reader = answer.read()
        text = gather([event async for batch in reader.batches() for event in batch]).text
        assert text == "word " * 400

    run(tokenizer, ["word " * 400], test)


def test_two_readers_read_the_same_and_the_last_one_cancels(tokenizer: Tokenizer):
    async def test(worker: Worker) -> None:
        answer = await worker.ask(HI)
        first, second = answer.read(), answer.read()
        assert gather([e async for batch in second.batches() for e in batch]).text == "word " * 100
        assert gather([e async for batch in first.batches() for e in batch]).text == "word " * 100
        answer = await worker.ask(HI)
        first, second = answer.read(), answer.read()
        first.leave()
        first.leave()
        assert not answer.cancelled
        second.leave()
        assert answer.cancelled

    run(tokenizer, ["word " * 100, "word " * 1000], test, delay=0.001)


def test_an_idle_engine_is_closed_and_opened_again(tokenizer: Tokenizer):
    async def test(worker: Worker) -> None:
        await answer_of(worker)
        while worker.state != "idle":
            await asyncio.sleep(0.01)
        await answer_of(worker)

    engines = run(tokenizer, ["yes"], test, idle_timeout=0.05)
    assert len(engines) == 2
    assert all(engine.closed for engine in engines)


def test_closing_ends_what_is_under_way(tokenizer: Tokenizer):
    async def test(worker: Worker) -> None:
        running, queued = [await worker.ask(HI) for _ in range(2)]
        await asyncio.to_thread(worker.close)
        for answer in (running, queued):
            with pytest.raises(Gone):
                _ = [batch async for batch in answer.read().batches()]
        with pytest.raises(Gone):
            await worker.ask(HI)

    run(tokenizer, ["word " * 1000] * 2, test, delay=0.01)


def test_a_model_that_does_not_load():
    def fail(report: Any) -> Engine:
        raise ModelNotFound("no such model")

    async def test() -> None:
        worker = Worker(fail)
        worker.start()
        with pytest.raises(ModelNotFound):
            await worker.ready()
        worker.close()
        assert worker.state == "failed"
        with pytest.raises(Gone):
            await worker.ask(HI)

    asyncio.run(test())


def test_limits_are_checked():
    with pytest.raises(UsageError):
        Worker(lambda report: ScriptedEngine(None), parallel=0)  # type: ignore[arg-type]
