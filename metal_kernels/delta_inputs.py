"""From the projections of a Gated DeltaNet layer to the inputs of its recurrence, in one pass over them.

    c = silu(depthwise causal convolution of qkv);  q, k, v = heads of c;  q, k L2-normalised, q over sqrt(D)
    g = -exp(A_log) softplus(a + dt_bias);  beta = sigmoid(b)

qkv [B, T, (2 Hk + Hv) D], queries first, then keys, then values; past [B, K - 1, the same] are the inputs before them,
zeros at the start; taps float32 [K, channels], oldest input first; a, b [B, T, Hv]; A_log, dt_bias float32 [Hv].
Results are float32 (an error in the log of the decay adds up over the whole context), the new past is in past's type.
"""

from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn

from .dispatch import Operation
from .launch import launch

RUN = 16  # tokens of a simdgroup: of K - 1 + RUN rows read, K - 1 are read by its neighbour too


class DeltaInputs(NamedTuple):
    """q, k [B, T, Hk, D]; v [B, T, Hv, D]; g, beta [B, T, Hv]; past [B, K - 1, channels] for the next call."""

    q: mx.array
    k: mx.array
    v: mx.array
    g: mx.array
    beta: mx.array
    past: mx.array


def delta_inputs(
    qkv: mx.array, past: mx.array, taps: mx.array, a: mx.array, b: mx.array, A_log: mx.array, dt_bias: mx.array, Hk: int
) -> DeltaInputs:
    """Everything that `gated_delta` takes but the state; Hk key heads, as many value heads as `A_log` has."""
    D = qkv.shape[-1] // (2 * Hk + A_log.size)
    run = INPUTS.best() if D % 32 == 0 else delta_inputs_reference
    return run(qkv, past, taps, a, b, A_log, dt_bias, Hk)


def delta_inputs_metal(
    qkv: mx.array, past: mx.array, taps: mx.array, a: mx.array, b: mx.array, A_log: mx.array, dt_bias: mx.array, Hk: int
) -> DeltaInputs:
    """One dispatch, a simdgroup for a head and a run of tokens; head sizes that are multiples of 32."""
    (B, T, C), K, Hv = qkv.shape, taps.shape[0], A_log.size
    D, run = C // (2 * Hk + Hv), min(T, RUN)
    outputs = launch(
        "delta_inputs",
        "delta_inputs",
        inputs={
            "qkv": qkv,
            "past": past,
            "taps": taps,
            "a": a,
            "b": b,
            "A_log": A_log,
            "dt_bias": dt_bias,
            "tokens": T,
        },
        outputs={
            "q": ((B, T, Hk, D), mx.float32),
            "k": ((B, T, Hk, D), mx.float32),
            "v": ((B, T, Hv, D), mx.float32),
            "g": ((B, T, Hv), mx.float32),
            "beta": ((B, T, Hv), mx.float32),
            "new_past": (past.shape, past.dtype),
        },
        template={"TP": past.dtype, "HK": Hk, "HV": Hv, "D": D, "K": K, "RUN": run},
        grid=(32, 2 * Hk + Hv, B * -(-T // run)),
        threadgroup=(32, 4, 1),
    )
    return DeltaInputs(*outputs)


def delta_inputs_reference(
    qkv: mx.array, past: mx.array, taps: mx.array, a: mx.array, b: mx.array, A_log: mx.array, dt_bias: mx.array, Hk: int
) -> DeltaInputs:
    """MLX operations; shifted sums are four times faster than mx.conv1d on a CPU."""
    (B, T, C), K, Hv = qkv.shape, taps.shape[0], A_log.size
    D = C // (2 * Hk + Hv)
    seen = mx.concatenate([past, qkv.astype(past.dtype)], axis=1)  # [B, K - 1 + T, C]
    rows = seen.astype(mx.float32)
    c = nn.silu(sum((rows[:, j : j + T] * taps[j] for j in range(1, K)), rows[:, :T] * taps[0]))
    q, k, v = mx.split(c, [Hk * D, 2 * Hk * D], axis=-1)
    g = -mx.exp(A_log) * nn.softplus(a.astype(mx.float32) + dt_bias)
    return DeltaInputs(
        _l2_norm(q.reshape(B, T, Hk, D)) * D**-0.5,
        _l2_norm(k.reshape(B, T, Hk, D)),
        v.reshape(B, T, Hv, D),
        g,
        mx.sigmoid(b.astype(mx.float32)),
        mx.contiguous(seen[:, T:]),
    )


def _l2_norm(x: mx.array) -> mx.array:
    """x / sqrt(sum x^2 + 1e-6): eps is on the sum, where rms_norm has it on the mean."""
    size = x.shape[-1]
    return mx.fast.rms_norm(x, None, 1e-6 / size) * size**-0.5


def random_inputs(B: int, T: int, Hk: int, Hv: int, D: int, dtype: mx.Dtype, K: int = 4, seed: int = 0) -> tuple:
    """Arguments as a layer makes them; for trials, tests and benchmarks."""
    keys = iter(mx.random.split(mx.random.key(seed), 7))
    C = (2 * Hk + Hv) * D
    qkv, past = (mx.random.normal((B, n, C), key=next(keys)).astype(dtype) for n in (T, K - 1))
    a, b = (mx.random.normal((B, T, Hv), key=next(keys)).astype(dtype) for _ in range(2))
    taps = mx.random.normal((K, C), key=next(keys)) / 2
    A_log = mx.log(mx.random.uniform(1, 8, (Hv,), key=next(keys)))
    return qkv, past, taps, a, b, A_log, mx.random.normal((Hv,), key=next(keys)) - 3, Hk


INPUTS = Operation(
    name="delta_inputs",
    reference=delta_inputs_reference,
    ours=delta_inputs_metal,
    cases=lambda: [random_inputs(1, T, 16, 64, 128, mx.bfloat16) for T in (20, 1)],
    tolerance=1e-5,
)
