"""Every kernel that is shipped, as MLX generates it, under clang's address spaces."""

import mlx.core as mx
import pytest
from metal_cpu import PREAMBLE, Recorded
from metal_cpu.oracle import delta_case
from metal_cpu.recorded import recording
from metal_cpu.strict import check, clang

from metal_kernels.delta_inputs import delta_inputs_metal, random_inputs
from metal_kernels.expert_mlp import GROUPS, expert_mlp_metal, random_bank
from metal_kernels.gated_delta import gated_delta_chunked_metal, gated_delta_metal, gated_delta_steps_metal
from metal_kernels.router_topk import router_topk_metal


def every_kernel(dtype: mx.Dtype) -> list[Recorded]:
    with recording() as texts:
        router_topk_metal(mx.zeros((2, 64), dtype), 4)
        for mode in GROUPS:
            for M in (1, 3):
                slots = mx.zeros((M, 2), mx.uint32)
                expert_mlp_metal(mx.zeros((M, 64), dtype), slots, mx.ones((M, 2)), random_bank(mode, 2, 64, 64))
        delta_inputs_metal(*random_inputs(1, 5, 1, 2, 32, dtype))
        for form in (gated_delta_metal, gated_delta_chunked_metal, gated_delta_steps_metal):
            form(*delta_case(1, 5, 1, 2, 32, dtype))
    return texts


@pytest.mark.skipif(clang() is None, reason="no clang++ of version 18 or later")
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16])
def test_types(dtype):
    kernels = every_kernel(dtype)
    assert len(kernels) == 1 + 2 * 2 * len(GROUPS) + 4
    problems = {k.instance: found for k in kernels if (found := check(k.text, k.instance, PREAMBLE))}
    assert problems == {}
