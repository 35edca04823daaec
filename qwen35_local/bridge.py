"""The only bridge from the engine's iterators to asyncio: one thread that opens, uses and closes the engine.

MLX ties arrays to the thread that made them, so everything that touches the engine happens in that thread. Answers
take turns, a token or a chunk of prompt each, so a short one is not stuck behind a long one. An answer that nobody
reads stops being computed when its buffer is full; one that is closed stops within one token.
"""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Future
from typing import Any, Literal, TypeVar

from .engine import ChatRequest, Engine, EngineInfo
from .errors import Qwen35Error, UsageError
from .events import Done, Event, Progress

T = TypeVar("T")
State = Literal["loading", "ready", "idle", "failed", "closed"]
OpenEngine = Callable[[Callable[[Progress], None]], Engine]
BUFFER = 256  # events of one answer that wait for their reader


class Busy(Qwen35Error):
    """The queue is full; `waiting` requests are before this one."""

    def __init__(self, waiting: int):
        super().__init__(f"{waiting} requests are waiting already: try again later")
        self.waiting = waiting


class Gone(Qwen35Error):
    """The engine was closed before the answer was whole."""


class Reader:
    """One reader of an answer. `leave` when done with it: an answer that has no reader left is cancelled."""

    def __init__(self, answer: "Answer"):
        self._answer = answer
        self.arrived = asyncio.Event()
        self.at = 0  # events read

    async def batches(self) -> AsyncGenerator[list[Event], None]:
        """All events that have come since the last batch, in order; ends after `Done`, raises what stopped them."""
        while True:
            await self.arrived.wait()
            self.arrived.clear()
            events, over, error = self._answer.take(self)
            if events:
                yield events
            if error is not None:
                raise error
            if over:
                return

    def leave(self) -> None:
        self._answer.leave(self)


class Answer:
    """One answer under way, read by one reader or several. `cancel` ends it from any thread.

    Made by `Worker.ask`; `_step` and `_stop` are the worker's side, called in its thread.
    """

    def __init__(self, worker: "Worker", request: ChatRequest, loop: asyncio.AbstractEventLoop):
        self.request = request
        self.cancelled = False
        self.admitted: Future[None] = Future()
        self._worker = worker
        self._loop = loop
        self._lock = threading.Lock()
        self._events: list[Event] = []  # kept whole, for readers that come later; an answer is small
        self._readers: list[Reader] = []
        self._furthest = 0
        self._woken = False
        self._over = False
        self._error: BaseException | None = None
        self._steps: Iterator[Event] | None = None

    def read(self) -> Reader:
        """A reader of the whole answer from its beginning."""
        reader = Reader(self)
        with self._lock:
            self._readers.append(reader)
        reader.arrived.set()
        return reader

    @property
    def joinable(self) -> bool:
        """Whether another reader may still come."""
        return not self.cancelled and not self._over

    def take(self, reader: Reader) -> tuple[list[Event], bool, BaseException | None]:
        """What a reader has not read yet, whether that is all, and what went wrong."""
        with self._lock:
            events = self._events[reader.at :]
            reader.at = len(self._events)
            was_full = reader.at - self._furthest >= BUFFER
            self._furthest = max(self._furthest, reader.at)
            over, error = self._over, self._error
        if was_full:
            self._worker.nudge()
        return events, over, error

    def leave(self, reader: Reader) -> None:
        if reader in self._readers:
            self._readers.remove(reader)
            if not self._readers:
                self.cancel()

    def cancel(self) -> None:
        """Stop within one token; nothing if it is over."""
        if not self._over:
            self.cancelled = True
            self._worker.nudge()

    @property
    def full(self) -> bool:
        """Whether all readers are so far behind that nothing more is computed for now."""
        return len(self._events) - self._furthest >= BUFFER and not self._over

    def _step(self) -> bool:
        """Compute the next event; False once there is no more."""
        assert self._steps is not None
        try:
            event = next(self._steps)
        except StopIteration:
            self._finish(None)
            return False
        except Exception as error:
            self._finish(error)
            return False
        self._put([event], isinstance(event, Done), None)
        return True

    def _stop(self, error: BaseException | None) -> None:
        """Close the iterator, which cancels it, and say why."""
        if close := getattr(self._steps, "close", None):
            close()
        self._finish(error)

    def _finish(self, error: BaseException | None) -> None:
        self._steps = None
        if not self._over:
            self._put([], True, error)

    def _put(self, events: list[Event], over: bool, error: BaseException | None) -> None:
        with self._lock:
            self._events += events
            self._over, self._error = over, error
            wake, self._woken = not self._woken, True
        if wake:
            try:
                self._loop.call_soon_threadsafe(self._wake)
            except RuntimeError:  # the loop is closed: nobody is left to read
                self.cancelled = True

    def _wake(self) -> None:
        with self._lock:
            self._woken = False
        for reader in self._readers:
            reader.arrived.set()


