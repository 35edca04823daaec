"""One calm line of progress: what is done of how much, the rate, the time left. Plain lines where nobody watches."""

import shutil
import sys
import threading
import time
from collections import deque
from typing import TextIO

WINDOW = 20.0  # seconds that the rate is taken over
REDRAW, PLAIN_EVERY = 0.5, 15.0  # seconds


def size(nbytes: float) -> str:
    """Decimal units, as disks and downloads are sold: 210.6 GB."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(nbytes) >= scale:
            return f"{nbytes / scale:.1f} {unit}"
    return f"{nbytes:.0f} bytes"


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
    def rate(self) -> float:
        """Bytes a second over the last while."""
        now = time.monotonic()
        while len(self._marks) > 2 and now - self._marks[0][0] > WINDOW:
            self._marks.popleft()
        then, before = self._marks[0]
        return (self.received - before) / max(now - then, 1e-9)

    def line(self) -> str:
        rate = self.rate
        left = (self._total - self.done) / rate if rate > 0 else 0
        eta = f", {duration(left)} left" if rate > 0 and self.done < self._total else ""
        percent = 100 * self.done // max(self._total, 1)
        return (
            f"{self._verb} {percent} %: {size(self.done)} of {size(self._total)}, "
            f"{self.finished} of {self._files} files, {size(rate)}/s{eta}"
        )

    def _draw(self) -> None:
        now = time.monotonic()
        if self._quiet or now - self._drawn < (REDRAW if self._tty else PLAIN_EVERY):
            return
        self._marks.append((now, self.received))
        self._drawn = now
        line = self.line()
        if self._tty:  # a line that wraps cannot be drawn over
            line = f"\r{line[: shutil.get_terminal_size().columns - 1]}\x1b[K"
        self._out.write(line if self._tty else line + "\n")
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
