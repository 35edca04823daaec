"""The routed experts of a layer as stacks of matrices by slot: as many slots as experts, or fewer that are refilled."""

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

GROUPS = {"mxfp4": 32, "nvfp4": 16, "affine": 64}  # the 4-bit packings that the kernels take, and their group sizes


@dataclass(frozen=True, slots=True)
class Stack:
    """A matrix for every slot, [S, rows, inputs]: plain floats, or packed as MLX does.

    Packed, `weight` is uint32 [S, rows, inputs * bits / 32]; `scales` [S, rows, inputs / group] are uint8, or for
    affine floats with `biases` of the same shape beside them.
    """

    weight: mx.array
    scales: mx.array | None = None
    biases: mx.array | None = None
    mode: str = "plain"
    group_size: int = 0
    bits: int = 0

    def gather(self, x: mx.array, slots: mx.array, sorted_slots: bool = False) -> mx.array:
        """x [..., M, inputs] times the matrix in slots[...] -> [..., M, rows]"""
        if self.scales is None:
            turned = self.weight.swapaxes(-1, -2)
            return mx.gather_mm(x, turned, rhs_indices=slots, sorted_indices=sorted_slots).astype(x.dtype)
        return mx.gather_qmm(
            x, self.weight, self.scales, self.biases, rhs_indices=slots, transpose=True, group_size=self.group_size,
            bits=self.bits, mode=self.mode, sorted_indices=sorted_slots,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ExpertBank:
    """gate_up [S, 2 I, H], the gate's rows first, and down [S, H, I]."""

    gate_up: Stack
    down: Stack

    @property
    def packing(self) -> str | None:
        """The mode of both matrices if our kernels take it."""
        mode = self.gate_up.mode
        alike = all(
            s.mode == mode and s.bits == 4 and s.group_size == GROUPS.get(mode) for s in (self.gate_up, self.down)
        )
        return mode if alike else None

    def mlp(self, x: mx.array, slots: mx.array, sorted_slots: bool = False) -> mx.array:
        """x [..., M, H] through the experts in slots[...], in MLX operations -> [..., M, H]"""
        gate, up = mx.split(self.gate_up.gather(x, slots, sorted_slots), 2, axis=-1)
        return self.down.gather(nn.silu(gate) * up, slots, sorted_slots)


def random_bank(mode: str, S: int, H: int, I: int, seed: int = 0) -> ExpertBank:  # noqa: E741
    """A bank of random codes, with scales that give outputs of ordinary size; for trials and benchmarks."""
    keys = iter(mx.random.split(mx.random.key(seed), 4))

    def stack(rows: int, inputs: int) -> Stack:
        # two halves: randint goes through float32, which has too few bits for a whole word
        low, high = mx.random.randint(0, 1 << 16, (2, S, rows, inputs // 8), key=next(keys)).astype(mx.uint32)
        codes, shape = high << 16 | low, (S, rows, inputs // GROUPS[mode])
        if mode == "affine":
            scale = mx.random.uniform(0.002, 0.01, shape, key=next(keys))
            scales, biases = scale.astype(mx.bfloat16), (scale * -7.5).astype(mx.bfloat16)
        else:
            smallest, largest = (119, 123) if mode == "mxfp4" else (8, 24)  # about 2^-6
            scales, biases = mx.random.randint(smallest, largest, shape, key=next(keys)).astype(mx.uint8), None
        return Stack(codes, scales, biases, mode, GROUPS[mode], 4)

    return ExpertBank(stack(2 * I, H), stack(H, I))