class Worker:
    """The thread that owns an engine. `start` it, `ask` for answers, `call` functions on the engine, `close` it.

    At most `parallel` answers take turns and `waiting` more wait. After `idle_timeout` seconds without work the engine
    is closed, and opened again by the next question.
    """

    def __init__(self, open_engine: OpenEngine, waiting: int = 8, parallel: int = 1, idle_timeout: float | None = None):
        if waiting < 0 or parallel < 1:
            raise UsageError(f"the queue must hold 0 or more and parallel be at least 1, not {waiting} and {parallel}")
        self.state: State = "loading"
        self.info: EngineInfo | None = None
        self.progress: Progress | None = None
        self.error: BaseException | None = None
        self._open = open_engine
        self._most_waiting, self._parallel = waiting, parallel
        self._idle_timeout = idle_timeout
        self._changed = threading.Condition()
        self._dirty = False
        self._closing = False
        self._calls: deque[tuple[Callable[[Engine], Any], Future[Any]]] = deque()
        self._arrivals: deque[Answer] = deque()
        self._queue: deque[Answer] = deque()  # admitted, waiting for their turn
        self._active: deque[Answer] = deque()
        self._loaded: Future[EngineInfo] = Future()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether the thread is there still, as it is after a `close` that did not wait long enough."""
        return self._thread.is_alive()

    @property
    def active(self) -> int:
        return len(self._active)

    @property
    def waiting(self) -> int:
        return len(self._queue) + len(self._arrivals)

    async def ready(self) -> EngineInfo:
        """Wait until the model is loaded; raises what kept it from loading."""
        return await asyncio.wrap_future(self._loaded)

    async def ask(self, request: ChatRequest) -> Answer:
        """Queue a question. Raises at once `Busy`, and what the engine says to a bad request (before any work)."""
        answer = Answer(self, request, asyncio.get_running_loop())
        with self._changed:
            if self._closing or self.state == "failed":
                raise Gone("the engine is closed")
            if self.active + self.waiting >= self._parallel + self._most_waiting:
                raise Busy(self.waiting)
            self._arrivals.append(answer)
        self.nudge()
        try:
            await asyncio.wrap_future(answer.admitted)
        except asyncio.CancelledError:
            answer.cancel()
            raise
        return answer

    async def call(self, function: Callable[[Engine], T]) -> T:
        """`function(engine)` in the engine's thread, between two tokens."""
        future: Future[T] = Future()
        with self._changed:
            if self._closing or self.state == "failed":
                raise Gone("the engine is closed")
            self._calls.append((function, future))
        self.nudge()
        return await asyncio.wrap_future(future)

    def nudge(self) -> None:
        """Make the thread look at what has changed."""
        with self._changed:
            self._dirty = True
            self._changed.notify()

    def close(self, timeout: float | None = None) -> None:
        """Cancel everything, close the engine and wait for the thread."""
        with self._changed:
            self._closing = True
        self.nudge()
        if self._thread.is_alive():
            self._thread.join(timeout)

    # The rest runs in the engine's thread.

    def _run(self) -> None:
        engine: Engine | None = None
        try:
            engine = self._load()
            self._loaded.set_result(engine.info)
            while not self._closing:
                if engine is None and (self._calls or self._arrivals):
                    engine = self._load()
                if engine is not None:
                    self._admit(engine)
                    self._take_turns()
                if self._rest(engine) and engine is not None:
                    engine.close()
                    engine, self.state = None, "idle"
        except BaseException as error:  # whoever waits must hear of it, whatever it is
            self.state, self.error = "failed", error
            if not self._loaded.done():
                self._loaded.set_exception(error)
        finally:
            self._abandon()
            if engine is not None:
                engine.close()
            self.state = "failed" if self.state == "failed" else "closed"

    def _load(self) -> Engine:
        self.state = "loading"
        engine = self._open(self._loading)
        engine.parallel = self._parallel
        self.info, self.progress, self.state = engine.info, None, "ready"
        return engine

    def _loading(self, progress: Progress) -> None:
        self.progress = progress
        if self._closing:
            raise Gone("closed while loading")

    def _admit(self, engine: Engine) -> None:
        """Calls and new questions: short work, done between tokens so that errors are known before anything is sent."""
        while self._calls:
            function, future = self._calls.popleft()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function(engine))
                except Exception as error:
                    future.set_exception(error)
        while self._arrivals:
            answer = self._arrivals[0]
            refused: Exception | None = None
            wanted = not answer.cancelled and answer.admitted.set_running_or_notify_cancel()
            if wanted:
                try:
                    answer._steps = engine.stream(answer.request)
                except Exception as error:
                    refused = error
            with self._changed:  # so that it is counted once all the time
                self._arrivals.popleft()
                if answer._steps is not None:
                    self._queue.append(answer)
            if refused is not None:
                answer.admitted.set_exception(refused)
            elif wanted:
                answer.admitted.set_result(None)

    def _take_turns(self) -> None:
        """One step of every active answer."""
        for answer in [answer for answer in self._queue if answer.cancelled]:
            self._queue.remove(answer)
            answer._stop(None)
        with self._changed:
            while self._queue and len(self._active) < self._parallel:
                self._active.append(self._queue.popleft())
        for answer in list(self._active):
            if answer.cancelled:
                answer._stop(None)
            elif answer.full or answer._step():
                continue
            self._active.remove(answer)

    def _rest(self, engine: Engine | None) -> bool:
        """Wait for something to do; True if the engine has been idle for so long that it should be closed."""
        with self._changed:
            while not (self._closing or self._dirty or self._calls or self._arrivals or self._queue_moves()):
                if any(not answer.full for answer in self._active):
                    return False
                waits = None if engine is None or self._active else self._idle_timeout
                if not self._changed.wait(waits):
                    return True
            self._dirty = False
        return False

    def _queue_moves(self) -> bool:
        return bool(self._queue) and len(self._active) < self._parallel

    def _abandon(self) -> None:
        gone = Gone("the engine was closed before the answer was whole")
        with self._changed:
            self._closing = True
            calls, self._calls = self._calls, deque()
            arrivals, self._arrivals = self._arrivals, deque()
        for answer in (*self._active, *self._queue):
            answer._stop(gone)
        self._active.clear()
        self._queue.clear()
        for future in (*(future for _, future in calls), *(answer.admitted for answer in arrivals)):
            if future.set_running_or_notify_cancel():
                future.set_exception(gone)
