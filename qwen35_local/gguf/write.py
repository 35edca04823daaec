"""Write a GGUF file: header from values that are all known beforehand, then each tensor as it is made."""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .header import ARRAY, BOOL, MAGIC, STRING
from .types import Type

ALIGNMENT = 32
UINT32, INT32, FLOAT32 = 4, 5, 6


@dataclass(frozen=True)
class Planned:
    """A tensor to be written: its exact size is known before any byte of it is."""

    name: str
    shape: tuple[int, ...]
    type: Type

    @property
    def nbytes(self) -> int:
        rows = int(np.prod(self.shape[:-1], dtype=np.int64))
        return rows * self.type.row_bytes(self.shape[-1])


def header_bytes(metadata: Mapping[str, Any], tensors: Sequence[Planned]) -> bytes:
    """Everything before the first tensor's data, padding included."""
    parts = [MAGIC, struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    for key, value in metadata.items():
        parts += [_string(key), _value(value)]
    offset = 0
    for tensor in tensors:
        dims = tensor.shape[::-1]
        parts.append(_string(tensor.name))
        parts.append(struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, tensor.type.code, offset))
        offset += tensor.nbytes + -tensor.nbytes % ALIGNMENT
    header = b"".join(parts)
    return header + bytes(-len(header) % ALIGNMENT)


def write_tensor(file: BinaryIO, tensor: Planned, chunks: Iterator[np.ndarray]) -> None:
    """The packed bytes of one tensor, and the padding after it."""
    written = 0
    for chunk in chunks:
        file.write(chunk.data)
        written += chunk.nbytes
    assert written == tensor.nbytes, (tensor.name, written, tensor.nbytes)
    file.write(bytes(-written % ALIGNMENT))


def write_file(
    path: Path, metadata: Mapping[str, Any], tensors: Sequence[tuple[Planned, Iterator[np.ndarray]]]
) -> Iterator[int]:
    """Write a whole file under a temporary name, then rename it. Yields the bytes written after each tensor."""
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(header_bytes(metadata, [planned for planned, _ in tensors]))
            for planned, chunks in tensors:
                write_tensor(file, planned, chunks)
                yield file.tell()
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _string(text: str) -> bytes:
    data = text.encode(errors="surrogateescape")
    return struct.pack("<Q", len(data)) + data


def _value(value: Any) -> bytes:
    """Type code and value: whole numbers as uint32, or int32 inside lists, as llama.cpp's own files have them.

    A list has items of one kind: text, truth values, or numbers.
    """
    if isinstance(value, bool):
        return struct.pack("<I?", BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", UINT32, value)
    if isinstance(value, float):
        return struct.pack("<If", FLOAT32, value)
    if isinstance(value, str):
        return struct.pack("<I", STRING) + _string(value)
    if all(isinstance(item, str) for item in value):
        return struct.pack("<IIQ", ARRAY, STRING, len(value)) + b"".join(map(_string, value))
    items = np.asarray(value)
    code, dtype = {"b": (BOOL, "?"), "f": (FLOAT32, "<f4")}.get(items.dtype.kind, (INT32, "<i4"))
    return struct.pack("<IIQ", ARRAY, code, len(items)) + items.astype(dtype).tobytes()
