"""Carrying out a conversion: rows in, packed rows out, a bounded piece at a time, on every core.

A shard gets its name when all of it is on the disk; a process that dies leaves at most one shard to do again.
"""

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import BinaryIO

import mlx.core as mx
import numpy as np

from ..checkpoint.files import TensorInfo
from ..errors import CheckpointError
from . import fp4
from .conversion import Module, Shard, Step
from .journal import sync_directory
from .manifest import Entry, replace_text
from .place import on_disk

PIECE = 32 << 20  # bytes of source read, packed and written at a time
WORKERS = max(2, min(8, os.cpu_count() or 2))
HASH_BLOCK = 8 << 20
JOURNAL = "converted"  # directory of one small file for each finished shard

_local = threading.local()


def convert_shard(shard: Shard, source: Path, directory: Path, on_bytes: Callable[[int], None]) -> Entry:
    """Make `directory/shard.name` from the file `source`, or find that it was made before. `on_bytes` hears of source
    bytes as they are done, from any thread."""
    target, note = directory / shard.name, directory / JOURNAL / f"{shard.name}.json"
    if (entry := _made(target, note)) is not None:
        on_bytes(shard.source_bytes)
        return entry
    with on_disk(target):
        note.parent.mkdir(exist_ok=True)
        part = target.with_name(target.name + ".part")
        header = shard.header
        with part.open("w+b") as file, _opened(source) as data:
            file.write(header)
            file.flush()
            os.ftruncate(file.fileno(), len(header) + shard.data_bytes)
            _all_pieces(shard, data.fileno(), file.fileno(), len(header), on_bytes)
            os.fsync(file.fileno())
            entry = Entry(os.fstat(file.fileno()).st_size, "sha256", _sha256(file.fileno()))
        part.replace(target)
        sync_directory(directory)
        replace_text(note, json.dumps({"size": entry.size, "kind": entry.kind, "digest": entry.digest}))
        return entry


def _made(target: Path, note: Path) -> Entry | None:
    try:
        entry = Entry(**json.loads(note.read_bytes()))
        return entry if target.stat().st_size == entry.size else None
    except (OSError, ValueError, TypeError):
        return None


def _sha256(handle: int) -> str:
    digest, at = hashlib.sha256(), 0
    while block := os.pread(handle, HASH_BLOCK, at):
        digest.update(block)
        at += len(block)
    return digest.hexdigest()


def _all_pieces(shard: Shard, source: int, target: int, base: int, on_bytes: Callable[[int], None]) -> None:
    """Every piece of every step, as many at a time as there are workers, so that memory stays bounded."""
    with ThreadPoolExecutor(WORKERS) as pool:
        waiting: set[Future[int]] = set()
        try:
            for step in shard.steps:
                for piece in pieces(step):
                    if len(waiting) >= WORKERS:
                        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                        for future in done:
                            on_bytes(future.result())
                    waiting.add(pool.submit(_piece, step, *piece, source, target, base))
            for future in waiting:
                on_bytes(future.result())
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


