"""Events -> a plain terminal: thinking dimmed, control characters made visible, stats on stderr."""

import re
import sys
from collections.abc import Iterable
from typing import TextIO

from ..engine import Completion, gather
from ..events import Done, Event, Progress, Reasoning, Text, ToolCall

DIM, PLAIN = "\x1b[2m", "\x1b[0m"
# C0 (but newline and tab), DEL and C1: a model must not be able to move the cursor or set the title of a terminal.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """`text` without anything that a terminal would act on; controls become Unicode's pictures of them."""

    def picture(match: re.Match[str]) -> str:
        code = ord(match[0])
        return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else "\ufffd"

    return CONTROL.sub(picture, text)


class Printer:
    """Writes an answer as it comes. On a terminal thinking is dimmed; into a pipe only the answer goes."""

    def __init__(self, out: TextIO, err: TextIO, color: bool):
        self._out, self._err, self._color = out, err, color
        self._terminal = out.isatty()
        self._thinking = False
        self._progress = False

    def show(self, events: Iterable[Event]) -> Completion:
        """Print the answer and return it; the terminal is left in order whatever happens."""
        try:
            return gather(self._printed(events))
        finally:
            self._end_thinking()
            self._clear_progress()
            self._out.flush()

    def _printed(self, events: Iterable[Event]) -> Iterable[Event]:
        for event in events:
            self._print(event)
            yield event

    def _print(self, event: Event) -> None:
        if isinstance(event, Progress):
            return self.progress(event)
        self._clear_progress()
        match event:
            case Reasoning(text):
                if self._terminal:
                    self._write(("" if self._thinking or not self._color else DIM) + printable(text))
                    self._thinking = True
            case Text(text):
                self._end_thinking()
                self._write(printable(text) if self._terminal else text)
            case ToolCall():
                self._end_thinking()
                arguments = ", ".join(f"{name}={value!r}" for name, value in event.arguments.items())
                self._write(printable(f"[call {event.name}({arguments})]\n"))
            case Done():
                self._end_thinking()
                self._write("\n")
        return None

    def progress(self, event: Progress) -> None:
        """One line, rewritten; only where a person watches, and only for work worth watching."""
        if not self._err.isatty() or event.done >= event.total:
            return
        what = "loading" if event.phase == "load" else "reading the prompt"
        self._err.write(f"\r{what} {100 * event.done // max(event.total, 1)} %")
        self._err.flush()
        self._progress = True

    def _clear_progress(self) -> None:
        if self._progress:
            self._err.write("\r\x1b[K")
            self._err.flush()
            self._progress = False

    def _end_thinking(self) -> None:
        if self._thinking:
            self._write((PLAIN if self._color else "") + "\n\n")
            self._thinking = False

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def summary(done: Done) -> str:
    """One line of statistics, and one that says why tokens were read that had been read before, if any were."""
    usage, stats = done.usage, done.stats
    cached = f" ({usage.cached_tokens} cached)" if usage.cached_tokens else ""
    return (
        f"prompt {usage.prompt_tokens} tokens{cached}, {stats.prompt_tps:.1f} tok/s | "
        f"answer {usage.completion_tokens} tokens, {stats.generation_tps:.1f} tok/s | "
        f"first token {stats.time_to_first_token:.2f} s | peak memory {stats.peak_memory / 2**20:.0f} MiB | "
        f"{done.finish_reason}" + (f"\nread again: {reuse}" if (reuse := stats.extra.get("reuse")) else "")
    )


def color(stream: TextIO, no_color: bool) -> bool:
    return stream.isatty() and not no_color


def standard_printer(no_color: bool) -> Printer:
    return Printer(sys.stdout, sys.stderr, color(sys.stdout, no_color))
