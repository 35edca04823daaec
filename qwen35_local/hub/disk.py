"""How fast a disk reads pieces of the size of an expert: what streamed decoding lives on."""

import os
import random
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

EXPERT = 6_684_672  # bytes of one MXFP4 expert of the 397B
FILE = 40 * EXPERT  # 267 MB: more than a drive's own cache hides, and soon written
READERS = 8
SECONDS = 3.0  # at most, for writing and for reading


@dataclass(frozen=True, slots=True)
class DiskRate:
    """Bytes a second, past the page cache where the system allows; `cached` says that it did not."""

    write: float
    read: float
    cached: bool


def measure_disk(directory: Path) -> DiskRate:
    """Write, sync, forget and read a temporary file in `directory`. Raises OSError."""
    with tempfile.NamedTemporaryFile(dir=directory, prefix=".qwen35-disk-") as file:
        block = os.urandom(EXPERT)
        begin = time.perf_counter()
        written = 0
        while written < FILE and time.perf_counter() - begin < SECONDS:
            file.write(block)
            file.flush()
            os.fsync(file.fileno())
            written += EXPERT
        write = written / (time.perf_counter() - begin)
        cached = not _forget(file.fileno())
        places = list(range(0, written, EXPERT))
        random.Random(0).shuffle(places)
        stop = time.perf_counter() + SECONDS

        def read(offset: int) -> int:
            return len(os.pread(file.fileno(), EXPERT, offset)) if time.perf_counter() < stop else 0

        begin = time.perf_counter()
        with ThreadPoolExecutor(READERS) as pool:
            total = sum(pool.map(read, places))
        return DiskRate(write, total / (time.perf_counter() - begin), cached)


def _forget(handle: int) -> bool:
    """Have the next reads come from the disk; whether the system can."""
    if sys.platform == "darwin":
        import fcntl

        fcntl.fcntl(handle, fcntl.F_NOCACHE, 1)
        return True
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        return True
    return False
