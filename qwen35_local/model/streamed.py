"""Routed experts that are mostly on disk: the same arithmetic over slots, and one wait per layer to learn which."""

from collections.abc import Callable, Sequence
from functools import partial

import mlx.core as mx
import numpy as np

from metal_kernels.expert_bank import ExpertBank, Stack
from metal_kernels.expert_mlp import expert_mlp, expert_rows, weighted_sum

from ..errors import ConfigError
from ..experts.bank import LayerBank
from ..experts.layout import Part
from ..experts.lookahead import Lookahead
from ..experts.policy import MEMORY
from ..experts.prefill import sweep
from ..experts.slots import Slots
from .config import AFFINE_BITS, AFFINE_GROUPS, FP_MODES, Quantization, TextConfig
from .moe import Guess, Routed

SWEEP_FROM = 9  # tokens from which expert by expert beats token by token


class StreamedExperts:
    """The experts of one layer behind a bank. `scratch` are two groups of slots that all layers share.

    A complete bank is used like resident experts: no id is ever looked at, nothing is waited for.
    """

    def __init__(
        self, bank: LayerBank, scratch: tuple[Slots, Slots], c: TextConfig, lookahead: Lookahead | None = None
    ):
        self.bank, self.scratch = bank, scratch
        self._lookahead = lookahead
        parts = bank.layout.parts
        self._cut = sum(part.matrix == "gate_up" for part in parts)
        self._kinds = (
            _packing(parts[: self._cut], 2 * c.moe_intermediate_size, c.hidden_size, bank.layout.name),
            _packing(parts[self._cut :], c.hidden_size, c.moe_intermediate_size, bank.layout.name),
        )

        # MLX's gather_mm on a CPU takes float32 only; on Metal plain experts are used as they are.
        self._widens = self._kinds[0] is None and parts[0].dtype != "F32" and not mx.metal.is_available()

    def expecting(self) -> Callable[[Sequence[int]], None] | None:
        if self._lookahead is None or self.bank.complete or not self._lookahead.wanted(self.bank):
            return None
        return partial(self._lookahead.expect, self.bank)

    def __call__(self, routed: Routed, guess: Guess | None = None) -> mx.array:
        """-> float32 [N, H]"""
        if self.bank.complete and not self._widens:
            return expert_mlp(routed.rows, routed.ids, routed.scores, self._bank(self.bank.slots))
        # The one wait of the layer: it also retires whoever still reads this layer's slots. What does not depend on
        # the ids, the shared expert above all, computes while we look at them.
        logits = routed.logits[-MEMORY:].astype(mx.float32)
        first = [routed.ids, logits, *self.bank.slots.readers]
        mx.async_eval(*first)
        mx.async_eval(routed.scores, *([guess.ids] if guess else []), routed.shared)
        mx.eval(*first)
        self.bank.slots.readers = []
        ids = np.array(routed.ids)
        used = np.unique(ids)
        if len(ids) < SWEEP_FROM and (self.bank.slot_of[used] < 0).sum() <= self.scratch[0].count:
            self.bank.warm(np.array(logits))
            return self._token_by_token(routed, ids, used, guess)
        mx.eval(routed.shared)
        return sweep(routed.rows, ids, routed.scores, np.array(logits), self.bank, self.scratch, self.apply)

    def _token_by_token(self, routed: Routed, ids: np.ndarray, used: np.ndarray, guess: Guess | None) -> mx.array:
        """Few tokens: what is in memory computes while the rest is read, and each expert as soon as it has come. Every
        pair is a row of its own, and rows are put back in order before they are added up, so the sum does not show what
        was in memory."""
        plan = self.bank.plan(used.tolist())
        flights = self.bank.commit(plan, self.scratch[0])
        pairs, K = ids.ravel().tolist(), ids.shape[1]
        outputs: list[mx.array] = []
        order: list[int] = []

        def compute(slots: Slots, places: dict[int, int]) -> None:
            at = [i for i, expert in enumerate(pairs) if expert in places]
            if at:
                rows = routed.rows[mx.array([i // K for i in at], mx.uint32)]
                slot_ids = np.array([places[pairs[i]] for i in at], np.uint32)
                outputs.append(self.apply(slots, rows, slot_ids, sorted_slots=False))
                order.extend(at)
                mx.async_eval(outputs[-1])

        compute(self.bank.slots, dict(plan.hits))
        if guess is not None:
            guess.tell(np.array(guess.ids).tolist())
        for landed in self.bank.arrivals(flights):
            for slots in (self.bank.slots, self.scratch[0]):
                compute(slots, {flight.expert: flight.slot for flight in landed if flight.slots is slots})
        y = outputs[0]
        if len(outputs) > 1:
            y = mx.concatenate(outputs)[mx.array(np.argsort(order).astype(np.uint32))]
        return weighted_sum(y.reshape(*ids.shape, -1), routed.scores)

    def apply(self, slots: Slots, rows: mx.array, slot_ids: np.ndarray, sorted_slots: bool = True) -> mx.array:
        """Rows [R, H], each through the expert in its slot -> float32 [R, H]."""
        bank = self._bank(slots)
        if self._widens:
            bank, slot_ids = _widened(bank, slot_ids)
        sharing = int(np.bincount(slot_ids).max())
        y = expert_rows(rows, mx.array(slot_ids), bank, sharing, ascending=sorted_slots)
        slots.reading(y)
        return y

    def _bank(self, slots: Slots) -> ExpertBank:
        arrays, cut = slots.arrays, self._cut
        return ExpertBank(_stack(arrays[:cut], self._kinds[0]), _stack(arrays[cut:], self._kinds[1]))


def _stack(arrays: Sequence[mx.array], packing: Quantization | None) -> Stack:
    if packing is None:
        return Stack(arrays[0])
    weight, scales, *biases = arrays
    return Stack(weight, scales, biases[0] if biases else None, packing.mode, packing.group_size, packing.bits)


def _widened(bank: ExpertBank, slot_ids: np.ndarray) -> tuple[ExpertBank, np.ndarray]:
    """The slots in use as float32, as loading widens resident experts."""
    used, ids = np.unique(slot_ids, return_inverse=True)
    chosen = mx.array(used)
    gate_up, down = (Stack(stack.weight[chosen].astype(mx.float32)) for stack in (bank.gate_up, bank.down))
    return ExpertBank(gate_up, down), ids.astype(np.uint32)


def _packing(parts: Sequence[Part], rows: int, inputs: int, name: str) -> Quantization | None:
    """How a matrix [rows, inputs] is packed: the shapes of its parts say so (None: plain floats)."""
    weight, *rest = parts
    shape = f"{weight.name} of {name} is {weight.dtype} {list(weight.shape)}"
    if weight.shape[0] != rows:
        raise ConfigError(f"{shape}, config.json asks for {rows} rows")
    if not rest:
        if weight.shape[1] != inputs or weight.dtype not in ("F32", "F16", "BF16"):
            raise ConfigError(f"{shape}, config.json asks for floats [{rows}, {inputs}]")
        return None
    bits, group = weight.shape[1] * 32 // inputs, inputs // rest[0].shape[1]
    fitting = [q for q in _packings(bits, group, rest[0].dtype, len(rest)) if weight.shape[1] * 32 == inputs * bits]
    if not fitting or any(part.shape != (rows, inputs // group) for part in rest) or weight.dtype != "U32":
        raise ConfigError(f"{shape} with {rest[0].dtype} {rest[0].name} {list(rest[0].shape)}: no packing that MLX has")
    return fitting[0]


def _packings(bits: int, group: int, scales: str, others: int) -> list[Quantization]:
    if scales == "U8" and others == 1:
        return [Quantization(bits, group, mode) for mode, kind in FP_MODES.items() if kind == (bits, group)]  # pyright: ignore[reportArgumentType]
    if scales != "U8" and others == 2 and bits in AFFINE_BITS and group in AFFINE_GROUPS:
        return [Quantization(bits, group, "affine")]
    return []
