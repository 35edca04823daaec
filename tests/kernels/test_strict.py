"""Every kernel that is shipped, as MLX generates it, under clang's address spaces."""

import mlx.core as mx
import pytest
from kernel_cases.shipped import COUNT, every_kernel
from metal_cpu import PREAMBLE
from metal_cpu.strict import check, clang


@pytest.mark.skipif(clang() is None, reason="no clang++ of version 18 or later")
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16])
def test_types(dtype):
    kernels = every_kernel(dtype)
    assert len(kernels) == COUNT
    problems = {k.instance: found for k in kernels if (found := check(k.text, k.instance, PREAMBLE))}
    assert problems == {}
