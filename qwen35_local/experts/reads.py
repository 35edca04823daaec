"""Which reads to make for a set of extents. Pure.

Neighbours in a file become one read with several destinations (a packed expert is one read, a sweep over stacked
tensors reads scales of many experts at once), and when few reads would be in flight they are split to fill the queue.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .layout import Extent

MERGE = 8 << 20  # bytes; a read of this size is at full speed on every disk measured
SPLIT = 256 << 10  # bytes; large enough for full speed, and small experts come one after another, not all at the end
PAGE = 16 << 10  # bytes; splits stay on page boundaries of the file for direct I/O
VECTORS = 64  # destinations of one preadv; systems allow 1024


@dataclass(frozen=True, slots=True)
class Target:
    """An extent, the memory it goes to (a writable byte view of exactly its length), and whose it is, for errors."""

    extent: Extent
    view: memoryview
    what: str


@dataclass(frozen=True, slots=True)
class Read:
    """One system call: consecutive bytes of a file into these views."""

    file: Path
    offset: int
    views: tuple[memoryview, ...]
    what: str

    @property
    def nbytes(self) -> int:
        return sum(len(view) for view in self.views)


def plan_reads(targets: Sequence[Target], workers: int) -> list[Read]:
    """Reads that deliver exactly these targets, in file order."""
    runs = _runs(sorted(targets, key=lambda t: (t.extent.file, t.extent.offset)))
    if not runs:
        return []
    total = sum(sum(len(t.view) for t in run) for run in runs)
    # Enough pieces for every thread, none below SPLIT, none above MERGE.
    size = min(MERGE, max(SPLIT, -(-total // workers)))
    return [read for run in runs for read in _cut(run, size)]


def _runs(targets: list[Target]) -> list[list[Target]]:
    """Targets grouped where each starts at the byte at which the one before it ends."""
    runs: list[list[Target]] = []
    end: tuple[Path, int] | None = None
    for target in targets:
        extent = target.extent
        if len(target.view) != extent.nbytes:
            raise ValueError(f"{target.what}: {len(target.view)} bytes of memory for {extent.nbytes} of the file")
        if end == (extent.file, extent.offset):
            runs[-1].append(target)
        else:
            runs.append([target])
        end = (extent.file, extent.offset + extent.nbytes)
    return runs


def _cut(run: list[Target], size: int) -> list[Read]:
    """A run as reads of about `size` bytes, cut on pages of the file; a rest below half of `size` is not cut off."""
    begin = run[0].extent.offset
    end = run[-1].extent.offset + run[-1].extent.nbytes
    cuts = [begin]
    while end - cuts[-1] > size + size // 2:
        cut = cuts[-1] + size
        cuts.append(cut - cut % PAGE if cut - cut % PAGE > cuts[-1] else cut)
    reads = []
    for low, high in zip(cuts, [*cuts[1:], end], strict=True):
        inside = [t for t in run if t.extent.offset < high and t.extent.offset + t.extent.nbytes > low]
        for i in range(0, len(inside), VECTORS):
            reads.append(_read(inside[i : i + VECTORS], low, high))
    return reads


def _read(targets: list[Target], low: int, high: int) -> Read:
    """What lies between the bytes `low` and `high` of the file, of consecutive targets."""
    views = []
    for target in targets:
        at = target.extent.offset
        views.append(target.view[max(low - at, 0) : min(high - at, len(target.view))])
    first = targets[0]
    return Read(first.extent.file, max(low, first.extent.offset), tuple(views), first.what)
