"""A test of the tests: bugs planted in kernels that are known to be right, and who finds them.

Each case changes one place in MLX's text, or uses a small kernel of our own, and names the checks that must see it:

    numbers   wrong values or NaN in a plain run, in one of the three schedules
    refused   the compiler, or the machine's own checks (divergence, limits, writes outside a buffer)
    address   AddressSanitizer or UndefinedBehaviorSanitizer
    thread    ThreadSanitizer
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from . import mlx_kernels as stock
from .alone import Died, preload, run_alone
from .compiler import CompileError
from .oracle import delta_case, delta_float64, spread_error
from .program import Fault, Program
from .source import expand

pytestmark = pytest.mark.usefixtures("compiler")
WRONG = 0.05  # of the output's spread: far above any rounding, below any real mistake


def changed(source: str, old: str, new: str) -> str:
    """MLX's text with its first `old` replaced; fails when a new MLX no longer has it."""
    text = _expanded(source)
    assert old in text, f"MLX's text no longer has: {old}"
    return text.replace(old, new, 1)


@functools.cache
def _expanded(source: str) -> str:
    return expand(source)


def tiles(text: str) -> Callable[..., float]:
    def run(**options: Any) -> float:
        parts = stock.quantized(mx.random.normal((64, 128), key=mx.random.key(0)), "mxfp4")
        x = mx.random.normal((33, 128), key=mx.random.key(1)).astype(mx.bfloat16)
        _, y, _ = stock.qmm(x, parts, "mxfp4", text=text, **options)
        return spread_error(y, mx.quantized_matmul(x.astype(mx.float32), *parts, transpose=True, mode="mxfp4"))

    return run


def vectors(text: str) -> Callable[..., float]:
    def run(**options: Any) -> float:
        parts = stock.quantized(mx.random.normal((8, 64, 512), key=mx.random.key(0)), "mxfp4")
        x = mx.random.normal((3, 512), key=mx.random.key(1)).astype(mx.bfloat16)
        ids = mx.array([[0, 7, 2, 5], [1, 3, 7, 4], [6, 0, 1, 7]], mx.uint32)
        rows = mx.repeat(mx.arange(3, dtype=mx.uint32)[:, None], 4, axis=1)
        _, y, _ = stock.gather_qmv(x, rows, ids, parts, "mxfp4", text=text, **options)
        x32 = x.astype(mx.float32)[:, None, None]
        return spread_error(y, mx.gather_qmm(x32, *parts, rhs_indices=ids, transpose=True, mode="mxfp4")[:, :, 0])

    return run


def recurrence(kernel: str, text: str) -> Callable[..., float]:
    def run(**options: Any) -> float:
        case = delta_case(1, 13, 1, 2, 128, mx.float32)
        q, k, v, g, beta, state = case
        y, _, _ = stock.gated_delta(kernel, q, k, v, mx.exp(g), beta, state, text=text, **options)
        return spread_error(y, delta_float64(*case)[0])

    return run


OWN = """
#include <metal_stdlib>
using namespace metal;
[[kernel]] void swap(device float* out [[buffer(0)]], uint3 gid [[thread_position_in_grid]],
                     uint lid [[thread_index_in_threadgroup]]) {
  threadgroup float a[SIZE];
  a[lid] = gid.x;
  if (CONDITION) threadgroup_barrier(mem_flags::mem_threadgroup);
  out[gid.x] = a[lid ^ 1];
}
"""


def own(size: str = "64", condition: str = "true", text: str = OWN, threads: int = 64) -> Callable[..., float]:
    def run(variant: str = "plain", **options: Any) -> float:
        source = text.replace("SIZE", size).replace("CONDITION", condition)
        out = np.full(2 * threads, np.nan, np.float32)
        Program(source, "swap", variant=variant).run({"out": out}, (2 * threads, 1, 1), (threads, 1, 1), **options)
        return 0.0 if np.array_equal(out, np.arange(2 * threads) ^ 1) else 1.0

    return run


BARRIER = "        threadgroup_barrier(mem_flags::mem_threadgroup);\n"
LOADED = f"        loader_w.load_unsafe();\n{BARRIER}        mma_op.mma(Xs, Ws);"
LOADING = f"""      for (int k = 0; k < k_blocks; k++) {{
{BARRIER}        loader_x.load_safe(short2(BK, num_els));
        loader_w.load_unsafe();"""
ROWS = (
    "for (int row = 0; row < results_per_simdgroup; row++) {\n    result[row] = simd_sum(result[row]);\n"
    "    if (simd_lid == 0 && row <= last_row)"
)
FP, DELTA = stock.QUANTIZED, stock.DELTA
FIRST_FENCE = "    simdgroup_barrier(mem_flags::mem_threadgroup);"

