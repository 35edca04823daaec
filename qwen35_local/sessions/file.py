"""One file of named arrays that is whole or refused: versioned, checksummed, written beside its place and renamed.

Layout, little-endian: 40 bytes (magic, version, CRC-32 of the index, place and length of the index, length of the
file), the blocks, the index as JSON. Every block has its own CRC-32, so that reading threads check what they have read
while others read on.
"""

import contextlib
import json
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import SessionError, StorageError

MAGIC, VERSION = b"Q35STATE", 1
HEAD = struct.Struct("<8sIIQQQ")
BLOCK = 4 << 20  # bytes: long enough for a disk's full speed, short enough to keep every thread busy
WORKERS = 4  # reading, checking and filling memory at once; more add nothing
WORTH = 0.9  # a block is kept compressed if it is smaller than this share of itself
ITEMS = {"bfloat16": 2, "float16": 2, "float32": 4, "uint32": 4, "uint8": 1, "int64": 8}


@dataclass(frozen=True, slots=True)
class Array:
    """A named array and its bytes (format "B"), in order, without gaps."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: memoryview

    @property
    def nbytes(self) -> int:
        return nbytes_of(self.dtype, self.shape)


@dataclass(frozen=True, slots=True)
class Block:
    """`size` bytes of an array, stored as `stored` bytes at `offset`; fewer than `size` are compressed."""

    offset: int
    stored: int
    size: int
    crc: int


@dataclass(frozen=True, slots=True)
class Entry:
    """An array in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    blocks: tuple[Block, ...]

    @property
    def nbytes(self) -> int:
        return nbytes_of(self.dtype, self.shape)


def nbytes_of(dtype: str, shape: Sequence[int]) -> int:
    return ITEMS[dtype] * prod(shape)


