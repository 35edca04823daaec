"""A sweep: all routed experts of one layer over many tokens, every expert read at most once.

Tokens by expert instead of experts by token: the layer's experts pass in ascending order through two groups of scratch
slots, one being read while the other computes, joined by those that are in the bank already. Every token adds up its
experts in ascending order, so that the sum is the same, to the bit, whatever was in memory.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from .bank import LayerBank
from .policy import admit
from .slots import Slots
from .source import Batch

ROWS = 2048  # (token, expert) pairs computed at once: bounds the temporaries
Apply = Callable[[Slots, mx.array, np.ndarray], mx.array]  # (slots, rows [R, H], ascending slot ids [R]) -> [R, H]


@dataclass(frozen=True, slots=True)
class Group:
    """Experts low..high (positions among the distinct ones) and where they are: in bank slots, or in scratch."""

    low: int
    high: int
    direct: tuple[tuple[int, int], ...]  # (expert, free bank slot): read to stay
    scratch: tuple[int, ...]  # read into scratch slots 0, 1, 2, …


def grouped(
    experts: np.ndarray, counts: np.ndarray, cached: np.ndarray, direct: dict[int, int], slots: int, rows: int = ROWS
) -> list[Group]:
    """Distinct ascending `experts`, used `counts` times each, as groups that need at most `slots` scratch slots and,
    but for a single expert with more, at most `rows` rows. Pure."""
    groups, low, used = [], 0, 0
    stay: list[tuple[int, int]] = []
    through: list[int] = []
    for at, expert in enumerate(experts.tolist()):
        missing = not cached[expert] and expert not in direct
        if at > low and (used + counts[at] > rows or (missing and len(through) == slots)):
            groups.append(Group(low, at, tuple(stay), tuple(through)))
            low, used, stay, through = at, 0, [], []
        if missing:
            through.append(expert)
        elif expert in direct:
            stay.append((expert, direct[expert]))
        used += int(counts[at])
    groups.append(Group(low, len(experts), tuple(stay), tuple(through)))
    return groups


def sweep(
    x: mx.array,
    ids: np.ndarray,
    scores: mx.array,
    logits: np.ndarray,
    bank: LayerBank,
    scratch: tuple[Slots, Slots],
    apply: Apply,
) -> mx.array:
    """x [N, H] through experts ids [N, K] (ascending in each row), summed with scores [N, K] -> float32 [N, H].

    `logits` [n, E] of the last tokens' router say who stays.
    """
    N, K = ids.shape
    order = np.argsort(ids.ravel(), kind="stable")  # pairs by expert, then by token
    experts, first, counts = np.unique(ids.ravel()[order], return_index=True, return_counts=True)
    bounds = np.append(first, N * K)
    bank.drain()
    _retire(bank, scratch)
    bank.warm(logits)
    cached = bank.slot_of >= 0
    bank.counters.hits += int(cached[experts].sum())
    bank.counters.misses += int((~cached[experts]).sum())
    direct, moves = _admissions(bank, experts, cached)
    groups = grouped(experts, counts, cached, direct, scratch[0].count)
    acc = mx.zeros((N, x.shape[1]), dtype=mx.float32)
    flat = scores.reshape(-1)
    flying = [_read(bank, groups[0], scratch[0])]
    try:
        for at, group in enumerate(groups):
            mx.eval(acc)  # the group before is done: its scratch may be written, its victims may go
            _retire(bank, scratch)
            if at:
                moves.settle(bank, groups[at - 1], scratch[(at - 1) % 2])
            if at + 1 < len(groups):
                flying.append(_read(bank, groups[at + 1], scratch[(at + 1) % 2]))
            bank.waited(flying[0])
            flying.pop(0)
            for expert, slot in group.direct:
                bank.publish(expert, slot)
            pairs = order[bounds[group.low] : bounds[group.high]]
            acc = _add(acc, x, ids, flat, pairs, bank, group, scratch[at % 2], apply)
            mx.async_eval(acc)
            moves.used(experts[group.low : group.high])
        mx.eval(acc)
        _retire(bank, scratch)
        moves.settle(bank, groups[-1], scratch[(len(groups) - 1) % 2])
    except BaseException:
        for batch in flying:  # they write into memory that the next sweep will use
            batch.done.wait()
        mx.eval(acc)  # and this reads from it
        raise
    return acc


def _retire(bank: LayerBank, scratch: tuple[Slots, Slots]) -> None:
    for slots in (bank.slots, *scratch):
        slots.retire()


def _read(bank: LayerBank, group: Group, scratch: Slots) -> Batch:
    return bank.read(
        [(e, bank.slots, s) for e, s in group.direct] + [(e, scratch, s) for s, e in enumerate(group.scratch)]
    )


def _add(
    acc: mx.array,
    x: mx.array,
    ids: np.ndarray,
    scores: mx.array,
    pairs: np.ndarray,
    bank: LayerBank,
    group: Group,
    scratch: Slots,
    apply: Apply,
) -> mx.array:
    """acc plus the contributions of these pairs (flat positions in ids, by ascending expert)."""
    K = ids.shape[1]
    expert = ids.ravel()[pairs]
    place = np.full(bank.layout.experts, -1, np.int32)
    place[list(group.scratch)] = np.arange(len(group.scratch))
    outputs, sources = [], []
    for slots, where in ((bank.slots, bank.slot_of), (scratch, place)):
        chosen = np.flatnonzero(where[expert] >= 0 if slots is scratch else place[expert] < 0)
        if len(chosen):
            chosen = chosen[np.argsort(where[expert[chosen]], kind="stable")]  # gather_qmm wants ascending slots
            rows = x[mx.array((pairs[chosen] // K).astype(np.uint32))]
            outputs.append(apply(slots, rows, where[expert[chosen]].astype(np.uint32)))
            sources.append(chosen)
    computed = np.concatenate(sources)
    y = mx.concatenate(outputs) if len(outputs) > 1 else outputs[0]  # [R, H]
    y = y.astype(mx.float32) * scores[mx.array(pairs[computed].astype(np.uint32))][:, None]
    row_of = np.empty(len(pairs), np.int64)
    row_of[computed] = np.arange(len(pairs))
    # A token with several experts in this group adds them in ascending order: one round each, all tokens distinct.
    for chosen in rounds(pairs // K):
        tokens = mx.array((pairs[chosen] // K).astype(np.uint32))
        acc = acc.at[tokens].add(y[mx.array(row_of[chosen].astype(np.uint32))])
    return acc


def rounds(tokens: np.ndarray) -> Iterator[np.ndarray]:
    """Positions of each token's first, second, … occurrence, in order. Pure."""
    order = np.argsort(tokens, kind="stable")
    ranked = tokens[order]
    start = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1]))
    rank = np.arange(len(tokens)) - np.repeat(start, np.diff(np.append(start, len(tokens))))
    for r in range(int(rank.max(initial=-1)) + 1):
        yield np.sort(order[rank == r])


