"""Memory for experts: stable MLX arrays, and writable views of the same bytes for the reading threads.

The arrays are made once and held for life: MLX never moves or copies what is held, and a model that gathers from them
by slot number sees whatever the slots hold when its graph runs. MLX protects nothing in flight, so we do: `reading` is
told of every output that is computed from the slots, `writing` of every read into them, and `retire` waits for both
before the first slot is written.
"""

from collections.abc import Sequence
from math import prod

import mlx.core as mx
import numpy as np

from .layout import Extent, Part
from .reader import ALIGN
from .reads import Target
from .source import Batch

DTYPES = {"U32": mx.uint32, "U8": mx.uint8, "BF16": mx.bfloat16, "F16": mx.float16, "F32": mx.float32}


class Slots:
    """`count` slots of one expert each. `arrays` are the parts, [count, rows, columns]."""

    def __init__(self, parts: Sequence[Part], count: int):
        self.parts = tuple(parts)
        self.count = count
        made = [_part(part, count) for part in parts]
        self.arrays = tuple(array for array, _ in made)
        self._views = tuple(view for _, view in made)
        self.readers: list[mx.array] = []  # evaluate them beside something else to save a wait
        self._writers: list[Batch] = []

    @property
    def nbytes(self) -> int:
        return self.count * sum(part.nbytes for part in self.parts)

    def reading(self, *outputs: mx.array) -> None:
        """These outputs are computed from the slots: no slot may be written before they are there."""
        self.readers += outputs

    def writing(self, batch: Batch) -> None:
        """These reads write into slots; whoever started them may fail before they end."""
        self._writers.append(batch)

    def written(self) -> None:
        """Wait until every read into the slots has ended, well or not."""
        for batch in self._writers:
            batch.done.wait()
        self._writers.clear()

    def retire(self) -> None:
        """Wait for every read into the slots and every graph that reads them; then they may be written."""
        self.written()
        if self.readers:
            mx.eval(self.readers)
            self.readers = []

    def targets(self, slot: int, extents: Sequence[Extent], what: str) -> list[Target]:
        """Where the bytes of an expert's extents go when it is read into `slot`."""
        found = []
        for extent in extents:
            begin = slot * self.parts[extent.part].nbytes + extent.start
            found.append(Target(extent, self._views[extent.part][begin : begin + extent.nbytes], what))
        return found

    def copy(self, slot: int, other: "Slots", other_slot: int) -> None:
        """Take an expert over from other memory of the same parts."""
        for part, to, from_ in zip(self.parts, self._views, other._views, strict=True):
            n = part.nbytes
            to[slot * n : (slot + 1) * n] = from_[other_slot * n : (other_slot + 1) * n]


def _part(part: Part, count: int) -> tuple[mx.array, memoryview]:
    """The array of one part and a writable byte view of it. On Linux MLX's memory is not page aligned, so a page more
    is taken, and the array begins at the first whole one: direct I/O wants that."""
    nbytes = count * part.nbytes
    room = mx.zeros((nbytes + ALIGN,), dtype=mx.uint8)
    mx.eval(room)
    begin = -np.asarray(room).__array_interface__["data"][0] % ALIGN
    array = room[begin : begin + nbytes].view(DTYPES[part.dtype]).reshape(count, *part.shape)
    mx.eval(array)
    view = np.asarray(array.view(mx.uint8)).reshape(-1)
    assert array.size == count * prod(part.shape), part.name
    if count and view.__array_interface__["data"][0] != np.asarray(room[begin:]).__array_interface__["data"][0]:
        raise AssertionError(f"MLX copied {part.name}: its slots cannot be written in place")
    return array, memoryview(view)  # pyright: ignore[reportArgumentType]
