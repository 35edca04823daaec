"""The engine as the app sees it: a state to show and replies to drain, over the worker thread of `bridge`.

The app never waits for the engine: it looks at `state` and drains `Reply.events` a few times a second.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic

from qwen35_local.bridge import Answer, Gone, OpenEngine, Worker
from qwen35_local.engine import ChatRequest, Engine, EngineInfo, ImagePart, Message, Seen, VideoPart
from qwen35_local.errors import Qwen35Error
from qwen35_local.events import Done, Event, Progress

PAUSE = 1 / 12  # seconds between two looks at an answer: each look takes time from the engine's thread


@dataclass(frozen=True, slots=True)
class Loading:
    """`done` and `total` are bytes, `seconds` since the start; all 0 before the first word of the engine.

    `plan` is where the memory will go, in bytes by name, once that is decided.
    """

    done: int = 0
    total: int = 0
    seconds: float = 0.0
    plan: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ready:
    info: EngineInfo


@dataclass(frozen=True, slots=True)
class Failed:
    message: str


State = Loading | Ready | Failed
Remember = Callable[[Sequence[Message]], None]


class Reply:
    """One answer on its way. `events` fills; `ended` is set after the last one, `error` if that was one."""

    def __init__(self, worker: Worker, request: ChatRequest):
        self.request = request
        self.events: deque[Event] = deque()
        self.error = ""
        self.stopped = False  # it was asked to stop, and did so before its end
        self.ended = False
        self._worker = worker
        self._answer: Answer | None = None
        self._task = asyncio.get_running_loop().create_task(self._read())
        self._task.add_done_callback(self._end)  # also of a task that is cancelled before its first step

    def stop(self) -> None:
        """End it at the next token or chunk of the prompt; at once while the model still loads."""
        self.stopped = not self.ended
        if self._answer is not None:
            self._answer.cancel()
        else:
            self._task.cancel()

    def drain(self) -> list[Event]:
        """What came since the last call."""
        events = list(self.events)
        self.events.clear()
        return events

    async def _read(self) -> None:
        try:
            self._answer = await self._worker.ask(self.request)
            async for events in self._answer.read().batches():
                self.events += events
                if isinstance(events[-1], Done):
                    self.stopped = False
                    break
                await asyncio.sleep(PAUSE)
        except Exception as error:  # whatever an engine raises, the app stays and says it
            self.error = "" if self.stopped else sentence(self._worker.error or error)

    def _end(self, task: asyncio.Task[None]) -> None:
        self.ended = True


class EngineHost:
    """Opens an engine in its thread and hands it one request after the other. `plan` is that of its memory.

    `remember` keeps what was said, with the model's state, in a session on disk; it is called in the engine's thread.
    """

    def __init__(self, open_engine: OpenEngine, remember: Remember | None = None):
        self._worker = Worker(open_engine)
        self._remember = remember
        self._began = monotonic()
        self.plan: Mapping[str, int] = {}

    @property
    def state(self) -> State:
        worker = self._worker
        if worker.error is not None:
            return Failed(sentence(worker.error))
        if worker.info is None or worker.state == "loading":
            progress = worker.progress or Progress("load", 0, 0, "bytes")
            self.plan = progress.plan or self.plan
            return Loading(progress.done, progress.total, monotonic() - self._began, self.plan)
        return Ready(worker.info)

    @property
    def info(self) -> EngineInfo | None:
        return self._worker.info

    def start(self) -> None:
        self._began = monotonic()
        self._worker.start()

    def switch(self, open_engine: OpenEngine) -> None:
        """Another model in place of this one, whose memory is given back first; nothing may be under way."""
        before = self._worker

        def opening(on_progress: Callable[[Progress], None]) -> Engine:
            before.close()
            return open_engine(on_progress)

        self._worker = Worker(opening)
        self.plan = {}
        self.start()

    def ask(self, request: ChatRequest) -> Reply:
        """Queue a request; it waits for the model if that is still loading."""
        return Reply(self._worker, request)

    async def look(self, part: ImagePart | VideoPart) -> Seen:
        """What the model sees of a picture, once it is loaded. Raises MediaError, or Gone if there is no engine."""
        return await self._worker.call(lambda engine: engine.look(part))

    async def remember(self, messages: Sequence[Message]) -> str:
        """Keep a conversation in the session, if there is one; a sentence if that failed."""
        if (remember := self._remember) is None:
            return ""
        try:
            await self._worker.call(lambda engine: remember(messages))
        except Gone:
            return ""  # closed or failed, which is said elsewhere
        except (Qwen35Error, OSError) as error:
            return f"the session could not be saved: {sentence(error)}"
        return ""

    def close(self, timeout: float = 2.0) -> None:
        """Stop what runs and close the engine; waits `timeout` seconds at most. `running` says if it still does."""
        self._worker.close(timeout)

    @property
    def running(self) -> bool:
        return self._worker.running


def sentence(error: BaseException) -> str:
    """One line for a person; the type is named only where the text is not ours."""
    text = str(error) or type(error).__name__
    return text if isinstance(error, Qwen35Error) else f"{type(error).__name__}: {text}"
