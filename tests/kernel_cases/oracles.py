"""Independent answers for our kernels in float64, from formulas and bit patterns only, and inputs to ask about."""

import mlx.core as mx
import numpy as np
from metal_cpu.oracle import float64

from metal_kernels.expert_bank import GROUPS, ExpertBank, Stack, random_bank


def router_oracle(logits: mx.array, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Sort by falling logit, then rising expert; float64 softmax of what was chosen."""
    x = np.array(logits.astype(mx.float32)).astype(np.float64)
    order = np.lexsort((np.broadcast_to(np.arange(x.shape[1]), x.shape), -x))[:, :k]
    ids = np.sort(order, axis=1)
    chosen = np.take_along_axis(x, ids, axis=1)
    e = np.exp(chosen - chosen.max(axis=1, keepdims=True))
    return ids, e / e.sum(axis=1, keepdims=True)


FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])


def e4m3(bits: np.ndarray) -> np.ndarray:
    exponent, mantissa = (bits >> 3 & 15).astype(int), bits & 7
    return np.where(exponent == 0, mantissa / 8 * 2.0**-6, (1 + mantissa / 8) * 2.0 ** (exponent - 7))


def decoded(stack: Stack, slot: int) -> np.ndarray:
    """The matrix in a slot, packed [rows, inputs / 8], as float64 [rows, inputs], lowest nibble first."""
    assert stack.scales is not None
    codes, bits = np.array(stack.weight[slot]), np.array(stack.scales[slot].astype(mx.float32))
    nibbles = (codes[..., None] >> (4 * np.arange(8, dtype=np.uint32)) & 15).reshape(len(codes), -1)

    def per_weight(values: np.ndarray) -> np.ndarray:
        return np.repeat(values, GROUPS[stack.mode], axis=-1)

    if stack.biases is not None:
        return nibbles * per_weight(bits.astype(float)) + per_weight(float64(stack.biases[slot]))
    return FP4[nibbles] * per_weight(2.0 ** (bits - 127.0) if stack.mode == "mxfp4" else e4m3(bits.astype(int)))


def experts_oracle(x: mx.array, slots: mx.array, weights: mx.array, bank: ExpertBank) -> np.ndarray:
    used = np.unique(np.array(slots)).tolist()
    gate_up, down = ({slot: decoded(stack, slot) for slot in used} for stack in (bank.gate_up, bank.down))
    y = np.zeros(x.shape)
    for m, row in enumerate(float64(x)):
        for slot, weight in zip(np.array(slots[m]).tolist(), float64(weights[m]), strict=True):
            gate, up = np.split(gate_up[slot] @ row, 2)
            y[m] += weight * (down[slot] @ (gate / (1 + np.exp(-gate)) * up))
    return y


def experts_case(mode: str, M: int, K: int, S: int, H: int, I: int, dtype: mx.Dtype = mx.float32, seed: int = 0):  # noqa: E741
    """Random rows over random slots: out of order, and repeated between rows and within them."""
    keys = iter(mx.random.split(mx.random.key(seed), 3))
    x = mx.random.normal((M, H), key=next(keys)).astype(dtype)
    slots = mx.random.randint(0, S, (M, K), key=next(keys)).astype(mx.uint32)
    weights = mx.softmax(mx.random.normal((M, K), key=next(keys)), axis=-1)
    return x, slots, weights, random_bank(mode, S, H, I, seed)


def inputs_oracle(
    qkv: mx.array, past: mx.array, taps: mx.array, a: mx.array, b: mx.array, A_log: mx.array, dt_bias: mx.array, Hk: int
) -> list[np.ndarray]:
    """The fields of DeltaInputs, a token at a time."""
    (B, T, C), K, Hv = qkv.shape, taps.shape[0], A_log.size
    D = C // (2 * Hk + Hv)
    seen = np.concatenate([float64(past), float64(qkv)], axis=1)
    rows = np.stack([(float64(taps) * seen[:, t : t + K]).sum(axis=1) for t in range(T)], axis=1)
    heads = (rows / (1 + np.exp(-rows))).reshape(B, T, 2 * Hk + Hv, D)
    q, k, v = np.split(heads, [Hk, 2 * Hk], axis=2)
    q, k = (x / np.sqrt((x * x).sum(axis=-1, keepdims=True) + 1e-6) for x in (q, k))
    g = -np.exp(float64(A_log)) * np.logaddexp(float64(a) + float64(dt_bias), 0)
    return [q / np.sqrt(D), k, v, g, 1 / (1 + np.exp(-float64(b))), seen[:, T:]]
