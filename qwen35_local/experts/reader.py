"""One open file of expert bytes, and the seam at which tests make the disk fail.

Direct I/O: O_DIRECT on Linux, which wants offset, length and memory aligned (what is not goes through an aligned
bounce buffer); F_NOCACHE on macOS, which wants nothing. A file system without it is read through the page cache.
"""

import mmap
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

ALIGN = 4096  # bytes; at least the logical block of every disk and file system met
F_NOCACHE = 48  # fcntl command of macOS, which Python does not name


class Reader:
    """Opens files. A test's reader overrides `preadv` and `fstat` of the files it opens."""

    def __init__(self, direct: bool = False):
        self.direct = direct

    def open(self, path: Path) -> "File":
        return File(path, self.direct)


class File:
    """An open file, as it was when it was opened."""

    def __init__(self, path: Path, direct: bool = False):
        self.path = path
        self.aligned = False  # whether the system insists on alignment
        self.direct = False
        self.fd = self._open(path, direct)
        self._bounce = threading.local()
        self._seen = self.fstat()

    def _open(self, path: Path, direct: bool) -> int:
        if direct and hasattr(os, "O_DIRECT"):
            try:
                fd = os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
                self.direct = self.aligned = True
                return fd
            except OSError:
                pass  # tmpfs and some network file systems: buffered reads are the same bytes
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if direct and sys.platform == "darwin":
            import fcntl

            fcntl.fcntl(fd, F_NOCACHE, 1)
            self.direct = True
        return fd

    def preadv(self, views: Sequence[memoryview], offset: int) -> int:
        """One system call; may deliver less than asked."""
        return os.preadv(self.fd, views, offset)

    def fstat(self) -> tuple[int, int]:
        """Size in bytes and time of the last change in nanoseconds."""
        stat = os.fstat(self.fd)
        return stat.st_size, stat.st_mtime_ns

    def changed(self) -> str:
        """What happened to the file since it was opened; empty if nothing did."""
        if (now := self.fstat()) == self._seen:
            return ""
        return f"changed from {self._seen[0]} to {now[0]} bytes" if now[0] != self._seen[0] else "was rewritten"

    def read_into(self, views: Sequence[memoryview], offset: int) -> None:
        """Fill every view from `offset` on. Raises EOFError (with both numbers) or OSError."""
        if not self.aligned or _is_aligned(views, offset):
            self._fill(list(views), offset)
            return
        # What O_DIRECT refuses is read from page to page around it, then copied out.
        nbytes = sum(len(view) for view in views)
        begin = offset - offset % ALIGN
        length = offset + nbytes - begin
        bounce = self._buffer(-(-length // ALIGN) * ALIGN)
        self._fill([bounce], begin, length)
        at = offset - begin
        for view in views:
            view[:] = bounce[at : at + len(view)]
            at += len(view)

    def _fill(self, views: list[memoryview], offset: int, enough: int | None = None) -> None:
        """Read until the views are full, or `enough` bytes are there: the last page of a file is seldom whole."""
        total = sum(len(view) for view in views)
        enough = total if enough is None else enough
        done = 0
        while done < enough:
            try:
                got = self.preadv(views, offset + done)
            except InterruptedError:
                continue
            done += max(got, 0)
            if got <= 0 or (done < enough and offset + done >= self.fstat()[0]):
                raise EOFError(f"it ends at byte {offset + done}, {enough - done} short")
            if self.aligned and done < enough:  # O_DIRECT must go on from a page boundary
                back = got % ALIGN
                got, done = got - back, done - back
            while got and views:
                step = min(got, len(views[0]))
                got -= step
                views[0] = views[0][step:]
                if not len(views[0]):
                    views.pop(0)

    def _buffer(self, nbytes: int) -> memoryview:
        """This thread's bounce buffer; anonymous memory maps are page aligned."""
        buffer = getattr(self._bounce, "buffer", None)
        if buffer is None or len(buffer) < nbytes:
            buffer = memoryview(mmap.mmap(-1, nbytes))
            self._bounce.buffer = buffer
        return buffer[:nbytes]

    def close(self) -> None:
        os.close(self.fd)


def _is_aligned(views: Sequence[memoryview], offset: int) -> bool:
    return offset % ALIGN == 0 and all(len(view) % ALIGN == 0 and address(view) % ALIGN == 0 for view in views)


def address(view: memoryview) -> int:
    """Where a byte view lies in memory."""
    return np.frombuffer(view, np.uint8).__array_interface__["data"][0]
