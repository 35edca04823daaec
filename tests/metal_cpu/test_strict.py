"""The strict check accepts MLX's kernels and refuses what Metal would. Needs clang 18 or later; skipped without."""

import pytest

from . import mlx_kernels as stock
from .strict import check, clang, unqualified

needs_clang = pytest.mark.skipif(clang() is None, reason="no clang++ of version 18 or later")

KERNEL = """
#include <metal_stdlib>
using namespace metal;
inline float first(const device float* p) { return p[0]; }
[[kernel]] void k(const device float* x [[buffer(0)]], const constant int& n [[buffer(1)]],
                  device bfloat* y [[buffer(2)]], uint i [[thread_position_in_grid]]) {
  threadgroup float shared[32];
  float own[2] = {x[i], 0.0f};
  BODY
  shared[i % 32] = own[0];
  y[i] = bfloat(first(x) + n);
}
"""
REFUSED = {
    "device pointer to thread": "thread float* p = x;",
    "thread pointer to device": "own[1] = first(own);",
    "threadgroup pointer to device": "own[1] = first(shared);",
    "write through const": "x[i] = 0.0f;",
    "uninitialised": "float f; own[1] = f;",
    "no such name": "own[1] = simd_summ(1.0f);",
    "vector of another size": "float4 v = float4(0.0f); float2 w = v; own[1] = w.x;",
}


@needs_clang
def test_accepts():
    assert check(KERNEL.replace("BODY", "own[1] = simd_sum(shared[0]);"), "k") == []


@needs_clang
@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED.keys())
def test_refuses(body):
    assert check(KERNEL.replace("BODY", body), "k")


@needs_clang
@pytest.mark.parametrize(
    ("source", "instance"),
    [
        (stock.DELTA, "gated_delta_seq<bfloat16_t,128,128,16,64,16>"),
        (stock.QUANTIZED, "fp_qmv_fast<bfloat16_t,32,4,false>"),
        (stock.QUANTIZED, "fp_gather_qmv_fast<half,16,4>"),
        (stock.SOFTMAX, "softmax_looped<bfloat16_t,float,4>"),
    ],
)
def test_accepts_mlx(source, instance):
    assert check("", instance, preamble=source) == []


@pytest.mark.parametrize(
    "text", ["float f = *(float*)p;", "void f(float* p) {}", "inline int g(thread int* a, const uint& b) {}"]
)
def test_finds_pointers_without_a_space(text):
    assert unqualified(" " + text)


@pytest.mark.parametrize("text", ["float f = *(device float*)p;", "void f(thread float* p) {}", "if (a * b) {}"])
def test_leaves_the_others_alone(text):
    assert not unqualified(" " + text)
