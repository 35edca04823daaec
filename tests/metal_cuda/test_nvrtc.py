"""Every shipped kernel compiles for NVIDIA GPUs, to machine code; with a GPU it also runs there. See README.md."""

import ctypes

import mlx.core as mx
import pytest
from kernel_cases.oracles import experts_case, experts_oracle, router_oracle
from kernel_cases.shipped import COUNT, every_kernel
from metal_cpu import PREAMBLE, CompileError
from metal_cpu.oracle import delta_case, delta_float64, spread_error

from metal_kernels.expert_mlp import expert_mlp_metal
from metal_kernels.gated_delta import gated_delta_chunked_metal, gated_delta_metal
from metal_kernels.router_topk import router_topk_metal

from .device import Device, DriverError, metal_on_nvidia
from .nvrtc import compile_cubin, library

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(library() is None, reason="no NVRTC: pip install nvidia-cuda-nvrtc"),
]
ELF = b"\x7fELF"


def has_gpu() -> bool:
    try:
        return ctypes.CDLL("libcuda.so.1").cuInit(0) == 0
    except OSError:
        return False


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16])
def test_compiles(dtype, architecture):
    kernels = every_kernel(dtype)
    assert len(kernels) == COUNT
    for kernel in kernels:
        assert compile_cubin(PREAMBLE + kernel.text, kernel.instance, architecture).startswith(ELF)


def test_a_mistake_is_refused():
    kernel = every_kernel(mx.float32)[0]
    with pytest.raises(CompileError, match="simd_maxx"):
        compile_cubin(PREAMBLE + kernel.text.replace("simd_max(", "simd_maxx("), kernel.instance)


@pytest.mark.skipif(has_gpu(), reason="an NVIDIA GPU is here")
def test_without_a_gpu():
    with pytest.raises(DriverError):
        Device()


@pytest.mark.skipif(not has_gpu(), reason="no NVIDIA GPU")
def test_runs():
    with metal_on_nvidia(Device()):
        logits = mx.random.normal((5, 512))
        assert (mx.array(router_oracle(logits, 10)[0]) == router_topk_metal(logits, 10)[0]).all()
        case = experts_case("mxfp4", 5, 4, 6, 192, 64)
        assert spread_error(expert_mlp_metal(*case), experts_oracle(*case)) <= 1e-5
        for form in (gated_delta_metal, gated_delta_chunked_metal):
            case = delta_case(1, 130, 2, 4, 64, mx.float32)
            assert spread_error(form(*case)[0], delta_float64(*case)[0]) <= 1e-5
