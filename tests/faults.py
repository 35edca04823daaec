"""Disks that fail when told to: the seam of `experts.reader`."""

from collections.abc import Callable, Sequence
from pathlib import Path

from qwen35_local.experts.reader import File, Reader


class FaultyFile(File):
    """A file whose reads go through `fault(views, offset) -> None | int | OSError`: None reads as usual."""

    fault: Callable[[Sequence[memoryview], int], object] = staticmethod(lambda views, offset: None)

    def preadv(self, views: Sequence[memoryview], offset: int) -> int:
        outcome = self.fault(views, offset)
        if isinstance(outcome, OSError):
            raise outcome
        if isinstance(outcome, int):  # a short read: at most so many bytes
            return super().preadv([views[0][:outcome]], offset) if outcome else 0
        return super().preadv(views, offset)


class FaultyReader(Reader):
    """Opens faulty files; set `fault` at any time."""

    def __init__(self, direct: bool = False):
        super().__init__(direct)
        self.fault: Callable[[Sequence[memoryview], int], object] = lambda views, offset: None

    def open(self, path: Path) -> File:
        file = FaultyFile(path, self.direct)
        file.fault = lambda views, offset: self.fault(views, offset)
        return file
