"""A compiled kernel, ready to run on numpy arrays."""

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from .compiler import build
from .source import translation_unit

ORDERS = {"forward": 0, "reverse": 1, "shuffled": 2}
PAD = 4096  # bytes of 0xff around every buffer: NaN to who reads there, and a write there shows


class Fault(Exception):
    """The machine or a sanitizer found something wrong; the message says what and where."""


class _Request(ctypes.Structure):
    _fields_ = [
        ("buffers", ctypes.c_void_p), ("sizes", ctypes.c_void_p), ("buffer_count", ctypes.c_uint64),
        ("grid", ctypes.c_uint32 * 3), ("threadgroup", ctypes.c_uint32 * 3),
        ("order", ctypes.c_uint32), ("seed", ctypes.c_uint32),
    ]  # fmt: skip


COUNTED = (
    "threads", "threadgroups", "simd_ops", "matrix_ops", "simdgroup_barriers", "threadgroup_barriers",
    "threadgroup_bytes", "faults",
)  # fmt: skip


class _Result(ctypes.Structure):
    _fields_ = [*((name, ctypes.c_uint64) for name in COUNTED), ("log", ctypes.c_char * 4096)]


@dataclass(frozen=True)
class Traffic:
    """Bytes of one buffer: as asked for by every thread, once per threadgroup, once per dispatch."""

    size: int
    read: int
    read_by_group: int
    read_once: int
    written: int
    written_by_group: int
    written_once: int


@dataclass(frozen=True)
class Counters:
    """What one dispatch did; `traffic` is filled by the count variant only."""

    threads: int
    threadgroups: int
    simd_ops: int
    matrix_ops: int
    simdgroup_barriers: int
    threadgroup_barriers: int
    threadgroup_bytes: int
    traffic: Mapping[str, Traffic] = field(default_factory=dict)

    def device_bytes(self, cache: int = 2 << 20) -> int:
        """Bytes moved between device memory and the GPU under one plain assumption about caches.

        A threadgroup reads a byte once, however many of its threads ask for it (its core's cache holds it). Another
        threadgroup reads it again, unless the buffer is no larger than `cache` bytes and so stays in the cache that
        all cores share. Writes count in full: a byte written twice leaves twice.
        """
        total = 0
        for t in self.traffic.values():
            total += t.read_once if t.size <= cache else t.read_by_group
            total += t.written
        return total


