"""From a `.metal` file to a kernel call.

A `.metal` file is plain MSL: helpers first, then the bodies of one or more kernels. Each body follows a line

    // kernel NAME(INPUT, ...) -> OUTPUT, ...

which names the parameters; MLX writes the signature, with types taken from the arrays of the call.
"""

import re
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

import mlx.core as mx

KERNEL_LINE = re.compile(r"^// kernel (\w+)\(([\w, ]+)\) -> ([\w, ]+)$", re.M)


class Source(NamedTuple):
    """One kernel of a `.metal` file, as mx.fast.metal_kernel wants it."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    helpers: str
    body: str


@cache
def sources(file: str) -> dict[str, Source]:
    """The kernels of `<file>.metal`, by name."""
    return parse((resources.files("metal_kernels") / f"{file}.metal").read_text())


def parse(text: str) -> dict[str, Source]:
    """The kernels of a `.metal` text, by name."""
    helpers, *parts = KERNEL_LINE.split(text)
    found = {}
    for name, inputs, outputs, body in zip(*[iter(parts)] * 4, strict=True):
        found[name] = Source(name, tuple(inputs.split(", ")), tuple(outputs.split(", ")), helpers, body)
    return found


@cache
def _kernel(factory: Any, file: str, name: str) -> Any:
    source = sources(file)[name]
    return factory(
        name=source.name,
        input_names=source.inputs,
        output_names=source.outputs,
        header=source.helpers,
        source=source.body,
    )


def launch(
    file: str,
    name: str,
    inputs: dict[str, Any],
    outputs: dict[str, tuple[tuple[int, ...], mx.Dtype]],
    template: dict[str, Any],
    grid: tuple[int, int, int],
    threadgroup: tuple[int, int, int],
) -> list[mx.array]:
    """Run one kernel; `grid` counts threads. Inputs and outputs are given by name and must be the file's."""
    source = sources(file)[name]
    if set(inputs) != set(source.inputs) or set(outputs) != set(source.outputs):
        raise ValueError(f"{name} takes {source.inputs} and makes {source.outputs}")
    kernel = _kernel(mx.fast.metal_kernel, file, name)
    return kernel(
        inputs=[inputs[i] for i in source.inputs],
        output_shapes=[outputs[o][0] for o in source.outputs],
        output_dtypes=[outputs[o][1] for o in source.outputs],
        template=list(template.items()),
        grid=grid,
        threadgroup=threadgroup,
    )