class _Moves:
    """Hot experts that take over colder ones' slots as the sweep passes: an expert can take the slot of one whose last
    use in the sweep is behind it."""

    def __init__(self, incoming: set[int], outgoing: set[int], unused: Sequence[int]):
        self._incoming, self._outgoing = incoming, outgoing
        self._ready = list(unused)

    def used(self, experts: np.ndarray) -> None:
        self._ready += [e for e in experts.tolist() if e in self._outgoing]

    def settle(self, bank: LayerBank, group: Group, scratch: Slots) -> None:
        """Copy what stays out of a group's scratch; its outputs have been waited for."""
        for scratch_slot, expert in enumerate(group.scratch):
            if expert in self._incoming and self._ready:
                bank.adopt(expert, int(bank.slot_of[self._ready.pop(0)]), scratch, scratch_slot)


def _admissions(bank: LayerBank, experts: np.ndarray, cached: np.ndarray) -> tuple[dict[int, int], _Moves]:
    """Free bank slots for the hottest missing experts, and who may displace whom during the sweep."""
    missing = [e for e in experts.tolist() if not cached[e]]
    empty = [int(slot) for slot in np.flatnonzero(bank.expert_in < 0)]
    taken = admit(bank.heat, cached, np.zeros_like(cached), missing, len(empty)).taken
    free = iter(empty)
    direct = {expert: next(free) for expert, victim in taken if victim < 0}
    outgoing = {victim for _, victim in taken if victim >= 0}
    unused = sorted(outgoing - set(experts.tolist()))
    return direct, _Moves({e for e, victim in taken if victim >= 0}, outgoing, unused)