# A piece: rows `first` to `last` (of all matrices of the stack together) of the source, all of them in one module.
def pieces(step: Step) -> Iterator[tuple[Module, int, int]]:
    source = step.source
    if step.kind not in ("pack", "cast"):
        yield step.modules[0], 0, -1
        return
    *stack, rows, _ = source.shape
    matrices = int(np.prod(stack, dtype=np.int64)) if stack else 1
    most = max(1, PIECE // max(source.nbytes // (matrices * rows), 1))
    for module in step.modules:
        span = module.rows.stop - module.rows.start
        if span == rows:  # matrix after matrix without a gap
            for first in range(0, matrices * rows, most):
                yield module, first, min(first + most, matrices * rows)
        else:
            for matrix in range(matrices):
                for first in range(module.rows.start, module.rows.stop, most):
                    yield module, matrix * rows + first, matrix * rows + min(first + most, module.rows.stop)


def _piece(step: Step, module: Module, first: int, last: int, source: int, target: int, base: int) -> int:
    tensor = step.source
    if last < 0:
        data = _transformed(step, _read(source, tensor, 0, tensor.nbytes))
        _write(target, base + module.outputs[0].offset, data)
        return tensor.nbytes
    *_, rows, columns = tensor.shape
    row_bytes = tensor.nbytes // int(np.prod(tensor.shape[:-1], dtype=np.int64))
    raw = _read(source, tensor, first * row_bytes, (last - first) * row_bytes)
    bits = bfloat16(raw, tensor.dtype).reshape(last - first, columns)
    matrix, inside = divmod(first, rows)
    span = module.rows.stop - module.rows.start
    begin = matrix * span + inside - module.rows.start  # the same row in the module's own count
    for output, array in zip(module.outputs, _packed(bits, module), strict=True):
        out_row = output.nbytes // int(np.prod(output.shape[:-1], dtype=np.int64))
        _write(target, base + output.offset + begin * out_row, np.ascontiguousarray(array).data.cast("B"))
    return len(raw)


def _packed(bits: np.ndarray, module: Module) -> tuple[np.ndarray, ...]:
    """uint16 [rows, columns] -> the arrays of the module, with the bits of `mx.quantize`."""
    q = module.packing
    if q is None:
        return (bits,)
    if not mx.metal.is_available() and q.mode in ("mxfp4", "nvfp4") and ordinary(bits):
        return fp4.mxfp4(bits) if q.mode == "mxfp4" else fp4.nvfp4(bits)
    if not hasattr(_local, "stream"):  # MLX's streams belong to threads
        _local.stream = mx.new_stream(mx.default_device())
    with mx.stream(_local.stream):
        weight = mx.array(bits).view(mx.bfloat16)
        arrays = mx.quantize(weight, group_size=q.group_size, bits=q.bits, mode=q.mode)
        arrays = [array.view(mx.uint16) if array.dtype == mx.bfloat16 else array for array in arrays]
        mx.eval(arrays)
        return tuple(np.array(array) for array in arrays)


def ordinary(bits: np.ndarray) -> bool:
    """No magnitude at the ends of the range, where MLX's arithmetic underflows or overflows: all trained weights."""
    sizes = bits & 0x7FFF
    return not bool(((sizes > 0x4500) | ((sizes > 0) & (sizes < 0x0C00))).any())


def _transformed(step: Step, raw: bytes) -> bytes:
    """Small tensors, whole."""
    tensor, output = step.source, step.modules[0].outputs[0]
    match step.kind:
        case "plus one":
            bits = bfloat16(raw, tensor.dtype) if tensor.dtype != "F32" else None
            values = np.frombuffer(raw, np.float32) if bits is None else _float32(bits)
            return (values + np.float32(1)).tobytes()
        case "transpose":
            item = len(raw) // int(np.prod(tensor.shape, dtype=np.int64))
            array = np.frombuffer(raw, f"u{item}").reshape(tensor.shape)
            return np.moveaxis(array, 1, -1).reshape(output.shape).tobytes()
        case _:
            return raw


def _float32(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def bfloat16(raw: bytes, dtype: str) -> np.ndarray:
    """The bits of the nearest bfloat16 (halves to even), uint16."""
    if dtype == "BF16":
        return np.frombuffer(raw, np.uint16)
    values = np.frombuffer(raw, np.float32 if dtype == "F32" else np.float16).astype(np.float32)
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _opened(source: Path) -> BinaryIO:
    try:
        return source.open("rb")
    except OSError as error:
        raise CheckpointError(f"{source} cannot be read: {error.strerror}") from error


def _read(handle: int, tensor: TensorInfo, start: int, nbytes: int) -> bytes:
    data = b""
    while len(data) < nbytes:
        try:
            more = os.pread(handle, nbytes - len(data), tensor.offset + start + len(data))
        except OSError as error:
            raise CheckpointError(f"{tensor.name} in {tensor.file} cannot be read: {error.strerror}") from error
        if not more:
            raise CheckpointError(f"{tensor.file.name} ends inside {tensor.name}: it changed while it was read")
        data = data + more if data else more
    return data


def _write(handle: int, offset: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        n = os.pwrite(handle, view, offset)
        view, offset = view[n:], offset + n