class Program:
    """One kernel instance, compiled once.

    `text` is complete Metal text, `instance` names the kernel with its template arguments, `constants` sets function
    constants, `variant` is plain, count, address or thread, `folder` replaces the cache.
    """

    def __init__(
        self,
        text: str,
        instance: str,
        constants: dict[str, object] | None = None,
        variant: str = "plain",
        folder: Path | None = None,
    ):
        unit, self.buffers = translation_unit(text, instance, constants)
        self.variant = variant
        self.path = build(unit, variant, folder)

    @cached_property
    def _library(self) -> ctypes.CDLL:
        return ctypes.CDLL(str(self.path))

    def run(
        self,
        buffers: Mapping[str, np.ndarray],
        grid: tuple[int, int, int],
        threadgroup: tuple[int, int, int],
        order: str = "forward",
        seed: int = 0,
    ) -> Counters:
        """Run the kernel on arrays by parameter name; writable arrays receive what it wrote.

        `grid` counts threads, as Metal's dispatchThreads does. Buffers left out are empty: reading one is a fault.
        """
        if unknown := set(buffers) - set(self.buffers):
            raise ValueError(f"the kernel has no buffer {', '.join(sorted(unknown))}")
        arrays = [buffers.get(name, np.zeros(0, np.uint8)) for name in self.buffers]
        request = _Request(buffer_count=len(arrays), order=ORDERS[order], seed=seed)
        request.grid[:], request.threadgroup[:] = grid, threadgroup
        run = self._run_library if self.variant in ("plain", "count") else self._run_process
        result, traffic, complaint = run(arrays, request)
        if complaint or result.faults:
            raise Fault((result.log.decode() + complaint)[:6000])
        counted = {name: getattr(result, name) for name in COUNTED if name != "faults"}
        return Counters(**counted, traffic=traffic)

    def _run_library(self, arrays: list[np.ndarray], request: _Request) -> tuple[_Result, dict[str, Traffic], str]:
        padded = [_Padded(a) for a in arrays]
        pointers = (ctypes.c_void_p * len(arrays))(*[p.address for p in padded])
        sizes = (ctypes.c_uint64 * len(arrays))(*[a.nbytes for a in arrays])
        request.buffers, request.sizes = ctypes.addressof(pointers), ctypes.addressof(sizes)
        result = _Result()
        self._library.msl_run(self._library.msl_kernel, ctypes.byref(request), ctypes.byref(result))
        complaint = ""
        for name, array, p in zip(self.buffers, arrays, padded, strict=True):
            if not p.intact():
                complaint += f"wrote outside buffer {name}\n"
            if array.flags.writeable:
                array.reshape(-1).view(np.uint8)[:] = p.content
            elif not np.array_equal(p.content, array.reshape(-1).view(np.uint8)):
                complaint += f"wrote to input buffer {name}\n"
        return result, self._traffic(arrays) if self.variant == "count" else {}, complaint

    def _traffic(self, arrays: list[np.ndarray]) -> dict[str, Traffic]:
        out = (ctypes.c_uint64 * (6 * len(arrays)))()
        self._library.msl_traffic(out)
        rows = [out[6 * i : 6 * i + 6] for i in range(len(arrays))]
        return {n: Traffic(a.nbytes, *row) for n, a, row in zip(self.buffers, arrays, rows, strict=True)}

    def _run_process(self, arrays: list[np.ndarray], request: _Request) -> tuple[_Result, dict[str, Traffic], str]:
        environment = dict(
            os.environ,
            TSAN_OPTIONS="halt_on_error=0 report_signal_unsafe=0 history_size=2 exitcode=66",
            ASAN_OPTIONS="detect_leaks=0 detect_stack_use_after_return=0",
            UBSAN_OPTIONS="print_stacktrace=1",
        )
        with tempfile.TemporaryDirectory() as scratch:
            given, made = Path(scratch) / "in", Path(scratch) / "out"
            with given.open("wb") as f:
                f.write(bytes(request)[_Request.buffer_count.offset :])
                for a in arrays:
                    f.write(np.uint64(a.nbytes).tobytes() + np.ascontiguousarray(a).tobytes())
            # without address randomisation ThreadSanitizer finds its shadow memory free on every kernel
            prefix = ["setarch", "-R"] if shutil.which("setarch") else []
            done = subprocess.run(
                [*prefix, str(self.path), str(given), str(made)],
                capture_output=True, text=True, errors="replace", env=environment,
            )  # fmt: skip
            if not made.exists():
                return _Result(), {}, done.stderr or f"the program ended with {done.returncode}"
            raw = np.fromfile(made, np.uint8)
        result = _Result.from_buffer_copy(raw.tobytes()[: ctypes.sizeof(_Result)])
        at = ctypes.sizeof(_Result)
        for a in arrays:
            if a.flags.writeable:
                a.reshape(-1).view(np.uint8)[:] = raw[at : at + a.nbytes]
            at += a.nbytes
        found = "Sanitizer" in done.stderr or "runtime error" in done.stderr
        return result, {}, done.stderr if found else ""


class _Padded:
    """An array's bytes, 64-byte aligned, with 0xff around them."""

    def __init__(self, array: np.ndarray):
        self.memory = np.empty(array.nbytes + 2 * PAD + 64, np.uint8)
        self.start = PAD + (-(self.memory.ctypes.data + PAD)) % 64
        self.content = self.memory[self.start : self.start + array.nbytes]
        self.memory[: self.start] = 0xFF
        self.memory[self.start + array.nbytes :] = 0xFF
        self.content[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self.address = self.content.ctypes.data if array.nbytes else self.memory.ctypes.data + self.start

    def intact(self) -> bool:
        before, after = self.memory[: self.start], self.memory[self.start + self.content.size :]
        return bool((before == 0xFF).all() and (after == 0xFF).all())