# name -> (run, the checks that must find it)
PLANTED: dict[str, tuple[Callable[[], Callable[..., float]], set[str]]] = {
    "no barrier between load and multiply": (
        lambda: tiles(changed(FP, LOADED, LOADED.replace(BARRIER, ""))), {"numbers", "thread"}),
    "no barrier before the next load": (
        lambda: tiles(changed(FP, LOADING, LOADING.replace(BARRIER, ""))), {"thread"}),
    "every lane writes the result": (
        lambda: vectors(changed(FP, "if (simd_lid == 0 && row <= last_row) {", "if (row <= last_row) {")), {"thread"}),
    "one row too many": (
        lambda: vectors(changed(FP, ROWS, ROWS.replace("row < results", "row < 1 + results").replace(
            " && row <= last_row", ""))), {"address"}),
    "accumulator not initialised": (
        lambda: vectors(_expanded(FP).replace("[results_per_simdgroup] = {0};", "[results_per_simdgroup];")),
        {"numbers"}),
    "simd_sum by half of the lanes": (
        lambda: vectors(changed(FP, ROWS, ROWS.replace("result[row] = simd", "if (simd_lid < 16) result[row] = simd"))),
        {"refused"}),
    "float stored to bfloat": (
        lambda: vectors(changed(FP, "y[row] = static_cast<T>(result[row]);", "y[row] = result[row];")), {"refused"}),
    "the old state read": (
        lambda: recurrence("gated_delta_seq", changed(
            DELTA, "out += state[i] * q_[s_idx];", "out += (state[i] - k_[s_idx] * delta) * q_[s_idx];")), {"numbers"}),
    "no simdgroup barrier": (
        lambda: recurrence("gated_delta_fused_chunk", changed(DELTA, FIRST_FENCE, "")), {"thread"}),
    "no barrier": (lambda: own(condition="false"), {"numbers", "thread"}),
    "barrier in divergent flow": (lambda: own(condition="lid < 32"), {"refused"}),
    "40 KB of threadgroup memory": (lambda: own(size="10240"), {"refused"}),
    "threadgroup array too small": (lambda: own(size="60"), {"address"}),
    "threadgroup memory never written": (
        lambda: own(text=OWN.replace("a[lid] =", "if (lid & 1) a[lid] =")), {"numbers"}),
    "1,056 threads": (lambda: own(size="1056", threads=1056), {"refused"}),
    "write behind the output": (lambda: own(text=OWN.replace("out[gid.x]", "out[gid.x + 1]")), {"refused", "address"}),
    "write to nobody's index": (lambda: own(text=OWN.replace("lid ^ 1", "lid")), {"numbers"}),
    "a word MSL lacks": (lambda: own(text=OWN.replace("a[lid] = gid.x;", "a[lid] = (double)gid.x;")), {"refused"}),
    "misaligned vector": (
        lambda: own(text=OWN.replace(
            "out[gid.x] =", "float2 f = *(device float2*)(out + (gid.x | 1)); out[gid.x] = f.x * 0 +")),
        {"address"}),
}  # fmt: skip

UNCHANGED: dict[str, Callable[[], Callable[..., float]]] = {
    "tiles": lambda: tiles(FP),
    "vectors": lambda: vectors(FP),
    "gated_delta_seq": lambda: recurrence("gated_delta_seq", DELTA),
    "own": own,
}


def _outcome(name: str, options: dict[str, Any]) -> str:
    run = (PLANTED[name][0] if name in PLANTED else UNCHANGED[name])()
    try:
        return "numbers" if run(**options) > WRONG else ""
    except (Fault, CompileError) as fault:
        sanitizer = "anitizer" in str(fault) or "runtime error" in str(fault)
        return options.get("variant", "refused") if sanitizer else "refused"


def found(name: str, **options: Any) -> str:
    """What one run finds; a wild kernel may take its process down with it, which nobody would miss."""
    try:
        return run_alone(_outcome, name, options)
    except Died:
        return "refused"


preload(__name__)
PLAIN = [{}, {"order": "reverse"}, {"order": "shuffled", "seed": 3}]


@pytest.mark.parametrize("name", UNCHANGED)
def test_unchanged_kernels_raise_no_alarm(name):
    assert [found(name, **options) for options in PLAIN] == ["", "", ""]


@pytest.mark.parametrize("name", [name for name, (_, by) in PLANTED.items() if by & {"numbers", "refused"}])
def test_found_by_plain_runs(name):
    outcomes = {found(name, **options) for options in PLAIN}
    assert outcomes & PLANTED[name][1] & {"numbers", "refused"}, outcomes


@pytest.mark.sanitizer
@pytest.mark.parametrize(
    ("name", "variant"), [(n, v) for n, (_, by) in PLANTED.items() for v in sorted(by & {"address", "thread"})]
)
def test_found_by_a_sanitizer(name, variant):
    assert found(name, variant=variant) == variant


@pytest.mark.sanitizer
@pytest.mark.parametrize("variant", ["address", "thread"])
@pytest.mark.parametrize("name", UNCHANGED)
def test_sanitizers_raise_no_false_alarm(name, variant):
    assert found(name, variant=variant) == ""


def test_the_cache_is_not_in_the_tree():
    from .compiler import cache_folder

    assert Path(__file__).resolve().parents[2] not in cache_folder().resolve().parents
