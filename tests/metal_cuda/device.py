"""Kernels on an NVIDIA GPU through the driver's own C interface (libcuda): memory, launches, times."""

import ctypes
import ctypes.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import mlx.core as mx
import numpy as np
from metal_cpu import PREAMBLE, from_numpy, poisoned, record
from metal_cpu.recorded import named_inputs, replaced

from .nvrtc import compile_cubin, translated

MAJOR, MINOR = 75, 76  # of CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY


class DriverError(Exception):
    """The driver refused a call, or a kernel failed; the message names both."""


@dataclass(frozen=True)
class Timed:
    """One launch: its kernel and what the device's own clock says it took."""

    name: str
    microseconds: float


class Device:
    """The first GPU. Keeps compiled kernels; every launch copies its arrays there and back."""

    def __init__(self) -> None:
        self._modules: dict[tuple[str, str], Any] = {}
        try:
            self._driver = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise DriverError(f"no NVIDIA driver on this machine: {error}") from None
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self._call("cuInit", 0)
        self._call("cuDeviceGet", ctypes.byref(device), 0)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._call("cuCtxSetCurrent", context)
        self._device = device

    def _call(self, name: str, *arguments: Any) -> None:
        if code := getattr(self._driver, name)(*arguments):
            said = ctypes.c_char_p()
            self._driver.cuGetErrorString(code, ctypes.byref(said))
            raise DriverError(f"{name}: {(said.value or b'').decode() or code}")

    @cached_property
    def name(self) -> str:
        text = ctypes.create_string_buffer(256)
        self._call("cuDeviceGetName", text, len(text), self._device)
        return text.value.decode()

    @cached_property
    def architecture(self) -> str:
        numbers = []
        for attribute in (MAJOR, MINOR):
            value = ctypes.c_int()
            self._call("cuDeviceGetAttribute", ctypes.byref(value), attribute, self._device)
            numbers.append(value.value)
        return f"sm_{numbers[0]}{numbers[1]}"

    def kernel(self, text: str, instance: str) -> Any:
        if (text, instance) not in self._modules:
            module, function = ctypes.c_void_p(), ctypes.c_void_p()
            self._call("cuModuleLoadData", ctypes.byref(module), compile_cubin(text, instance, self.architecture))
            self._call("cuModuleGetFunction", ctypes.byref(function), module, b"msl_kernel")
            self._modules[text, instance] = function
        return self._modules[text, instance]

    def run(
        self,
        text: str,
        instance: str,
        buffers: dict[str, np.ndarray],
        grid: tuple[int, int, int],
        threadgroup: tuple[int, int, int],
        repeats: int = 1,
    ) -> float:
        """Run a kernel on arrays by parameter name; writable ones receive what it wrote. Microseconds a launch."""
        _, names = translated(text, instance)
        function, arrays = self.kernel(text, instance), [np.ascontiguousarray(buffers[name]) for name in names]
        with self._copies(arrays) as pointers:
            blocks = [-(-g // t) for g, t in zip(grid, threadgroup, strict=True)]
            values = [*pointers, (ctypes.c_uint * 3)(*grid)]
            places = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
            begin, end = self._event(), self._event()
            self._call("cuEventRecord", begin, None)
            for _ in range(repeats):
                self._call("cuLaunchKernel", function, *blocks, *threadgroup, 0, None, places, None)
            self._call("cuEventRecord", end, None)
            self._call("cuCtxSynchronize")
            for pointer, array, name in zip(pointers, arrays, names, strict=True):
                if buffers[name].flags.writeable:
                    self._call("cuMemcpyDtoH_v2", array.ctypes.data_as(ctypes.c_void_p), pointer, _size(array))
                    buffers[name][...] = array
            milliseconds = ctypes.c_float()
            self._call("cuEventElapsedTime", ctypes.byref(milliseconds), begin, end)
        return milliseconds.value * 1e3 / repeats

    def copy_bandwidth(self, nbytes: int = 1 << 28, repeats: int = 10) -> float:
        """Bytes read and written per second by copies inside the device's memory."""
        with self._copies([np.zeros(nbytes, np.uint8)] * 2) as (a, b):
            begin, end, milliseconds = self._event(), self._event(), ctypes.c_float()
            self._call("cuEventRecord", begin, None)
            for _ in range(repeats):
                self._call("cuMemcpyDtoDAsync_v2", a, b, ctypes.c_size_t(nbytes), None)
            self._call("cuEventRecord", end, None)
            self._call("cuCtxSynchronize")
            self._call("cuEventElapsedTime", ctypes.byref(milliseconds), begin, end)
        return repeats * 2 * nbytes / (milliseconds.value / 1e3)

    def _event(self) -> ctypes.c_void_p:
        event = ctypes.c_void_p()
        self._call("cuEventCreate", ctypes.byref(event), 0)
        return event

    @contextmanager
    def _copies(self, arrays: list[np.ndarray]) -> Iterator[list[ctypes.c_uint64]]:
        """Device memory that holds what the arrays hold."""
        pointers: list[ctypes.c_uint64] = []
        try:
            for array in arrays:
                pointer = ctypes.c_uint64()
                self._call("cuMemAlloc_v2", ctypes.byref(pointer), _size(array))
                pointers.append(pointer)
                self._call("cuMemcpyHtoD_v2", pointer, array.ctypes.data_as(ctypes.c_void_p), _size(array))
            yield pointers
        finally:
            for pointer in pointers:
                self._call("cuMemFree_v2", pointer)


def _size(array: np.ndarray) -> ctypes.c_size_t:
    return ctypes.c_size_t(max(1, array.nbytes))


@contextmanager
def metal_on_nvidia(device: Device, repeats: int = 1) -> Iterator[list[Timed]]:
    """Within the block, `mx.fast.metal_kernel` makes kernels that run on the GPU; yields their times so far."""
    times: list[Timed] = []

    def metal_kernel(**definition: Any):
        def call(**arguments: Any) -> list[mx.array]:
            recorded = record(definition, arguments)
            kinds = arguments["output_dtypes"]
            outputs = [poisoned(s, d) for s, d in zip(arguments["output_shapes"], kinds, strict=True)]
            named = named_inputs(definition, arguments) | dict(zip(definition["output_names"], outputs, strict=True))
            text = PREAMBLE + recorded.text
            took = device.run(text, recorded.instance, named, recorded.grid, recorded.threadgroup, repeats)
            times.append(Timed(definition["name"], took))
            return [from_numpy(o, d) for o, d in zip(outputs, kinds, strict=True)]

        return call

    with replaced(metal_kernel):
        yield times
