"""Launches kernels that MLX itself ships, unmodified, on the machine.

Their headers come with the installed wheel; the launch geometry is what MLX's host code uses. They calibrate the
machine (test_calibration.py), and they are the stock path that our own kernels are counted against.
"""

from typing import Any

import mlx.core as mx
import numpy as np

from .program import Counters, Program
from .recorded import from_numpy, poisoned, to_numpy

HEADER = "mlx/backend/metal/kernels/"
QUANTIZED = "".join(
    f'#include "{HEADER}{name}.h"\n' for name in ("utils", "steel/gemm/gemm", "quantized_utils", "fp_quantized")
)
AFFINE = "".join(
    f'#include "{HEADER}{name}.h"\n' for name in ("utils", "steel/gemm/gemm", "quantized_utils", "quantized")
)
DELTA = f'#include "{HEADER}utils.h"\n#include "{HEADER}gated_delta_update.h"\n'
SOFTMAX = f'#include "{HEADER}utils.h"\n#include "{HEADER}softmax.h"\n#include "{HEADER}logsumexp.h"\n'
TYPE = {mx.float32: "float", mx.bfloat16: "bfloat16_t", mx.float16: "half"}
MODES = {"mxfp4": (32, 4), "nvfp4": (16, 4), "mxfp8": (32, 8), "affine": (64, 4)}  # group size, bits