def write(path: Path, header: Mapping[str, Any], arrays: Iterable[Array], compress: bool = False) -> int:
    """Replace `path` by a file with `header` (JSON) and `arrays`; its size in bytes.

    Whatever happens, a killed process included, `path` is the old file or the new one. Raises StorageError.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with part.open("wb") as file:
            os.fchmod(file.fileno(), 0o600)
            size = _write(file, header, arrays, compress)
            file.flush()
            os.fsync(file.fileno())
        replace(part, path)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}; what was there is kept") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    return size


def replace(part: Path, path: Path) -> None:
    """Rename, and see to it that the rename is on disk, too."""
    part.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _write(file: Any, header: Mapping[str, Any], arrays: Iterable[Array], compress: bool) -> int:
    file.write(bytes(HEAD.size))
    entries = []
    with ThreadPoolExecutor(WORKERS) as pool:
        for array in arrays:
            assert array.data.nbytes == array.nbytes, array.name
            blocks = []
            data, item = array.data, ITEMS[array.dtype]
            pieces = (data[begin : begin + BLOCK] for begin in range(0, array.nbytes, BLOCK))
            for size, stored, crc in pool.map(lambda piece, item=item: _packed(piece, item, compress), pieces):
                blocks.append([file.tell(), len(stored), size, crc])
                file.write(stored)
            entries.append({"name": array.name, "dtype": array.dtype, "shape": array.shape, "blocks": blocks})
    index = json.dumps({"header": header, "arrays": entries}).encode()
    at = file.tell()
    file.write(index)
    size = file.tell()
    file.seek(0)
    file.write(HEAD.pack(MAGIC, VERSION, zlib.crc32(index), at, len(index), size))
    return size


def _packed(piece: memoryview, item: int, compress: bool) -> tuple[int, Any, int]:
    """(bytes, as stored, CRC-32 of what is stored). Bytes of like weight are put together: floats that are near one
    another share sign and exponent, and nothing else of them can be compressed."""
    stored: Any = piece
    if compress:
        planes = np.frombuffer(piece, np.uint8).reshape(-1, item).T
        smaller = zlib.compress(planes.tobytes(), 1)
        stored = smaller if len(smaller) < WORTH * len(piece) else piece
    return len(piece), stored, zlib.crc32(stored)


@dataclass(frozen=True, slots=True)
class StateFile:
    """A file that `write` wrote: `header`, and what arrays there are. Nothing else is in memory yet."""

    path: Path
    header: Mapping[str, Any]
    entries: tuple[Entry, ...]
    nbytes: int

    @classmethod
    def open(cls, path: Path) -> "StateFile":
        """Check the frame. Raises SessionError; the file stays as it is."""
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                head = file.read(HEAD.size)
                if len(head) < HEAD.size or head[:8] != MAGIC:
                    raise SessionError(f"{path.name} is not a saved state: it does not begin like one")
                _, version, crc, at, length, whole = HEAD.unpack(head)
                if version != VERSION:
                    raise SessionError(
                        f"{path.name} was written in format {version} and this program reads {VERSION}: "
                        f"use the program that wrote it, or forget the state with 'qwen35 sessions rm --state'"
                    )
                if size != whole or at + length > size:
                    raise SessionError(f"{path.name} is cut: it has {size} bytes of {whole}{FORGET}")
                file.seek(at)
                index = file.read(length)
        except OSError as error:
            raise SessionError(f"{path} cannot be read: {error.strerror}") from error
        if zlib.crc32(index) != crc:
            raise SessionError(f"{path.name} is damaged: its index has another checksum{FORGET}")
        try:
            found = json.loads(index)
            entries = tuple(_entry(value, size) for value in found["arrays"])
            return cls(path, dict(found["header"]), entries, size)
        except (KeyError, TypeError, ValueError) as error:
            raise SessionError(f"{path.name} has an index that makes no sense ({error}){FORGET}") from error

    def read(self, room: Callable[[Entry], memoryview]) -> None:
        """Read every array into the memory that `room` gives for it. Raises SessionError if a checksum is wrong."""
        try:
            with self.path.open("rb") as file, ThreadPoolExecutor(WORKERS) as pool:
                under_way = []
                if hasattr(os, "posix_fadvise"):
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
                for entry in self.entries:
                    target = room(entry)
                    for block, begin in zip(entry.blocks, _begins(entry.blocks), strict=True):
                        to = target[begin : begin + block.size]
                        under_way.append(pool.submit(self._block, file.fileno(), block, to, entry))
                for one in under_way:
                    one.result()
        except OSError as error:
            raise SessionError(f"{self.path} cannot be read: {error.strerror}") from error

    def _block(self, fd: int, block: Block, target: memoryview, entry: Entry) -> None:
        plain = block.stored == block.size
        stored = target if plain else memoryview(bytearray(block.stored))
        done = 0
        while done < block.stored:
            count = os.preadv(fd, [stored[done:]], block.offset + done)
            if not count:
                raise SessionError(f"{self.path.name} ends within {entry.name}{FORGET}")
            done += count
        if zlib.crc32(stored) != block.crc:
            raise SessionError(f"{self.path.name} is damaged: {entry.name} has another checksum{FORGET}")
        if not plain:
            try:
                planes = np.frombuffer(zlib.decompress(stored), np.uint8)
            except zlib.error as error:
                raise SessionError(f"{self.path.name} is damaged: {entry.name} ({error}){FORGET}") from error
            item = ITEMS[entry.dtype]
            np.frombuffer(target, np.uint8)[:] = planes.reshape(item, -1).T.reshape(-1)


FORGET = "; what was said is kept, and 'qwen35 sessions rm --state' makes the model read it again"


def _entry(value: Mapping[str, Any], size: int) -> Entry:
    blocks = tuple(Block(*map(int, block)) for block in value["blocks"])
    entry = Entry(str(value["name"]), str(value["dtype"]), tuple(map(int, value["shape"])), blocks)
    if entry.dtype not in ITEMS or any(n < 0 for n in entry.shape):
        raise ValueError(f"{entry.name} is {entry.dtype} {list(entry.shape)}")
    if sum(block.size for block in blocks) != entry.nbytes:
        raise ValueError(f"the blocks of {entry.name} are not {entry.nbytes} bytes")
    if any(min(b.offset, b.stored) < 0 or b.offset + b.stored > size for b in blocks):
        raise ValueError(f"{entry.name} lies outside of the file")
    return entry


def _begins(blocks: Sequence[Block]) -> Iterator[int]:
    at = 0
    for block in blocks:
        yield at
        at += block.size
