"""Every kernel that is shipped, as MLX generates its text, in one instance for every form that a model uses."""

import mlx.core as mx
from metal_cpu import Recorded
from metal_cpu.oracle import delta_case
from metal_cpu.recorded import recording

from metal_kernels.delta_inputs import delta_inputs_metal, random_inputs
from metal_kernels.expert_bank import GROUPS, random_bank
from metal_kernels.expert_mlp import expert_mlp_metal, expert_rows_metal
from metal_kernels.gated_delta import gated_delta_chunked_metal, gated_delta_metal, gated_delta_steps_metal
from metal_kernels.router_topk import router_topk_metal


def every_kernel(dtype: mx.Dtype) -> list[Recorded]:
    """For activations of this type; small shapes, the text does not depend on them but for its constants."""
    with recording() as texts:
        router_topk_metal(mx.zeros((2, 64), dtype), 4)
        for mode in GROUPS:
            bank = random_bank(mode, 2, 64, 64)
            for M in (1, 3):
                slots = mx.zeros((M, 2), mx.uint32)
                expert_mlp_metal(mx.zeros((M, 64), dtype), slots, mx.ones((M, 2)), bank)
            expert_rows_metal(mx.zeros((40, 64), dtype), mx.zeros(40, mx.uint32), bank)
        delta_inputs_metal(*random_inputs(1, 5, 1, 2, 32, dtype))
        for form in (gated_delta_metal, gated_delta_chunked_metal, gated_delta_steps_metal):
            form(*delta_case(1, 5, 1, 2, 32, dtype))
    return texts


COUNT = 1 + 3 * 2 * len(GROUPS) + 4
