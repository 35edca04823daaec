"""Our kernels on an NVIDIA GPU at long shapes: error against the reference, time against a copy's."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
from kernel_bench.times import least_bytes

from metal_kernels import delta_inputs as inputs
from metal_kernels import expert_mlp as mlp
from metal_kernels import gated_delta as delta
from metal_kernels import router_topk as router
from metal_kernels.dispatch import disagreement

from .device import Device, metal_on_nvidia

REPEATS = 20


def long_cases(quick: bool) -> list[tuple[str, Callable[..., Any], Callable[..., Any], tuple]]:
    """(name, ours, reference, arguments) at the shapes of the 397B, prompts of thousands of tokens."""
    T, heads = (130, (2, 4)) if quick else (4099, (16, 64))
    logits = mx.random.normal((T, 512))
    projections = inputs.random_inputs(1, T, *heads, 128, mx.bfloat16)
    found: list[tuple[str, Callable[..., Any], Callable[..., Any], tuple]] = [
        (f"router_topk T={T}", router.router_topk_metal, router.router_topk_reference, (logits, 10)),
        (f"delta_inputs T={T}", inputs.delta_inputs_metal, inputs.delta_inputs_reference, projections),
    ]
    for length, name, run in (
        (1, "recurrent", delta.gated_delta_metal),
        (T, "recurrent", delta.gated_delta_metal),
        (T, "chunked", delta.gated_delta_chunked_metal),
    ):
        (case,) = delta.trial_cases(length, *heads)
        found.append((f"gated_delta {name} T={length}", run, delta.gated_delta_reference, case))
    for mode in mlp.MODES:
        for case in mlp.trial_cases(mode):
            found.append((f"expert_mlp {mode} M={len(case[0])}", mlp.expert_mlp_metal, mlp.expert_mlp_reference, case))
    return found


def measured(quick: bool) -> list[dict[str, Any]]:
    """Rows of the table; the first is the device and a copy's bandwidth."""
    device = Device()
    rows: list[dict[str, Any]] = [{"device": device.name, "bytes_per_second": device.copy_bandwidth()}]
    for name, run, reference, arguments in long_cases(quick):
        want = _arrays(reference(*arguments))
        with metal_on_nvidia(device, REPEATS) as times:
            got = _arrays(run(*arguments))
        took = sum(time.microseconds for time in times)
        rate = least_bytes(arguments, want) / took * 1e6
        rows.append(
            {
                "operation": name,
                "error": disagreement(got, want),
                "microseconds": took,
                "bytes_per_second": rate,
                "of_copy": rate / rows[0]["bytes_per_second"],
            }
        )
    return rows


def _arrays(outputs: Any) -> list[mx.array]:
    arrays = list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]
    mx.eval(arrays)
    return arrays
