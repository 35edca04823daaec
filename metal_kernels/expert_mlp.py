"""The routed experts of a layer: gate and up projections, SwiGLU, down projection, weighted sum.

    y[m] = sum over k of weights[m, k] * down_s (silu(gate_s x[m]) * (up_s x[m])),  s = slots[m, k]

x [M, H], slots uint32 [M, K], weights float32 [M, K] -> y [M, H] in x's dtype. The weights live in a bank of S slots,
packed to 4 bits; as many slots as experts, or fewer that are refilled.
"""

from dataclasses import dataclass
from functools import partial

import mlx.core as mx

from .dispatch import Operation
from .launch import launch

ROWS_MAX = 8  # rows of x in one call of the decode kernels: a token, or one with its speculated followers
ROWS, SIMDGROUPS = 4, 4  # output rows of a simdgroup, simdgroups of a threadgroup; as in expert_mlp.metal
SORT_FROM = 64  # (row, expert) pairs from which grouping them by expert pays in MLX's gather_qmm
MODES = {"mxfp4": 0, "nvfp4": 1, "affine": 2}  # as in expert_mlp.metal
GROUPS = {"mxfp4": 32, "nvfp4": 16, "affine": 64}


@dataclass(frozen=True)
class ExpertBank:
    """Packed expert weights by slot: gate_up uint32 [S, 2I, H/8], gate rows first; down uint32 [S, H, I/8].

    Scales [S, rows, inputs / group] are uint8, or for affine floats with biases of the same shape beside them.
    """

    gate_up: mx.array
    gate_up_scales: mx.array
    down: mx.array
    down_scales: mx.array
    gate_up_biases: mx.array | None = None
    down_biases: mx.array | None = None
    mode: str = "mxfp4"
    group_size: int = 32
    bits: int = 4

    def has_kernel(self) -> bool:
        """Whether the decode kernels take this packing."""
        return self.bits == 4 and GROUPS.get(self.mode) == self.group_size


def expert_mlp(x: mx.array, slots: mx.array, weights: mx.array, bank: ExpertBank) -> mx.array:
    """The experts' weighted sum for every row of x."""
    if x.shape[0] <= ROWS_MAX and bank.has_kernel():
        return EXPERTS[bank.mode].best()(x, slots, weights, bank)
    return expert_mlp_stock(x, slots, weights, bank)


