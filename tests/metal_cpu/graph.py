"""Counts what MLX's own operations would do on a GPU, from the graph that `mx.export_function` records.

The count favours MLX: views cost nothing, neighbouring element-wise operations run as one kernel (as `mx.compile` makes
them), and every kernel reads each of its inputs and writes each of its outputs exactly once.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

import mlx.core as mx

VIEWS = {
    "AsStrided", "Broadcast", "BroadcastAxes", "ExpandDims", "Flatten", "Reshape", "Slice", "Split", "Squeeze",
    "StopGradient", "Transpose", "Unflatten", "View",
}  # fmt: skip
ELEMENTWISE = {
    "Abs", "Add", "AsType", "BitwiseBinary", "Cos", "Divide", "Equal", "ErfInv", "Exp", "Full", "Greater",
    "Less", "Log", "LogAddExp", "LogicalAnd", "LogicalNot", "Maximum", "Minimum", "Multiply", "Negative",
    "Power", "Remainder", "Select", "Sigmoid", "Sin", "Sqrt", "Square", "Subtract", "Tanh",
}  # fmt: skip


@dataclass(eq=False)
class Dispatch:
    """One kernel: the operations in it, and the bytes it reads and writes."""

    operations: list[str]
    reads: dict[str, int] = field(default_factory=dict)
    writes: dict[str, int] = field(default_factory=dict)

    @property
    def device_bytes(self) -> int:
        return sum(self.reads.values()) + sum(self.writes.values())


def dispatches(function: Callable[..., Any], *arrays: mx.array) -> list[Dispatch]:
    """The kernels that `function(*arrays)` needs. Arrays that it holds itself must have been evaluated."""
    found: list[dict[str, Any]] = []
    with _exportable():
        mx.export_function(found.append, function, *arrays)
    outputs = {name for entry in found if entry["type"] == "outputs" for name, *_ in entry["outputs"]}
    root: dict[Any, Any] = {}  # of a view: the array whose memory it shows
    size: dict[Any, int] = {}
    kernels: list[Dispatch] = []
    made_by: dict[str, Dispatch] = {}
    used_by: dict[str, list[Dispatch]] = {}

    for entry in found:
        if entry["type"] == "constants":
            for name, value in entry["constants"]:
                size[name] = value.nbytes
        if entry["type"] != "primitive":
            continue
        kind: str = entry["name"]
        inputs: dict[Any, int] = {}
        for name, shape, dtype in entry["inputs"]:
            size.setdefault(name, prod(shape) * dtype.size)
            inputs[root.get(name, name)] = max(size[name], inputs.get(root.get(name, name), 0))
        made = {name: prod(shape) * dtype.size for name, shape, dtype in entry["outputs"]}
        if kind in VIEWS:
            (source,) = inputs  # a view of one array
            for name, count in made.items():
                root[name], size[name] = source, min(count, inputs[source])
            continue
        size |= made
        # it can only join the last of the kernels that it needs
        last = max((kernels.index(made_by[i]) for i in inputs if i in made_by), default=None)
        kernel = kernels[last] if last is not None and _fusible(kind, kernels[last]) else Dispatch([])
        if not kernel.operations:
            kernels.append(kernel)
        kernel.operations.append(kind)
        for name, count in inputs.items():
            used_by.setdefault(name, []).append(kernel)
            if name not in kernel.writes:
                kernel.reads[name] = max(count, kernel.reads.get(name, 0))
        kernel.writes |= made
        made_by |= dict.fromkeys(made, kernel)

    kept = {root.get(name, name) for name in outputs}
    for kernel in kernels:  # what no other kernel reads stays in registers
        kernel.writes = {
            name: count
            for name, count in kernel.writes.items()
            if name in kept or any(user is not kernel for user in used_by.get(name, []))
        }
    return kernels


@contextmanager
def _exportable() -> Iterator[None]:
    """MLX cannot record mx.contiguous; an operation that copies as much stands in for it."""
    contiguous = mx.contiguous
    mx.contiguous = lambda x: mx.concatenate([x])
    try:
        yield
    finally:
        mx.contiguous = contiguous


def _fusible(kind: str, kernel: Dispatch) -> bool:
    return kind in ELEMENTWISE and all(operation in ELEMENTWISE for operation in kernel.operations)
