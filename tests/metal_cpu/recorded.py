"""`mx.fast.metal_kernel` on a CPU: the text from MLX itself, the results from the machine.

    with metal_on_cpu() as launches:
        y = some_function_that_calls_a_metal_kernel(x)

MLX generates the complete kernel text (signature, template, attributes) on every system; without Metal it will only
record the call, inside `mx.export_function`. So each call is recorded, and the recorded text is compiled and run here.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from .program import Counters, Program

# what MLX puts in front of every custom kernel before the Metal compiler sees it
PREAMBLE = '#include "mlx/backend/metal/kernels/utils.h"\n'
_metal_kernel = mx.fast.metal_kernel


@dataclass(frozen=True)
class Recorded:
    """One call as MLX recorded it."""

    name: str
    text: str  # complete but for PREAMBLE
    instance: str
    grid: tuple[int, int, int]
    threadgroup: tuple[int, int, int]


@dataclass(frozen=True)
class Launch:
    """One dispatch that was run."""

    name: str  # as given to mx.fast.metal_kernel
    counters: Counters


def to_numpy(a: mx.array) -> np.ndarray:
    """The array's elements; bfloat16, which numpy lacks, as uint16."""
    return np.array(a.view(mx.uint16)) if a.dtype == mx.bfloat16 else np.array(a)


def from_numpy(a: np.ndarray, dtype: mx.Dtype) -> mx.array:
    return mx.array(a).view(mx.bfloat16) if dtype == mx.bfloat16 else mx.array(a)


def poisoned(shape: Sequence[int], dtype: mx.Dtype) -> np.ndarray:
    """An output before the kernel: all ones, which is NaN in every float type."""
    kind = np.uint16 if dtype == mx.bfloat16 else np.array(mx.zeros(1, dtype)).dtype
    out = np.empty(tuple(shape), kind)
    out.reshape(-1).view(np.uint8)[:] = 0xFF
    return out


def record(definition: dict[str, Any], call: dict[str, Any]) -> Recorded:
    """What MLX makes of `mx.fast.metal_kernel(**definition)(**call)`."""
    kernel: Any = _metal_kernel(**definition)
    found: list[dict] = []
    arrays = [x for x in call["inputs"] if isinstance(x, mx.array)]

    def traced(*traced_arrays: mx.array):
        it = iter(traced_arrays)
        inputs = [next(it) if isinstance(x, mx.array) else x for x in call["inputs"]]
        return kernel(**{**call, "inputs": inputs})

    mx.export_function(found.append, traced, *arrays)
    name, text, *numbers = next(d["arguments"] for d in found if d.get("name") == "CustomKernel")
    template = re.search(r"decltype\((.+?)\)\s+custom_kernel", text, re.S)
    return Recorded(name, text, template.group(1) if template else name, tuple(numbers[:3]), tuple(numbers[3:6]))


def named_inputs(definition: dict[str, Any], call: dict[str, Any]) -> dict[str, np.ndarray]:
    """The inputs, and the shapes, strides and ranks that a kernel may ask for, by parameter name."""
    named = {}
    for name, value in zip(definition["input_names"], call["inputs"], strict=True):
        array = to_numpy(value if isinstance(value, mx.array) else mx.array(value))
        array.flags.writeable = False
        named[name] = array
        named[f"{name}_shape"] = np.array(array.shape, np.int32)
        named[f"{name}_strides"] = np.array(array.strides, np.int64) // array.itemsize
        named[f"{name}_ndim"] = np.array(array.ndim, np.int32)
    return named


def run(
    definition: dict[str, Any], call: dict[str, Any], variant: str = "plain", order: str = "forward", seed: int = 0
) -> tuple[list[mx.array], Counters]:
    """Run one custom kernel call on the CPU."""
    recorded = record(definition, call)
    program = Program(PREAMBLE + recorded.text, recorded.instance, variant=variant)
    outputs = [poisoned(s, d) for s, d in zip(call["output_shapes"], call["output_dtypes"], strict=True)]
    if (value := call.get("init_value")) is not None:
        for out, dtype in zip(outputs, call["output_dtypes"], strict=True):
            out[...] = to_numpy(mx.array(value).astype(dtype))
    named = named_inputs(definition, call) | dict(zip(definition["output_names"], outputs, strict=True))
    buffers = {name: named[name] for name in program.buffers}
    counters = program.run(buffers, recorded.grid, recorded.threadgroup, order, seed)
    return [from_numpy(o, d) for o, d in zip(outputs, call["output_dtypes"], strict=True)], counters


@contextmanager
def metal_on_cpu(variant: str = "plain", order: str = "forward", seed: int = 0) -> Iterator[list[Launch]]:
    """Within the block, `mx.fast.metal_kernel` makes kernels that run here; yields the list of launches so far."""
    launches: list[Launch] = []

    def metal_kernel(name: str, input_names: Sequence[str], output_names: Sequence[str], source: str, **rest: Any):
        definition = dict(name=name, input_names=input_names, output_names=output_names, source=source, **rest)

        def call(**arguments: Any) -> list[mx.array]:
            outputs, counters = run(definition, arguments, variant, order, seed)
            launches.append(Launch(name, counters))
            return outputs

        return call

    with replaced(metal_kernel):
        yield launches


@contextmanager
def replaced(metal_kernel: Callable[..., Any]) -> Iterator[None]:
    mx.fast.metal_kernel = metal_kernel  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        mx.fast.metal_kernel = _metal_kernel  # pyright: ignore[reportAttributeAccessIssue]


@contextmanager
def recording() -> Iterator[list[Recorded]]:
    """Within the block kernels are recorded, not run: their outputs are zeros; yields the records so far."""
    records: list[Recorded] = []

    def metal_kernel(**definition: Any):
        def call(**arguments: Any) -> list[mx.array]:
            records.append(record(definition, arguments))
            shapes, dtypes = arguments["output_shapes"], arguments["output_dtypes"]
            return [mx.zeros(shape, dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]

        return call

    with replaced(metal_kernel):
        yield records
