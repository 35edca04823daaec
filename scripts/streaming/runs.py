"""Loading, timing and disk helpers of the streaming benchmark."""

import mmap
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, sleep

import mlx.core as mx
import numpy as np
from tiny import load, opened

from qwen35_local.experts.reader import ALIGN, File, Reader
from qwen35_local.experts.source import WORKERS, Source
from qwen35_local.experts.store import open_store
from qwen35_local.model.qwen35 import Qwen35, drained
from qwen35_local.model.stream import ExpertStream


@contextmanager
def streamed(
    path: Path,
    slots: int,
    packed: bool = True,
    direct: bool = True,
    lookahead: int = 0,
    group: int = 32,
    reader: Reader | None = None,
) -> Iterator[tuple[Qwen35, ExpertStream]]:
    """A model with so many experts of each layer in memory."""
    weights, config = opened(path)
    layouts = open_store(path / "experts") if packed else weights.expert_layouts(config.text)
    source = Source(direct, reader=reader)
    stream = ExpertStream(layouts, [slots] * len(layouts), group, source, config.text, lookahead)
    stream.fill()
    yield Qwen35(weights, config.text, stream.experts), stream
    stream.close()


def resident(path: Path) -> Qwen35:
    return load(path)


class Timeline:
    """One sequence of tokens on a model, with times."""

    def __init__(self, model: Qwen35):
        self.model, self.state = model, model.new_state()

    def feed(self, ids: Sequence[int]) -> tuple[np.ndarray, float]:
        """Logits [V] after the last token, and the seconds it took."""
        start = perf_counter()
        blocks, _ = drained(self.model.run(mx.array([list(ids)]), self.state))
        logits = np.array(self.model.logits(self.model.norm(blocks[-1][:, -1]))[0])
        return logits, perf_counter() - start

    def decode(self, ids: Sequence[int]) -> tuple[list[np.ndarray], float]:
        fed = [self.feed([int(token)]) for token in ids]
        return [logits for logits, _ in fed], sum(seconds for _, seconds in fed)


def drop(path: Path) -> None:
    """Ask the system to forget the cached pages of these files."""
    for file in path.rglob("*"):
        if file.is_file():
            fd = os.open(file, os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


@dataclass(frozen=True)
class Place:
    file: Path
    offset: int


def places(path: Path, nbytes: int, count: int, seed: int) -> list[Place]:
    """Random page-aligned places of so many bytes in the packed layers."""
    rng = np.random.default_rng(seed)
    files = sorted((path / "experts").glob("*.experts"))
    chosen = [files[i] for i in rng.integers(0, len(files), count)]
    return [Place(f, int(rng.integers(0, (f.stat().st_size - nbytes) // ALIGN)) * ALIGN) for f in chosen]


def raw(where: Sequence[Place], nbytes: int, threads: int) -> float:
    """Seconds of plain O_DIRECT reads by plain threads: what the disk can do in this run."""
    fds = {place.file: os.open(place.file, os.O_RDONLY | getattr(os, "O_DIRECT", 0)) for place in where}
    todo, lock = list(where), threading.Lock()

    def work() -> None:
        buffer = mmap.mmap(-1, nbytes)
        while True:
            with lock:
                if not todo:
                    return
                place = todo.pop()
            done = 0
            while done < nbytes:
                done += os.preadv(fds[place.file], [memoryview(buffer)[done:]], place.offset + done)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    start = perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    seconds = perf_counter() - start
    for fd in fds.values():
        os.close(fd)
    return seconds


def raw_bandwidth(path: Path, nbytes: int, count: int, seed: int) -> float:
    """Bytes a second of plain direct reads of about `nbytes` each."""
    block = nbytes // 4096 * 4096
    sample = places(path, block, count, seed)
    return block * len(sample) / raw(sample, block, WORKERS)


class SlowReader(Reader):
    """Direct reads as from a disk of `gbps`: what has arrived is handed over when that disk would have it."""

    def __init__(self, gbps: float):
        super().__init__(direct=True)
        self._rate, self._lock, self._free = gbps * 1e9, threading.Lock(), 0.0

    def open(self, path: Path) -> File:
        file = SlowFile(path, direct=True)
        file.wait = self.wait
        return file

    def wait(self, nbytes: int, since: float) -> None:
        """Until a disk that was asked at `since`, and reads one thing after another, would have read so much."""
        with self._lock:
            self._free = due = max(self._free, since) + nbytes / self._rate
        sleep(max(0.0, due - perf_counter()))


class SlowFile(File):
    wait: Callable[[int, float], None]

    def preadv(self, views: Sequence[memoryview], offset: int) -> int:
        since = perf_counter()
        got = super().preadv(views, offset)
        self.wait(got, since)
        return got


class MappedReader(Reader):
    """The mmap baseline: every byte through a page fault, as lazily loaded checkpoints are read."""

    def open(self, path: Path) -> File:
        return MappedFile(path)


class MappedFile(File):
    def __init__(self, path: Path):
        super().__init__(path)
        self._map = mmap.mmap(self.fd, 0, prot=mmap.PROT_READ)
        self._map.madvise(mmap.MADV_RANDOM)

    def preadv(self, views: Sequence[memoryview], offset: int) -> int:
        for view in views:
            view[:] = memoryview(self._map)[offset : offset + len(view)]
            offset += len(view)
        return sum(len(view) for view in views)
