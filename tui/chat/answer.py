"""An answer that is being written: events in, the state of its turn out."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from time import monotonic
from typing import Any

from qwen35_local.events import Done, Event, Progress, Reasoning, Text, ToolCall

from ..safe import printable
from .turns import Status, Turn


class Answer:
    """Gathers events into a turn. Reading `turn` joins the pieces that came since it was last read.

    `progress` is the last word on the prompt; `tokens` counts pieces, which is what one can know before `Done`.
    """

    def __init__(self, turn: Turn):
        self._turn = turn
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[ToolCall] = []
        self._began = monotonic()
        self._thought_since: float | None = None
        self._seconds = turn.seconds  # an answer that goes on has thought before
        self.progress: Progress | None = None
        self.done: Done | None = None
        self.tokens = 0
        self.first_at = 0.0  # monotonic seconds of the first piece
        self.layers: tuple[Mapping[str, Any], ...] = ()  # what each layer read, once it is over; too much to keep

    def feed(self, events: Iterable[Event]) -> str:
        """Take events; returns the new text of the answer, made safe to draw."""
        new: list[str] = []
        for event in events:
            match event:
                case Progress():
                    self.progress = event
                case Reasoning(text):
                    self._count()
                    self._thought_since = self._thought_since or monotonic()
                    self._reasoning.append(printable(text))
                case Text(text):
                    self._count()
                    self._end_thinking()
                    new.append(printable(text))
                case ToolCall():
                    self._end_thinking()
                    self._calls.append(event)
                case Done():
                    self._end_thinking()
                    self.done = event
        self._text += new
        return "".join(new)

    @property
    def thinking(self) -> bool:
        return self._thought_since is not None

    @property
    def rate(self) -> float:
        """Pieces a second since the first; 0 before there are two."""
        elapsed = monotonic() - self.first_at
        return (self.tokens - 1) / elapsed if self.tokens > 1 and elapsed > 0 else 0.0

    @property
    def elapsed(self) -> float:
        """Seconds since it was asked."""
        return monotonic() - self._began

    @property
    def turn(self) -> Turn:
        """The turn as it stands."""
        if self._text or self._reasoning or self._calls:
            self._turn = replace(
                self._turn,
                text=self._turn.text + "".join(self._text),
                reasoning=self._turn.reasoning + "".join(self._reasoning),
                tool_calls=(*self._turn.tool_calls, *self._calls),
            )
            self._text, self._reasoning, self._calls = [], [], []
        seconds = self._seconds + (monotonic() - self._thought_since if self._thought_since else 0.0)
        self._turn = replace(self._turn, seconds=seconds)
        return self._turn

    def ended(self, status: Status, error: str = "") -> Turn:
        """The finished turn, with the numbers of `Done` if it came."""
        self._end_thinking()
        done = self.done
        stats = {}
        if done is not None:
            usage, figures = done.usage, done.stats
            extra = {k: v for k, v in figures.extra.items() if isinstance(v, int | float | str | dict)}
            if isinstance(experts := extra.get("experts"), dict):
                self.layers = tuple(experts.get("layers", ()))
                extra["experts"] = {name: value for name, value in experts.items() if name != "layers"}
            stats = {
                "prompt": usage.prompt_tokens,
                "cached": usage.cached_tokens,
                "tokens": usage.completion_tokens,
                "speed": figures.generation_tps,
                "prompt_speed": figures.prompt_tps,
                "first": figures.time_to_first_token,
                "memory": figures.peak_memory,
                "extra": extra,
            }
            if status == "done" and done.finish_reason == "length":
                status = "length"
        self._turn = replace(self.turn, status=status, error=error, stats=stats)
        return self._turn

    def _count(self) -> None:
        self.tokens += 1
        if self.tokens == 1:
            self.first_at = monotonic()

    def _end_thinking(self) -> None:
        if self._thought_since is not None:
            self._seconds += monotonic() - self._thought_since
            self._thought_since = None
