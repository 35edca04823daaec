"""The routed experts of a layer: gate and up projections, SwiGLU, down projection, and their weighted sum.

    expert(s, x) = down_s (silu(gate_s x) * (up_s x))
    expert_mlp   y[m] = sum over k, in order, of weights[m, k] * expert(slots[m, k], x[m])
    expert_rows  y[r] = expert(slots[r], x[r])

`expert_rows` is for experts that are read from disk: those in memory compute while the others come, and the sum waits.
"""

from functools import partial

import mlx.core as mx

from .dispatch import Operation
from .expert_bank import GROUPS, ExpertBank, Stack, random_bank
from .launch import launch

ROWS_MAX = 8  # rows of x in one call of the decode kernels: a token, or one with its speculated followers
PAIRS_MAX = 96  # (row, expert) pairs in one call: three bits a lane
ROWS, SIMDGROUPS, SIMD = 4, 4, 32  # output rows of a simdgroup, simdgroups of a threadgroup; as in expert_mlp.metal
SORT_FROM = 64  # (row, expert) pairs from which grouping them by expert pays in MLX's gather_qmm
MODES = {"mxfp4": 0, "nvfp4": 1, "affine": 2}  # as in expert_mlp.metal


def expert_mlp(x: mx.array, slots: mx.array, weights: mx.array, bank: ExpertBank) -> mx.array:
    """x [M, H], slots uint32 [M, K], weights float32 [M, K] -> [M, H] in x's type."""
    mode = bank.packing
    if mode is None or x.shape[0] > ROWS_MAX or slots.size > PAIRS_MAX:
        return expert_mlp_stock(x, slots, weights, bank)
    return EXPERTS[mode].best()(x, slots, weights, bank)


def expert_rows(x: mx.array, slots: mx.array, bank: ExpertBank, sharing: int = 1, ascending: bool = False) -> mx.array:
    """x [R, H], slots uint32 [R] -> float32 [R, H].

    `sharing` is how many rows name one slot: if more do, its weights are read again. `ascending` says that the slots
    are in order, so that many rows may be computed expert by expert.
    """
    mode = bank.packing
    if mode is None or ascending or x.shape[0] > PAIRS_MAX:
        return expert_rows_stock(x, slots, bank, sharing, ascending)
    return EXPERT_ROWS[mode].best()(x, slots, bank, sharing)


def expert_mlp_metal(x: mx.array, slots: mx.array, weights: mx.array, bank: ExpertBank) -> mx.array:
    """Two dispatches, each weight in use read once. At most 8 rows; a row's result does not depend on the others."""
    if x.shape[0] > ROWS_MAX:
        raise ValueError(f"{x.shape[0]} rows: the decode kernels take {ROWS_MAX}")
    return _launch(x, slots, weights, bank, x.shape[0], x.dtype)


def expert_rows_metal(x: mx.array, slots: mx.array, bank: ExpertBank, sharing: int = 1) -> mx.array:
    """The same two dispatches without the sum; the same bits before it."""
    return _launch(x, slots[:, None], None, bank, min(sharing, ROWS_MAX), mx.float32)


