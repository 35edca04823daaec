"""Reads that go wrong: short, interrupted, failing once or for good, and files that change under the reader."""

import errno
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from qwen35_local.errors import ExpertReadError
from qwen35_local.experts.layout import Extent
from qwen35_local.experts.reader import ALIGN, Reader, address
from qwen35_local.experts.reads import Target
from qwen35_local.experts.source import Batch, Source

SIZE = 3 * ALIGN + 777


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "experts.safetensors"
    path.write_bytes(np.random.default_rng(0).integers(0, 256, SIZE, np.uint8).tobytes())
    return path


def target(file: Path, offset: int, nbytes: int) -> tuple[Target, bytearray]:
    memory = bytearray(nbytes)
    return Target(Extent(file, offset, nbytes, 0, 0), memoryview(memory), "expert 3 of layers.1.mlp"), memory


def check(source: Source, file: Path, offset: int = 5, nbytes: int = SIZE - 5) -> None:
    wanted, memory = target(file, offset, nbytes)
    source.submit([wanted]).wait()
    assert memory == file.read_bytes()[offset : offset + nbytes]


def test_short_and_interrupted_reads_are_continued(source, reader, file):
    calls = iter([1, InterruptedError(), 5, 4096, 100])
    reader.fault = lambda views, offset: next(calls, None)
    check(source, file)
    assert source.counters.bytes == SIZE - 5


def test_an_error_is_retried_once(source, reader, file):
    calls = iter([10, OSError(errno.EIO, "Input/output error")])
    reader.fault = lambda views, offset: next(calls, None)
    check(source, file)
    assert source.counters.retries == 1


def test_an_error_for_good_names_file_and_expert_and_leaves_the_source_usable(source, reader, file):
    reader.fault = lambda views, offset: OSError(errno.EIO, "Input/output error")
    wanted, _ = target(file, 0, 10)
    with pytest.raises(
        ExpertReadError, match=r"expert 3 of layers\.1\.mlp from experts\.safetensors: Input/output error"
    ):
        source.submit([wanted]).wait()
    reader.fault = lambda views, offset: None
    check(source, file)


def test_a_batch_ends_only_when_all_its_reads_have(source, reader, file):
    """A failed read must not hand back memory that another one still writes."""
    go, started = threading.Event(), threading.Event()

    def fault(views, offset):
        if offset == 0:
            return OSError(errno.ENXIO, "Device not configured")
        started.set()
        go.wait(10)
        return None

    reader.fault = fault
    (bad, _), (slow, memory) = target(file, 0, 10), target(file, 100, 10)
    batch = source.submit([bad, slow])
    assert started.wait(10)
    assert not batch.ready
    go.set()
    with pytest.raises(ExpertReadError, match="Device not configured"):
        batch.wait()
    assert memory == file.read_bytes()[100:110]


def test_a_thread_survives_what_nobody_expected(source, reader, file):
    reader.fault = lambda views, offset: 1 / 0
    wanted, _ = target(file, 0, 10)
    for _ in range(8):
        with pytest.raises(ExpertReadError, match="division"):
            source.submit([wanted]).wait()
    reader.fault = lambda views, offset: None
    check(source, file)


def test_truncated(source, file):
    check(source, file)
    os.truncate(file, 1000)
    wanted, _ = target(file, 900, 200)
    with pytest.raises(ExpertReadError, match=r"was truncated: it ends at byte 1000, 100 short while reading expert 3"):
        source.submit([wanted]).wait()


def test_rewritten_in_place(source, file):
    check(source, file)
    with file.open("r+b") as out:
        out.write(b"x" * 100)
    wanted, _ = target(file, 0, 100)
    with pytest.raises(ExpertReadError, match="was rewritten while expert 3"):
        source.submit([wanted]).wait()


def test_deleted_or_replaced_files_stay_what_they_were(source, file, tmp_path):
    data = file.read_bytes()
    check(source, file)
    (tmp_path / "other").write_bytes(bytes(SIZE))
    (tmp_path / "other").replace(file)
    for _ in range(2):
        wanted, memory = target(file, 7, 99)
        source.submit([wanted]).wait()
        assert memory == data[7:106]
        file.unlink(missing_ok=True)


def test_missing_and_closed(source, file, tmp_path):
    with pytest.raises(ExpertReadError, match=r"cannot open gone\.safetensors: No such file"):
        source.submit([target(tmp_path / "gone.safetensors", 0, 1)[0]])
    source.close()
    with pytest.raises(ExpertReadError, match="closed"):
        source.submit([target(file, 0, 1)[0]])
    source.close()


@pytest.mark.parametrize(("offset", "nbytes"), [(0, ALIGN), (0, SIZE), (5, 100), (ALIGN - 1, ALIGN + 2), (SIZE - 1, 1)])
def test_direct_reads_need_no_alignment(file, offset, nbytes):
    source = Source(direct=True, workers=2)
    check(source, file, offset, nbytes)
    wanted, _ = target(file, SIZE - 10, 20)
    with pytest.raises(ExpertReadError, match=f"ends at byte {SIZE}, 10 short"):
        source.submit([wanted]).wait()
    source.close()


def test_direct_reads_into_aligned_memory_do_not_copy(file):
    opened = Reader(direct=True).open(file)
    room = memoryview(bytearray(3 * ALIGN))
    view = room[-address(room) % ALIGN :][:ALIGN]
    opened._buffer = None  # pyright: ignore[reportAttributeAccessIssue]
    opened.read_into([view], ALIGN)
    assert bytes(view) == file.read_bytes()[ALIGN : 2 * ALIGN]
    opened.close()


def begun(reader, file, submitted: Callable[[Source], Sequence[Batch]]) -> list[int]:
    """The offsets of one thread's reads, in order, of what was submitted while it was busy with offset 99."""
    source, order, busy, go = Source(workers=1, reader=reader), [], threading.Event(), threading.Event()

    def fault(views, offset):
        order.append(offset)
        busy.set()
        go.wait(10)

    reader.fault = fault
    first = source.submit([target(file, 99, 1)[0]])
    assert busy.wait(10)
    batches = submitted(source)
    go.set()
    for batch in (first, *batches):
        batch.wait()
    source.close()
    return order[1:]


def test_urgent_reads_overtake(reader, file):
    def submitted(source: Source) -> list[Batch]:
        urgent = (False, False, True, True)
        return [source.submit([target(file, at, 1)[0]], urgent=now) for at, now in enumerate(urgent)]

    assert begun(reader, file, submitted) == [2, 3, 0, 1]


def test_what_was_guessed_and_is_needed_comes_first(reader, file):
    def submitted(source: Source) -> list[Batch]:
        guesses = [source.submit([target(file, at, 1)[0]], urgent=False) for at in (0, 1, 2)]
        assert source.behind == 3
        demand = source.submit([target(file, 3, 1)[0]])
        source.hurry(guesses[1])
        assert source.behind == 2
        source.hurry(demand)  # it is urgent already
        return [*guesses, demand]

    assert begun(reader, file, submitted) == [1, 3, 0, 2]
