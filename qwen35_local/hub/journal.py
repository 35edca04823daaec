"""How far a file has come, on disk, so that any death costs at most the bytes in flight.

A file is cut into segments, each filled from its start. The journal is a header line and two numbers a segment:
`written` bytes are in the operating system's hands (they survive a killed process), `synced` bytes are on the disk
(they survive a power cut). After a restart of the machine only `synced` counts.
"""

import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

HEADER = 512  # bytes, JSON padded with spaces
ENTRY = 16
SYNC_EVERY = 32 << 20  # bytes of one segment between two syncs


class Journal:
    """A partial file and its journal. Threads may write different segments at once."""

    def __init__(self, part: Path, size: int, segment: int, digest: str):
        """Open or begin `part`, which will have `size` bytes. What was begun for another `digest` is dropped."""
        self.size, self.segment = size, segment
        self.count = max(1, -(-size // segment))
        self._head = {"size": size, "segment": segment, "digest": digest, "boot": boot_id()}
        self._lock = threading.Lock()
        self._open = True
        side = journal_of(part)
        known = self._read(side, part)
        flags = os.O_RDWR | os.O_CREAT
        self._data = os.open(part, flags, 0o644)
        self._log = os.open(side, flags, 0o644)
        self.etag = ""
        self._written = [0] * self.count
        self._synced = [0] * self.count
        if known is None:
            self.reset()
        else:
            self.etag, self._written = known
            self._synced = list(self._written)
            self._save()

    def _read(self, side: Path, part: Path) -> tuple[str, list[int]] | None:
        """The etag and the bytes of each segment that can be trusted; None when it is not the journal of this file."""
        try:
            text = side.read_bytes()
            head = json.loads(text[:HEADER])
            etag, boot = head.pop("etag"), head.pop("boot")
            if head != {k: v for k, v in self._head.items() if k != "boot"} or part.stat().st_size != self.size:
                return None
            if len(text) != HEADER + ENTRY * self.count:
                return None
        except (OSError, ValueError, AttributeError, KeyError, TypeError):  # absent or torn: begin again
            return None
        column = 0 if boot and boot == self._head["boot"] else 8
        places = range(HEADER + column, len(text), ENTRY)
        done = [int.from_bytes(text[at : at + 8], "little") for at in places]
        return (str(etag), done) if all(n <= self.length(i) for i, n in enumerate(done)) else None

    def _save(self) -> None:
        head = json.dumps(self._head | {"etag": self.etag}).encode()
        table = b"".join(
            w.to_bytes(8, "little") + s.to_bytes(8, "little") for w, s in zip(self._written, self._synced, strict=True)
        )
        os.pwrite(self._log, head.ljust(HEADER) + table, 0)
        os.fsync(self._log)

    def reset(self, etag: str = "") -> None:
        """Forget every byte."""
        self.etag = etag
        self._written, self._synced = [0] * self.count, [0] * self.count
        os.ftruncate(self._log, 0)
        os.ftruncate(self._data, 0)
        os.ftruncate(self._data, self.size)
        self._save()

    def remember(self, etag: str) -> None:
        self.etag = etag
        with self._lock:
            self._save()

    def length(self, segment: int) -> int:
        return min(self.segment, self.size - segment * self.segment)

    def written(self, segment: int) -> int:
        return self._written[segment]

    @property
    def done(self) -> int:
        return sum(self._written)

    @property
    def unfinished(self) -> list[int]:
        return [i for i in range(self.count) if self._written[i] < self.length(i)]

    def write(self, segment: int, data: bytes) -> None:
        """Append to a segment: first the bytes, then the word that they are there."""
        at = self._written[segment]
        assert at + len(data) <= self.length(segment)
        view, place = memoryview(data), segment * self.segment + at
        with self._lock:
            if not self._open:
                raise OSError("the file was closed")
            while view:
                n = os.pwrite(self._data, view, place)
                view, place = view[n:], place + n
            self._note(segment, 0, at + len(data))
        if self._written[segment] - self._synced[segment] >= SYNC_EVERY:
            self._sync(segment)

    def _note(self, segment: int, column: int, value: int) -> None:
        (self._synced if column else self._written)[segment] = value
        os.pwrite(self._log, value.to_bytes(8, "little"), HEADER + ENTRY * segment + column)

    def _sync(self, segment: int) -> None:
        safe = self._written[segment]
        os.fsync(self._data)
        self._note(segment, 8, safe)
        os.fsync(self._log)

    def settle(self) -> None:
        """Leave every byte on the disk and the journal saying so."""
        os.fsync(self._data)
        self._synced = list(self._written)
        self._save()

    def close(self) -> None:
        """Threads that still want to write are refused from here on: a number of a closed file may be another's."""
        with self._lock:
            self._open = False
            os.close(self._data)
            os.close(self._log)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def journal_of(part: Path) -> Path:
    return part.with_name(part.name + ".journal")


def publish(part: Path, target: Path) -> None:
    """Everything is there and right: put the file in its place, so that the name means the whole file."""
    part.replace(target)
    journal_of(part).unlink(missing_ok=True)
    sync_directory(target.parent)


def discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    journal_of(part).unlink(missing_ok=True)


def sync_directory(path: Path) -> None:
    """Make names in a directory survive a power cut, where the file system can (network shares cannot)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(handle)


def boot_id() -> str:
    """What changes when the machine restarts; empty where that cannot be known."""
    try:
        if sys.platform == "linux":
            return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        if sys.platform == "darwin":
            command = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
            return subprocess.run(command, capture_output=True, text=True, check=False, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        pass
    return ""