def _launch(
    x: mx.array, slots: mx.array, weights: mx.array | None, bank: ExpertBank, sharing: int, dtype: mx.Dtype
) -> mx.array:
    """slots [M, K]; without weights each is 1."""
    (M, H), K = x.shape, slots.shape[1]
    I = bank.gate_up.weight.shape[1] // 2  # noqa: E741
    if M * K > PAIRS_MAX:
        raise ValueError(f"{M * K} pairs of a row and an expert: the decode kernels take {PAIRS_MAX}")
    template = {
        "T": dtype,
        "MODE": MODES[bank.gate_up.mode],
        "H": H,
        "I": I,
        "K": K,
        "R": 1 << (sharing - 1).bit_length(),  # pairs served by one read of a weight: 1, 2, 4, 8
        "WORDS": -(-M * K // SIMD),
        "WEIGHTED": weights is not None,
        "ROWS": ROWS,
    }
    (h,) = launch(
        "expert_mlp",
        "expert_gate_up",
        inputs={"x": x, "slots": slots} | _tensors(bank.gate_up),
        outputs={"h": ((M * K, I), mx.float32)},
        template=template,
        grid=(32, I // ROWS, M * K),
        threadgroup=(32, SIMDGROUPS, 1),
    )
    (y,) = launch(
        "expert_mlp",
        "expert_down",
        inputs={"h": h, "slots": slots, "weights": h if weights is None else weights} | _tensors(bank.down),
        outputs={"y": ((M, H), dtype)},
        template=template,
        grid=(32, H // ROWS, 1),
        threadgroup=(32, SIMDGROUPS, 1),
    )
    return y


def _tensors(stack: Stack) -> dict[str, mx.array | None]:
    # biases are not read unless the mode has them
    return {"w": stack.weight, "scales": stack.scales, "biases": stack.scales if stack.biases is None else stack.biases}


def expert_mlp_reference(x: mx.array, slots: mx.array, weights: mx.array, bank: ExpertBank) -> mx.array:
    """MLX operations on float32 activations: MLX's CPU sums are exact to rounding in no other type."""
    return expert_mlp_stock(x.astype(mx.float32), slots, weights, bank).astype(x.dtype)


def expert_mlp_stock(x: mx.array, slots: mx.array, weights: mx.array, bank: ExpertBank) -> mx.array:
    """MLX operations in x's own type; many rows are grouped by expert, which reads each expert once."""
    M, K = slots.shape
    if M * K < SORT_FROM:
        y = bank.mlp(x[:, None, None], slots)[:, :, 0]
    else:
        order = mx.argsort(slots.flatten())
        y = bank.mlp(x[order // K][:, None], slots.flatten()[order], sorted_slots=True)[:, 0]
        y = y[mx.argsort(order)].reshape(M, K, -1)
    return weighted_sum(y, weights).astype(x.dtype)  # [M, H]


def expert_rows_reference(x: mx.array, slots: mx.array, bank: ExpertBank, sharing: int = 1) -> mx.array:
    """MLX operations on float32 activations."""
    return expert_rows_stock(x.astype(mx.float32), slots, bank)


def expert_rows_stock(
    x: mx.array, slots: mx.array, bank: ExpertBank, sharing: int = 1, ascending: bool = False
) -> mx.array:
    """MLX operations in x's own type."""
    return bank.mlp(x[:, None], slots, ascending)[:, 0].astype(mx.float32)


def weighted_sum(y: mx.array, weights: mx.array) -> mx.array:
    """y [M, K, H] and weights float32 [M, K] -> float32 [M, H], added up in the order of k: the same bits however the
    experts were computed."""
    return (y.astype(mx.float32) * weights[..., None]).sum(axis=1)


def trial_cases(mode: str) -> list[tuple[mx.array, mx.array, mx.array, ExpertBank]]:
    """Arguments of the real sizes, 16 slots; for trials and benchmarks."""
    bank, cases = random_bank(mode, 16, 4096, 1024), []
    for M in (4, 1):
        x = mx.random.normal((M, 4096), key=mx.random.key(M)).astype(mx.bfloat16)
        slots = mx.argsort(mx.random.uniform(shape=(M, 16), key=mx.random.key(1)), axis=-1)[:, :10].astype(mx.uint32)
        weights = mx.softmax(mx.random.normal((M, 10), key=mx.random.key(2)), axis=-1)
        cases.append((x, slots, weights, bank))
    return cases


def _row_cases(mode: str) -> list[tuple[mx.array, mx.array, ExpertBank, int]]:
    return [(mx.repeat(x, 10, axis=0), slots.flatten(), bank, len(x)) for x, slots, _, bank in trial_cases(mode)]


# One rounding to bfloat16; MLX's own operations round the activations between too.
TOLERANCE = 3e-2
EXPERTS = {
    mode: Operation(
        name=f"expert_mlp.{mode}",
        reference=expert_mlp_reference,
        ours=expert_mlp_metal,
        cases=partial(trial_cases, mode),
        tolerance=TOLERANCE,
        stock={"mlx": expert_mlp_stock},
    )
    for mode in MODES
}
EXPERT_ROWS = {
    mode: Operation(
        name=f"expert_rows.{mode}",
        reference=expert_rows_reference,
        ours=expert_rows_metal,
        cases=partial(_row_cases, mode),
        tolerance=TOLERANCE,
        stock={"mlx": expert_rows_stock},
    )
    for mode in GROUPS
}
