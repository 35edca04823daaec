"""One file over several connections: ranges in parallel, patience with what may pass, a sentence for what will not."""

import http.client
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DownloadError, StorageError
from .http import Again, Answer, Bodies, Client, StartOver, reason
from .journal import Journal
from .place import on_disk
from .remote import RemoteFile

READ = 256 << 10
SLOWEST = 1024  # bytes a second; a connection below it for a whole stall period is as good as dead
PARTING = 0.5  # seconds that a transfer which ends early waits for its connections to close


@dataclass(frozen=True, slots=True)
class Patience:
    """How the transfer behaves. Sizes in bytes, times in seconds."""

    connections: int = 6
    segment: int = 64 << 20
    stall: float = 60.0
    tries: int = 20  # failures in a row, without a byte between them: a quarter of an hour
    first_pause: float = 1.0
    longest_pause: float = 60.0
    restarts: int = 2  # times that one file may begin again from nothing


class Stopped(Exception):
    """Somebody asked the transfer to stop."""


class FileTransfer:
    """Fetch `file` into `part` (journalled). `on_bytes(n)` hears of bytes as they are written, from any thread;
    n is negative when bytes are given up."""

    def __init__(
        self,
        client: Client,
        url: str,
        file: RemoteFile,
        part: Path,
        patience: Patience,
        stop: threading.Event,
        on_bytes: Callable[[int], None],
        on_notice: Callable[[str], None],
    ):
        self._client, self._url, self._file, self._part = client, url, file, part
        self._patience, self._stop, self._on_bytes, self._on_notice = patience, stop, on_bytes, on_notice
        self._lock = threading.Lock()
        self._bodies = Bodies()
        self._failures = 0
        self._failed, self._retry = float("-inf"), 0.0  # when a failure was last counted; when all try again
        self._ranges = True

    def run(self) -> None:
        """Return when every byte is in `part`; not yet verified. Raises DownloadError, StorageError or Stopped."""
        with on_disk(self._part), Journal(self._part, *self._key) as journal:
            self._on_bytes(journal.done)
            for attempt in range(self._patience.restarts + 1):
                try:
                    self._round(journal)
                    return journal.settle()
                except StartOver as error:
                    if attempt == self._patience.restarts:
                        raise DownloadError(f"{error}: run the same line again to list it anew") from error
                    self._on_notice(f"{error}; beginning this file again")
                    self._on_bytes(-journal.done)
                    journal.reset()
        return None

    @property
    def _key(self) -> tuple[int, int, str]:
        return self._file.size, self._patience.segment, self._file.digest

    def _round(self, journal: Journal) -> None:
        """Work until nothing is missing, or the first error that cannot be waited out."""
        while journal.unfinished:
            if self._stop.is_set():
                raise Stopped
            queue = deque(journal.unfinished)
            failed: list[Exception] = []
            enough = threading.Event()
            count = min(self._patience.connections, len(queue)) if self._ranges else 1
            # Daemons: Ctrl-C must not wait for a socket. The journal is right at every instant.
            workers = [
                threading.Thread(target=self._work, args=(journal, queue, failed, enough), daemon=True)
                for _ in range(count)
            ]
            for worker in workers:
                worker.start()
            try:
                for worker in workers:
                    while worker.is_alive():
                        worker.join(0.2)
                        if self._stop.is_set():
                            raise Stopped
            finally:
                self._end(workers, enough)
            for kind in (StorageError, DownloadError, StartOver):  # the most telling first
                for error in failed:
                    if isinstance(error, kind):
                        raise error
            if failed and not isinstance(failed[0], _NoRanges):
                raise failed[0]

    def _end(self, workers: Sequence[threading.Thread], enough: threading.Event) -> None:
        """No connection is left open behind a transfer that has ended, nor waited for longer than Ctrl-C may take."""
        enough.set()
        self._bodies.cut()
        deadline = time.monotonic() + PARTING
        for worker in workers:
            worker.join(max(deadline - time.monotonic(), 0.0))

    def _work(self, journal: Journal, queue: deque[int], failed: list[Exception], enough: threading.Event) -> None:
        try:
            while not (enough.is_set() or self._stop.is_set()):
                with self._lock:
                    if not queue:
                        return
                    segment = queue.popleft()
                self._patiently(journal, segment, enough)
        except Exception as error:
            failed.append(error)
            enough.set()
            self._bodies.cut()  # the others may be waiting for bytes that nobody wants any more

    def _patiently(self, journal: Journal, segment: int, enough: threading.Event) -> None:
        while journal.written(segment) < journal.length(segment):
            began = time.monotonic()
            try:
                self._segment(journal, segment, enough)
                return
            except Again as error:
                if enough.is_set() or self._stop.is_set():
                    return
                if self._stop.wait(self._pause(error, began)) or enough.is_set():
                    return

    def _pause(self, error: Again, began: float) -> float:
        """Seconds until the next try of one that began at `began`; raises DownloadError when it was the last.

        What breaks one connection breaks all of them: tries under way when a failure was counted are not counted."""
        with self._lock:
            now = time.monotonic()
            if began >= self._failed:
                self._failed, self._failures = now, self._failures + 1
                if self._failures >= self._patience.tries:
                    raise DownloadError(
                        f"{self._file.path} failed {self._failures} times in a row: {error}. "
                        "What was received is kept; run the same line again to go on"
                    ) from error
                pause = min(self._patience.first_pause * 2.0 ** (self._failures - 1), self._patience.longest_pause)
                pause = error.after if error.after is not None else pause * random.uniform(0.5, 1.0)
                self._retry = now + pause
                self._on_notice(f"{self._file.path}: {error}; trying again in {pause:.0f} s")
            return max(self._retry - now, error.after or 0.0, 0.0)

    def _segment(self, journal: Journal, segment: int, enough: threading.Event) -> None:
        first = segment * journal.segment
        start, end = first + journal.written(segment), first + journal.length(segment)
        answer = self._client.get(self._url, start, end, journal.size, self._file.path)
        with self._bodies.reading(answer):
            self._check_etag(journal, answer)
            if answer.start != start:
                self._whole(journal, answer, enough)
            else:
                self._copy(answer, end - start, lambda data: self._keep(journal, segment, data), enough)

    def _check_etag(self, journal: Journal, answer: Answer) -> None:
        with self._lock:
            if answer.etag and not journal.etag:
                journal.remember(answer.etag)
        if answer.etag and journal.etag != answer.etag:
            raise StartOver(f"{self._file.path} changed on the server")

    def _whole(self, journal: Journal, answer: Answer, enough: threading.Event) -> None:
        """A server without ranges sends the file from its start, whatever is asked: one connection then, in order."""
        if self._ranges and journal.count > 1:
            self._ranges = False
            self._on_notice(f"the server sends {self._file.path} only as a whole: a break costs what came before it")
            raise _NoRanges
        at = 0

        def place(data: bytes) -> None:
            nonlocal at
            while data:
                segment, inside = divmod(at, journal.segment)
                piece = data[: journal.length(segment) - inside]
                if (have := journal.written(segment)) < inside + len(piece):
                    self._keep(journal, segment, piece[have - inside :])
                at += len(piece)
                data = data[len(piece) :]

        self._copy(answer, journal.size, place, enough)

    def _keep(self, journal: Journal, segment: int, data: bytes) -> None:
        with on_disk(self._part):
            journal.write(segment, data)
        self._on_bytes(len(data))
        self._failures = 0

    def _copy(self, answer: Answer, nbytes: int, keep: Callable[[bytes], None], enough: threading.Event) -> None:
        window, received = time.monotonic(), 0
        while nbytes and not (enough.is_set() or self._stop.is_set()):
            try:
                data = answer.body.read1(min(READ, nbytes))
            except (OSError, http.client.HTTPException) as error:
                raise Again(reason(error)) from error
            if not data:
                raise Again("the connection was closed early")
            keep(data)
            nbytes -= len(data)
            received += len(data)
            if (elapsed := time.monotonic() - window) > self._patience.stall:
                if received < SLOWEST * elapsed:
                    raise Again(f"only {received} bytes came in {elapsed:.0f} s")
                window, received = time.monotonic(), 0


class _NoRanges(Exception):
    """Found out that the server ignores ranges: go on with one connection."""