def expert_mlp_metal(x: mx.array, slots: mx.array, weights: mx.array, bank: ExpertBank) -> mx.array:
    """Two dispatches, each weight in use read once. At most 8 rows; a row's result does not depend on the others."""
    (M, H), K = x.shape, slots.shape[1]
    I = bank.gate_up.shape[1] // 2  # noqa: E741
    if M > ROWS_MAX:
        raise ValueError(f"{M} rows: the decode kernels take {ROWS_MAX}")
    R = 1 << (M - 1).bit_length()  # pairs served by one read of a weight: 1, 2, 4, 8
    template = {"T": x.dtype, "MODE": MODES[bank.mode], "H": H, "I": I, "K": K, "R": R, "ROWS": ROWS}
    (h,) = launch(
        "expert_mlp",
        "expert_gate_up",
        inputs={
            "x": x,
            "slots": slots,
            "w": bank.gate_up,
            "scales": bank.gate_up_scales,
            # not read unless the mode has biases
            "biases": bank.gate_up_scales if bank.gate_up_biases is None else bank.gate_up_biases,
        },
        outputs={"h": ((M * K, I), mx.float32)},
        template=template,
        grid=(32, I // ROWS, M * K),
        threadgroup=(32, SIMDGROUPS, 1),
    )
    (y,) = launch(
        "expert_mlp",
        "expert_down",
        inputs={
            "h": h,
            "slots": slots,
            "weights": weights,
            "w": bank.down,
            "scales": bank.down_scales,
            "biases": bank.down_scales if bank.down_biases is None else bank.down_biases,
        },
        outputs={"y": ((M, H), x.dtype)},
        template=template,
        grid=(32, H // ROWS, 1),
        threadgroup=(32, SIMDGROUPS, 1),
    )
    return y


def expert_mlp_reference(x: mx.array, slots: mx.array, weights: mx.array, bank: ExpertBank) -> mx.array:
    """MLX operations on float32 activations: MLX's CPU sums are exact to rounding in no other type."""
    return expert_mlp_stock(x.astype(mx.float32), slots, weights, bank).astype(x.dtype)


def expert_mlp_stock(x: mx.array, slots: mx.array, weights: mx.array, bank: ExpertBank) -> mx.array:
    """MLX operations in x's own type; many rows are grouped by expert, which reads each expert once."""
    M, K = slots.shape
    gather = partial(mx.gather_qmm, transpose=True, group_size=bank.group_size, bits=bank.bits, mode=bank.mode)
    gate_up = (bank.gate_up, bank.gate_up_scales, bank.gate_up_biases)
    down = (bank.down, bank.down_scales, bank.down_biases)
    if M * K < SORT_FROM:
        h = _swiglu(gather(x[:, None, None], *gate_up, rhs_indices=slots))
        y = gather(h, *down, rhs_indices=slots)[:, :, 0]
    else:
        order = mx.argsort(slots.flatten())
        grouped = slots.flatten()[order]
        h = _swiglu(gather(x[order // K][:, None], *gate_up, rhs_indices=grouped, sorted_indices=True))
        y = gather(h, *down, rhs_indices=grouped, sorted_indices=True)[:, 0]
        y = y[mx.argsort(order)].reshape(M, K, -1)
    return (y.astype(mx.float32) * weights[..., None]).sum(axis=1).astype(x.dtype)  # [M, H]


def _swiglu(gate_up: mx.array) -> mx.array:
    gate, up = mx.split(gate_up, 2, axis=-1)
    return gate * mx.sigmoid(gate) * up


def random_bank(mode: str, S: int, H: int, I: int, seed: int = 0) -> ExpertBank:  # noqa: E741
    """A bank of random codes, with scales that give outputs of ordinary size; for trials and benchmarks."""
    keys = iter(mx.random.split(mx.random.key(seed), 8))
    group = GROUPS[mode]

    def codes(rows: int, inputs: int) -> mx.array:
        # two halves: randint goes through float32, which has too few bits for a whole word
        low, high = mx.random.randint(0, 1 << 16, (2, S, rows, inputs // 8), key=next(keys)).astype(mx.uint32)
        return high << 16 | low

    def scales(rows: int, inputs: int) -> tuple[mx.array, mx.array | None]:
        shape = (S, rows, inputs // group)
        if mode == "affine":
            scale = mx.random.uniform(0.002, 0.01, shape, key=next(keys))
            return scale.astype(mx.bfloat16), (scale * -7.5).astype(mx.bfloat16)
        low, high = (119, 123) if mode == "mxfp4" else (8, 24)  # about 2^-6
        return mx.random.randint(low, high, shape, key=next(keys)).astype(mx.uint8), None

    gate_up_scales, gate_up_biases = scales(2 * I, H)
    down_scales, down_biases = scales(H, I)
    return ExpertBank(
        codes(2 * I, H), gate_up_scales, codes(H, I), down_scales, gate_up_biases, down_biases, mode, group
    )


def _cases(mode: str) -> list[tuple[mx.array, mx.array, mx.array, ExpertBank]]:
    bank, cases = random_bank(mode, 16, 4096, 1024), []
    for M in (4, 1):
        x = mx.random.normal((M, 4096), key=mx.random.key(M)).astype(mx.bfloat16)
        slots = mx.argsort(mx.random.uniform(shape=(M, 16), key=mx.random.key(1)), axis=-1)[:, :10].astype(mx.uint32)
        weights = mx.softmax(mx.random.normal((M, 10), key=mx.random.key(2)), axis=-1)
        cases.append((x, slots, weights, bank))
    return cases


EXPERTS = {
    mode: Operation(
        name=f"expert_mlp.{mode}",
        reference=expert_mlp_reference,
        ours=expert_mlp_metal,
        cases=partial(_cases, mode),
        tolerance=3e-2,  # one rounding to bfloat16; MLX's own ops round the activations between too
        stock={"mlx": expert_mlp_stock},
    )
    for mode in MODES
}
