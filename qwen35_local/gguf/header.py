"""GGUF headers: metadata and where every tensor lies, all of it checked before anything maps or loads the file.

A file is: magic, version, counts, metadata (key, type, value), tensors (name, shape, type, offset), padding, data.
Tensors follow one another in the data, each padded to the alignment; llama.cpp refuses any other order, and so do we.
"""

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError
from .types import TYPES, Type

MAGIC = b"GGUF"
VERSIONS = (2, 3)
STRING, ARRAY, BOOL = 8, 9, 7
# Code of a metadata value -> its struct letter.
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", BOOL: "?", 10: "Q", 11: "q", 12: "d"}
MAX_COUNT = 1 << 28  # of anything: a count above it is damage, not data
MAX_DIMS = 4


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """`shape` is in numpy's order (rows first, the reverse of the file's); `offset` counts from the file's start."""

    name: str
    shape: tuple[int, ...]
    type: Type
    file: Path
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Header:
    """One file: its metadata (arrays of numbers as numpy arrays, of strings as lists) and its tensors by name."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]
    size: int


class _Cursor:
    """Reads little-endian values one after the other; the end of the file is an error with both numbers."""

    def __init__(self, path: Path, data: mmap.mmap):
        self.path, self.data, self.at = path, data, 0

    def take(self, nbytes: int) -> int:
        """Step over `nbytes` and return where they began."""
        at, self.at = self.at, self.at + nbytes
        if self.at > len(self.data):
            raise CheckpointError(
                f"{self.path.name} is truncated: its header goes on past byte {self.at}, the file ends at "
                f"{len(self.data)}"
            )
        return at

    def number(self, letter: str) -> Any:
        layout = struct.Struct("<" + letter)
        return layout.unpack_from(self.data, self.take(layout.size))[0]

    def count(self, what: str) -> int:
        count = self.number("Q")
        if count > MAX_COUNT:
            raise CheckpointError(f"{self.path.name} has a damaged header: it claims {count} {what}")
        return count

    def string(self) -> str:
        length = self.count("bytes of a string")
        at = self.take(length)
        return self.data[at : at + length].decode(errors="surrogateescape")

    def value(self, code: int) -> Any:
        if code == STRING:
            return self.string()
        if code == ARRAY:
            return self.array()
        if code not in SCALARS:
            raise CheckpointError(f"{self.path.name} has a damaged header: no metadata type has the number {code}")
        return self.number(SCALARS[code])

    def array(self) -> Any:
        code, count = self.number("I"), self.count("array items")
        if code == STRING:
            return [self.string() for _ in range(count)]
        if code not in SCALARS:
            raise CheckpointError(f"{self.path.name} has a damaged header: no array item has the type {code}")
        dtype = np.dtype("<" + ("?" if code == BOOL else SCALARS[code]))
        at = self.take(count * dtype.itemsize)
        return np.frombuffer(self.data[at : self.at], dtype)


def read_header(path: Path) -> Header:
    """Header of one GGUF file. Raises CheckpointError when the file is not one, is cut short, or contradicts itself."""
    try:
        with path.open("rb") as file:
            start = file.read(24)
            if not start.startswith(MAGIC):
                raise CheckpointError(_not_gguf(path, start))
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _read(path, _Cursor(path, data))
    except OSError as error:
        raise CheckpointError(f"cannot read {path.name}: {error.strerror}") from error


def _not_gguf(path: Path, start: bytes) -> str:
    if start.startswith(b"version https://git-lfs"):
        return f"{path.name} is a Git LFS pointer, not the data: download the file itself"
    return f"{path.name} is not a GGUF file: it begins with {start[:4]!r}, not {MAGIC!r}"


def _read(path: Path, cursor: _Cursor) -> Header:
    cursor.take(len(MAGIC))
    if (version := cursor.number("I")) not in VERSIONS:
        raise CheckpointError(f"{path.name} is GGUF version {version}: versions 2 and 3 (little-endian) are read")
    n_tensors, n_values = cursor.count("tensors"), cursor.count("metadata values")
    metadata: dict[str, Any] = {}
    for _ in range(n_values):
        key = cursor.string()
        if key in metadata:
            raise CheckpointError(f"{path.name} has a damaged header: {key} occurs twice")
        metadata[key] = cursor.value(cursor.number("I"))
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 8 or alignment & (alignment - 1):
        raise CheckpointError(f"{path.name} has a damaged header: general.alignment is {alignment!r}")
    entries = [_entry(path, cursor) for _ in range(n_tensors)]
    start = _padded(cursor.at, alignment)
    size = len(cursor.data)
    return Header(path, metadata, _placed(path, entries, start, alignment, size), size)


def _entry(path: Path, cursor: _Cursor) -> tuple[str, tuple[int, ...], Type, int]:
    name, dims = cursor.string(), cursor.number("I")
    if not 1 <= dims <= MAX_DIMS:
        raise CheckpointError(f"{path.name}: {name} has {dims} dimensions, GGUF allows 1 to {MAX_DIMS}")
    shape = tuple(cursor.number("Q") for _ in range(dims))[::-1]
    code, offset = cursor.number("I"), cursor.number("Q")
    if code not in TYPES:
        raise CheckpointError(f"{path.name}: {name} has type {code}, which this version does not know")
    kind = TYPES[code]
    if min(shape) < 1 or math.prod(shape) > 1 << 50:
        raise CheckpointError(f"{path.name}: {name} has an impossible shape {list(shape)}")
    if shape[-1] % kind.block:
        raise CheckpointError(
            f"{path.name}: {name} has rows of {shape[-1]} values, {kind.name} needs a multiple of {kind.block}"
        )
    return name, shape, kind, offset


def _placed(
    path: Path, entries: list[tuple[str, tuple[int, ...], Type, int]], start: int, alignment: int, size: int
) -> dict[str, GgufTensor]:
    """The tensors, each checked to begin where the one before it ends."""
    tensors: dict[str, GgufTensor] = {}
    expected = 0
    for name, shape, kind, offset in entries:
        if name in tensors:
            raise CheckpointError(f"{path.name} has a damaged header: tensor {name} occurs twice")
        if offset != expected:
            raise CheckpointError(
                f"{path.name} is damaged: {name} is said to be at offset {offset}, the tensors before it end at "
                f"{expected}"
            )
        nbytes = math.prod(shape[:-1]) * kind.row_bytes(shape[-1])
        if start + offset + nbytes > size:
            raise CheckpointError(
                f"{path.name} is truncated: {name} ends at byte {start + offset + nbytes}, the file at {size}"
            )
        tensors[name] = GgufTensor(name, shape, kind, path, start + offset, nbytes)
        expected = _padded(offset + nbytes, alignment)
    return tensors


def _padded(at: int, alignment: int) -> int:
    return -(-at // alignment) * alignment
