"""Parallel reads of extents straight into given memory: a persistent pool of threads around `os.preadv`.

The threads touch files and memory views only, never MLX. A read either delivers every byte or fails with a sentence
that names the file and the expert; a file that changes while it is in use is an error, never other bytes. A file that
is deleted or replaced stays readable: what was opened is what is read.
"""

import errno
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from ..config import WORKERS
from ..errors import ExpertReadError
from .reader import File, Reader
from .reads import Read, Target, plan_reads


@dataclass(slots=True)
class Counters:
    """What a source has done. `busy` is the seconds in which at least one read was under way."""

    bytes: int = 0
    reads: int = 0
    retries: int = 0
    busy: float = 0.0
    guesses_used: int = 0


@dataclass(eq=False)
class Batch:
    """Reads under way. `wait` returns when all are done, or raises the first failure once none is under way."""

    pending: int
    nbytes: int
    error: ExpertReadError | None = None
    done: threading.Event = field(default_factory=threading.Event)

    @property
    def ready(self) -> bool:
        return self.done.is_set()

    def wait(self) -> None:
        self.done.wait()
        if self.error is not None:
            raise self.error


class Source:
    """Reads from a set of files. `direct` bypasses the page cache where the platform can."""

    def __init__(self, direct: bool = False, workers: int = WORKERS, reader: Reader | None = None):
        self.reader = reader or Reader(direct)
        self.workers = workers
        self.counters = Counters()
        self._files: dict[Path, File] = {}
        self._urgent: deque[tuple[Read, Batch]] = deque()
        self._idle: deque[tuple[Read, Batch]] = deque()
        self._wake = threading.Condition()
        self._active = 0
        self._since = 0.0
        self._closed = False
        self._threads = [threading.Thread(target=self._work, name=f"experts-{i}", daemon=True) for i in range(workers)]
        for thread in self._threads:
            thread.start()

    def open(self, path: Path) -> File:
        """The open file at `path`; its size and time of change are remembered from the first call."""
        if path not in self._files:
            try:
                self._files[path] = self.reader.open(path)
            except OSError as error:
                raise ExpertReadError(f"cannot open {path.name}: {error.strerror}") from error
        return self._files[path]

    def submit(self, targets: Sequence[Target], urgent: bool = True) -> Batch:
        """Start reading every target; urgent reads overtake all others. Nothing may use the memory until `wait`."""
        if self._closed:
            raise ExpertReadError("the experts' files are closed")
        for target in targets:
            self.open(target.extent.file)
        reads = plan_reads(targets, self.workers)
        batch = Batch(len(reads), sum(read.nbytes for read in reads))
        if not reads:
            batch.done.set()
            return batch
        with self._wake:
            (self._urgent if urgent else self._idle).extend((read, batch) for read in reads)
            self._wake.notify(len(reads))
        return batch

    @property
    def behind(self) -> int:
        """Reads that are not urgent and have not begun: above zero the disk has no time for more of them."""
        return len(self._idle)

    def hurry(self, batch: Batch) -> None:
        """This batch is needed now: what of it has not begun comes before everything else."""
        with self._wake:
            if waiting := [entry for entry in self._idle if entry[1] is batch]:
                self._idle = deque(entry for entry in self._idle if entry[1] is not batch)
                self._urgent.extendleft(reversed(waiting))

    def close(self) -> None:
        """Stop the threads and close the files; reads that have not begun fail."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        for thread in self._threads:
            thread.join()
        for queue in (self._urgent, self._idle):
            while queue:
                self._finish(queue.popleft()[1], ExpertReadError("the experts' files were closed"))
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _work(self) -> None:
        while True:
            with self._wake:
                while not (self._urgent or self._idle or self._closed):
                    self._wake.wait()
                if self._closed:
                    return
                read, batch = (self._urgent or self._idle).popleft()
                if self._active == 0:
                    self._since = perf_counter()
                self._active += 1
            error = None
            try:
                self._read(read)
            except ExpertReadError as failure:
                error = failure
            except Exception as failure:  # a thread that dies would leave its batch waiting for ever
                error = ExpertReadError(f"reading {read.what} from {read.file.name} failed: {failure}")
            with self._wake:
                self._active -= 1
                self.counters.reads += 1
                self.counters.bytes += read.nbytes if error is None else 0
                if self._active == 0:
                    self.counters.busy += perf_counter() - self._since
            self._finish(batch, error)

    def _finish(self, batch: Batch, error: ExpertReadError | None) -> None:
        with self._wake:
            batch.pending -= 1
            batch.error = batch.error or error
            last = batch.pending == 0
        if last:
            batch.done.set()

    def _read(self, read: Read) -> None:
        file = self._files[read.file]
        try:
            self._retried(lambda: file.read_into(read.views, read.offset))
            changed = file.changed()
        except EOFError as error:
            raise ExpertReadError(f"{read.file.name} was truncated: {error} while reading {read.what}") from error
        except OSError as error:
            raise ExpertReadError(f"cannot read {read.what} from {read.file.name}: {error.strerror}") from error
        if changed:
            raise ExpertReadError(f"{read.file.name} {changed} while {read.what} was read from it: load the model anew")

    def _retried(self, attempt: Callable[[], None]) -> None:
        """Once more after an I/O error: a cable or a drive that woke up; a second one is for good."""
        try:
            attempt()
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            self.counters.retries += 1
            attempt()