def int32(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def int64(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def quantized(weights: mx.array, mode: str) -> list[mx.array]:
    """[packed, scales] or, for affine, [packed, scales, biases]."""
    group, bits = MODES[mode]
    return list(mx.quantize(weights, group_size=group, bits=bits, mode=mode))


def _tensors(parts: list[mx.array], dtype: mx.Dtype) -> dict[str, np.ndarray]:
    named = {"w": to_numpy(parts[0]), "scales": to_numpy(parts[1])}
    if len(parts) == 3:  # affine scales and biases have the type of the activations
        named["scales"], named["biases"] = (to_numpy(p.astype(dtype)) for p in parts[1:])
    return named


def qmv(x: mx.array, parts: list[mx.array], mode: str, **run: Any) -> tuple[str, mx.array, Counters]:
    """x [M, K] times w [N, K] transposed, one row of x per threadgroup column."""
    (M, K), N, (group, bits) = x.shape, parts[0].shape[0], MODES[mode]
    family, source = ("affine", AFFINE) if mode == "affine" else ("fp", QUANTIZED)
    name = f"{family}_qmv_fast" if N % 8 == 0 and K % 512 == 0 else f"{family}_qmv"
    program = Program(source, f"{name}<{TYPE[x.dtype]},{group},{bits},false>", variant=run.pop("variant", "plain"))
    y = poisoned((M, N), x.dtype)
    buffers = {**_tensors(parts, x.dtype), "x": to_numpy(x), "y": y, "in_vec_size": int32(K), "out_vec_size": int32(N)}
    counters = program.run(buffers, (M * 32, (N + 7) // 8 * 2, 1), (32, 2, 1), **run)
    return name, from_numpy(y, x.dtype), counters


def qmm(x: mx.array, parts: list[mx.array], mode: str, **run: Any) -> tuple[str, mx.array, Counters]:
    """x [M, K] times w [N, K] transposed on tiles of 32 x 32."""
    (M, K), N, (group, bits) = x.shape, parts[0].shape[0], MODES[mode]
    aligned = str(N % 32 == 0).lower()
    text = run.pop("text", QUANTIZED)
    program = Program(
        text, f"fp_qmm_t<{TYPE[x.dtype]},{group},{bits},{aligned},false>", variant=run.pop("variant", "plain")
    )
    y = poisoned((M, N), x.dtype)
    buffers = {**_tensors(parts, x.dtype), "x": to_numpy(x), "y": y, "K": int32(K), "N": int32(N), "M": int32(M)}
    counters = program.run(buffers, ((N + 31) // 32 * 32, (M + 31) // 32 * 2, 2), (32, 2, 2), **run)
    return "fp_qmm_t", from_numpy(y, x.dtype), counters


def gather_qmv(
    x: mx.array, rows: mx.array, ids: mx.array, parts: list[mx.array], mode: str, **run: Any
) -> tuple[str, mx.array, Counters]:
    """Decode: y[t, j] = w[ids[t, j]] x[rows[t, j]]; x [R, K], rows, ids uint32 [T, J], w [E, N, K] -> y [T, J, N]."""
    (R, K), (T, J), (E, N) = x.shape, ids.shape, parts[0].shape[:2]
    group, bits = MODES[mode]
    family, source = ("affine", AFFINE) if mode == "affine" else ("fp", QUANTIZED)
    name = f"{family}_gather_qmv_fast" if N % 8 == 0 and K % 512 == 0 else f"{family}_gather_qmv"
    text = run.pop("text", source)
    program = Program(text, f"{name}<{TYPE[x.dtype]},{group},{bits}>", variant=run.pop("variant", "plain"))
    y, packed, scales = poisoned((T, J, N), x.dtype), parts[0], parts[1]
    strides = int64(N * scales.shape[-1], scales.shape[-1], 1)
    buffers = {
        **_tensors(parts, x.dtype), "x": to_numpy(x), "y": y,
        "lhs_indices": to_numpy(rows), "rhs_indices": to_numpy(ids),
        "in_vec_size": int32(K), "out_vec_size": int32(N),
        "x_batch_ndims": int32(1), "x_shape": int32(R, 1, K), "x_strides": int64(K, K, 1),
        "w_batch_ndims": int32(1), "w_shape": int32(E, N, K),
        "w_strides": int64(N * packed.shape[-1], packed.shape[-1], 1), "s_strides": strides,
        "batch_ndims": int32(2), "batch_shape": int32(T, J), "lhs_strides": int64(J, 1), "rhs_strides": int64(J, 1),
    }  # fmt: skip
    if mode == "affine":
        buffers["b_strides"] = strides
    counters = program.run(buffers, (32, (N + 7) // 8 * 2, T * J), (32, 2, 1), **run)
    return name, from_numpy(y, x.dtype), counters


def gather_qmm(
    x: mx.array, ids: mx.array, parts: list[mx.array], mode: str, **run: Any
) -> tuple[str, mx.array, Counters]:
    """Prefill: y[r] = w[ids[r]] x[r] with ids sorted; x [R, K], w [E, N, K] -> y [R, N]; tiles of 16 x 32."""
    (R, K), (E, N), (group, bits), tile = x.shape, parts[0].shape[:2], MODES[mode], 16
    offsets = np.searchsorted(np.array(ids), np.arange(E + 1)).astype(np.int32)
    program = Program(
        QUANTIZED,
        f"fp_gather_qmm_rhs<{TYPE[x.dtype]},{group},{bits},{tile},32,32,1,2,true>",
        constants={"align_M": R % tile == 0, "align_N": N % 32 == 0, "align_K": K % 32 == 0},
        variant=run.pop("variant", "plain"),
    )
    y = poisoned((R, N), x.dtype)
    buffers = {
        **_tensors(parts, x.dtype), "x": to_numpy(x), "y": y, "offsets": offsets,
        "M": int32(R), "N": int32(N), "K": int32(K), "num_groups": int32(E),
    }  # fmt: skip
    tiles = R // tile + E  # an upper bound: the kernel drops the rest
    counters = program.run(buffers, ((N + 31) // 32 * 32, tiles * 2, 1), (32, 2, 1), **run)
    return "fp_gather_qmm_rhs", from_numpy(y, x.dtype), counters


def gated_delta(
    kind: str, q: mx.array, k: mx.array, v: mx.array, decay: mx.array, beta: mx.array, state: mx.array, **run: Any
) -> tuple[mx.array, mx.array, Counters]:
    """MLX's `gated_delta_seq` or `gated_delta_fused_chunk` behind mx.fast.gated_delta_update; decay is exp(g)."""
    (B, T, Hk, D), Hv, dtype = q.shape, v.shape[2], q.dtype
    y, new = poisoned(v.shape, dtype), poisoned(state.shape, mx.float32)
    last, lanes = ("8", D // 8) if kind == "gated_delta_fused_chunk" else ("16", D)
    text = run.pop("text", DELTA)
    program = Program(text, f"{kind}<{TYPE[dtype]},{D},{D},{Hk},{Hv},{last}>", variant=run.pop("variant", "plain"))
    inputs = {"q": q, "k": k, "v": v, "g": decay.astype(dtype), "beta": beta.astype(dtype), "state_in": state}
    buffers = {name: to_numpy(a) for name, a in inputs.items()} | {"y": y, "state_out": new, "T": int32(T)}
    counters = program.run(buffers, (32, lanes, B * Hv), (32, 4, 1), **run)
    return from_numpy(y, dtype), from_numpy(new, mx.float32), counters


def softmax(name: str, x: mx.array, **run: Any) -> tuple[mx.array, Counters]:
    """`softmax_single_row` (N <= 4096) or `softmax_looped` over the last axis of x [M, N]."""
    M, N = x.shape
    threads = (N + 127) // 128 * 32 if name == "softmax_single_row" else 1024  # all of the row's scratch is read
    program = Program(SOFTMAX, f"{name}<{TYPE[x.dtype]},float,4>", variant=run.pop("variant", "plain"))
    out = poisoned(x.shape, x.dtype)
    buffers = {"in": to_numpy(x), "out": out, "axis_size": int32(N)}
    counters = program.run(buffers, (M * threads, 1, 1), (threads, 1, 1), **run)
    return from_numpy(out, x.dtype), counters


def logsumexp(x: mx.array, **run: Any) -> tuple[mx.array, Counters]:
    """Over the last axis of x [M, N], N <= 4096."""
    M, N = x.shape
    threads = (N + 127) // 128 * 32
    program = Program(SOFTMAX, f"logsumexp<{TYPE[x.dtype]},float,4>", variant=run.pop("variant", "plain"))
    out = poisoned((M,), x.dtype)
    buffers = {"in": to_numpy(x), "out": out, "axis_size": int32(N)}
    counters = program.run(buffers, (M * threads, 1, 1), (threads, 1, 1), **run)
    return from_numpy(out, x.dtype), counters
