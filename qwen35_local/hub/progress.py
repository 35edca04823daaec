"""One calm line of progress: what is done of how much, the rate, the time left. Plain lines where nobody watches."""

import shutil
import sys
import threading
import time
from collections import deque
from typing import TextIO

WINDOW = 20.0  # seconds that the rate is taken over
SETTLED = 2.0  # seconds until there is one
REDRAW, PLAIN_EVERY = 0.5, 15.0  # seconds


def size(nbytes: float) -> str:
    """Decimal units, as disks and downloads are sold: 210.6 GB."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(nbytes) >= scale:
            return f"{nbytes / scale:.1f} {unit}"
    return f"{nbytes:.0f} bytes"


def counted(number: int, noun: str) -> str:
    """1 file, 2 files."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def duration(seconds: float) -> str:
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours} h {m:02} min" if hours else f"{m} min {s:02} s" if m else f"{s} s"


class Meter:
    """Counts bytes from any thread and draws. `total` bytes, `files` files; `verb` is what happens to them."""

    def __init__(self, total: int, files: int, verb: str, out: TextIO | None = None, quiet: bool = False):
        self._out = out or sys.stderr
        self._total, self._files, self._verb, self._quiet = total, files, verb, quiet
        self._lock = threading.Lock()
        self.done = 0
        self.finished = 0
        self.received = 0  # without what an earlier run had brought
        self._marks: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])
        self._tty = self._out.isatty()
        self._drawn = -1e9 if self._tty else time.monotonic()

    def had(self, nbytes: int) -> None:
        """Bytes that were here before: they count as done, not for the rate."""
        with self._lock:
            self.done += nbytes

    def add(self, nbytes: int) -> None:
        with self._lock:
            self.done += nbytes
            self.received += max(nbytes, 0)
            self._draw()

    def file_done(self) -> None:
        with self._lock:
            self.finished += 1
            self._draw()

    @property
    def rate(self) -> float | None:
        """Bytes a second over the last while; None for the first moments, which tell nothing."""
        now = time.monotonic()
        while len(self._marks) > 2 and now - self._marks[0][0] > WINDOW:
            self._marks.popleft()
        then, before = self._marks[0]
        return (self.received - before) / (now - then) if now - then >= SETTLED else None

    def line(self, width: int = 1000) -> str:
        """What to show: the most telling of it that `width` columns hold."""
        rate, left = self.rate, self._total - self.done
        done, total = size(self.done), size(self._total)
        if done[-2:] == total[-2:]:
            done = done[:-3]  # of 807.0 GB
        parts = [f"{self._verb} {100 * self.done // max(self._total, 1)} %: {done} of {total}"]
        parts.append(f"{self.finished} of {counted(self._files, 'file')}")
        if rate is not None:
            parts.append(f"{size(rate)}/s")
        if rate and left > 0:
            parts.append(f"{duration(left / rate)} left")
        while len(parts) > 1 and len(", ".join(parts)) > width:
            del parts[1]  # first the files, then the rate
        return ", ".join(parts)[:width]

    def _draw(self) -> None:
        now = time.monotonic()
        if self._quiet or now - self._drawn < (REDRAW if self._tty else PLAIN_EVERY):
            return
        self._marks.append((now, self.received))
        self._drawn = now
        if self._tty:  # a line that wraps cannot be drawn over
            self._out.write(f"\r{self.line(shutil.get_terminal_size().columns - 1)}\x1b[K")
        else:
            self._out.write(self.line() + "\n")
        self._out.flush()

    def notice(self, text: str) -> None:
        """Something worth a line of its own."""
        if self._quiet:
            return
        with self._lock:
            self._out.write(f"\r\x1b[K{text}\n" if self._tty else f"{text}\n")
            self._out.flush()

    def close(self) -> None:
        """Take the line away, so that what is said next has its own; once, and late bytes do not bring it back."""
        with self._lock:
            if not self._quiet and self._tty and self._drawn > 0:
                self._out.write("\r\x1b[K")
                self._out.flush()
            self._quiet = True
