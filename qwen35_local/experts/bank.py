"""A layer's slots: which experts are in memory, what to read for a token, and when a slot may be written.

`plan` is a value and changes nothing; `commit` acts on it: it takes the victims out of the map, starts the reads, and
puts an expert into the map only when all of its bytes are in its slot.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np

from .flights import ExpertPlan, Flight, Guess
from .layout import LayerLayout
from .policy import Admission, admit, warm
from .slots import Slots
from .source import Batch, Source
from .telemetry import LayerCounters


@dataclass
class LayerBank:
    """One layer's experts, `slots.count` of them in memory."""

    layout: LayerLayout
    slots: Slots
    source: Source
    counters: LayerCounters = field(default_factory=LayerCounters)
    generation: int = 0

    def __post_init__(self) -> None:
        self._empty()
        self.heat = np.zeros(self.layout.experts)
        self._guesses: dict[int, Guess] = {}
        self._arrived: set[int] = set()  # guesses published and not yet used

    def _empty(self) -> None:
        self.slot_of = np.full(self.layout.experts, -1, np.int32)
        self.expert_in = np.full(self.slots.count, -1, np.int32)

    @property
    def complete(self) -> bool:
        """Whether every expert is in memory, in the slot of its own number: no router needs to be waited for."""
        return self.slots.count == self.layout.experts

    def plan(self, experts: Sequence[int]) -> ExpertPlan:
        """How to serve these distinct experts now. Decides nothing that `commit` does not do."""
        self.settle()
        hits, joined, missing = [], [], []
        for expert in sorted(experts):
            if (slot := int(self.slot_of[expert])) >= 0:
                hits.append((expert, slot))
            elif expert in self._guesses:
                joined.append((expert, self._guesses[expert].slot))
            else:
                missing.append(expert)
        admission, slots = self._place(missing, experts)
        return ExpertPlan(
            self.generation,
            tuple(hits),
            tuple(joined),
            tuple(slots),
            tuple(victim for _, victim in admission.taken),
            admission.passed,
        )

    def _place(self, missing: Sequence[int], busy_experts: Sequence[int]) -> tuple[Admission, list[tuple[int, int]]]:
        """(expert, slot) for those of `missing` that get one, and who gave way."""
        busy = np.zeros(self.layout.experts, bool)
        busy[list(busy_experts)] = True
        loading = {guess.slot for guess in self._guesses.values()}
        empty = [int(s) for s in np.flatnonzero(self.expert_in < 0) if int(s) not in loading] if missing else []
        admission = admit(self.heat, self.slot_of >= 0, busy, missing, len(empty))
        free = iter(empty)
        return admission, [
            (expert, next(free) if victim < 0 else int(self.slot_of[victim])) for expert, victim in admission.taken
        ]

    def warm(self, logits: np.ndarray) -> None:
        """Tokens were routed with logits [tokens, E]; comes before `plan`, which weighs them."""
        warm(self.heat, logits)

    def commit(self, plan: ExpertPlan, scratch: Slots | None = None) -> list[Flight]:
        """Start the plan's reads; `plan.passed[i]` goes to slot i of `scratch`. The plan must be the latest.

        Returns everything that is under way, guesses that are joined included, in the order in which it should come.
        """
        if plan.generation != self.generation:
            raise AssertionError(f"plan of generation {plan.generation}, the bank is at {self.generation}")
        self.slots.retire()
        if plan.passed and scratch is not None:
            scratch.retire()
        self.generation += 1
        flights = [Flight(e, self.slots, slot, self._guesses[e].batch) for e, slot in plan.joined]
        for flight in reversed(flights):
            self.source.hurry(flight.batch)
        for (expert, slot), victim in zip(plan.misses, plan.victims, strict=True):
            self._vacate(victim, slot)
            flights.append(self._depart(expert, self.slots, slot))
        for slot, expert in enumerate(plan.passed):
            assert scratch is not None
            flights.append(self._depart(expert, scratch, slot))
        self.counters.hits += len(plan.hits)
        used = len(plan.joined) + len(self._arrived & {expert for expert, _ in plan.hits})
        self.counters.useful += used
        self.source.counters.guesses_used += used
        self._arrived.clear()
        self.counters.joined += len(plan.joined)
        self.counters.misses += len(plan.misses) + len(plan.passed)
        return flights

    def _depart(self, expert: int, slots: Slots, slot: int) -> Flight:
        batch = self.source.submit(self._targets(slots, expert, slot))
        slots.writing(batch)
        self.counters.nbytes += batch.nbytes
        return Flight(expert, slots, slot, batch)

    def arrivals(self, flights: Sequence[Flight]) -> Iterator[list[Flight]]:
        """The flights as they arrive, published: waits for the next, and takes all that are there by then. A failed one
        is not published, and its error is raised."""
        left = list(flights)
        while left:
            self.waited(left[0].batch)
            landed = [flight for flight in left if flight.batch.ready]
            left = [flight for flight in left if flight not in landed]
            for flight in landed:
                flight.batch.wait()
                self._guesses.pop(flight.expert, None)
                if flight.slots is self.slots:
                    self.publish(flight.expert, flight.slot)
            yield landed

    def finish(self, flights: Sequence[Flight]) -> None:
        """Wait for everything that a commit started."""
        for _ in self.arrivals(flights):
            pass

    def guess(self, experts: Sequence[int], most: int) -> int:
        """Start reading up to `most` of these experts, which may be needed soon, into the coldest slots."""
        self.settle()
        missing = [e for e in experts if self.slot_of[e] < 0 and e not in self._guesses][:most]
        if not missing:
            return 0
        heat = self.heat.copy()
        heat[missing] = heat.max() + 1.0  # or a guess would never be warmer than what is there
        busy = np.zeros(self.layout.experts, bool)
        busy[list(experts)] = True
        loading = {guess.slot for guess in self._guesses.values()}
        empty = [int(s) for s in np.flatnonzero(self.expert_in < 0) if int(s) not in loading]
        taken = admit(heat, self.slot_of >= 0, busy, missing, len(empty)).taken
        if not taken:
            return 0
        self.slots.retire()
        self.generation += 1
        for expert, victim in taken:
            slot = empty.pop(0) if victim < 0 else int(self.slot_of[victim])
            self._vacate(victim, slot)
            batch = self.source.submit(self._targets(self.slots, expert, slot), urgent=False)
            self.counters.nbytes += batch.nbytes
            self._guesses[expert] = Guess(slot, batch)
        self.counters.guessed += len(taken)
        return len(taken)

    def fill(self, experts: Sequence[int]) -> None:
        """Read these experts into slots 0, 1, 2, … of an empty bank, and wait."""
        self._read_to_stay(list(enumerate(experts)))

    def _read_to_stay(self, places: Sequence[tuple[int, int]]) -> None:
        """Read (slot, expert)s into free slots, and wait."""
        self.slots.retire()
        for i in range(0, len(places), 16):  # few enough views at a time to cost no memory
            part = places[i : i + 16]
            batch = self.source.submit([t for slot, e in part for t in self._targets(self.slots, e, slot)])
            batch.wait()
            self.counters.nbytes += batch.nbytes
            for slot, expert in part:
                self.publish(expert, slot)

    def resize(self, count: int) -> None:
        """So many slots from now on; the hottest experts stay. For a moment both the old and the new memory exist."""
        self.drain()
        self.slots.retire()
        old, slot_of = self.slots, self.slot_of
        stay = sorted(np.flatnonzero(slot_of >= 0).tolist(), key=lambda e: -self.heat[e])[:count]
        self.slots = Slots(old.parts, count)
        self.generation += 1
        self._empty()
        for slot, expert in enumerate(stay):
            slot = expert if self.complete else slot
            self.slots.copy(slot, old, int(slot_of[expert]))
            self.publish(expert, slot)
        if self.complete:
            self._read_to_stay([(e, e) for e in range(count) if self.slot_of[e] < 0])

    def adopt(self, expert: int, slot: int, scratch: Slots, scratch_slot: int) -> None:
        """Take an expert over from scratch into a slot whose readers are done."""
        self.slots.retire()
        self.generation += 1
        self._vacate(int(self.expert_in[slot]), slot)
        self.slots.copy(slot, scratch, scratch_slot)
        self.publish(expert, slot)

    def read(self, places: Sequence[tuple[int, Slots, int]]) -> Batch:
        """Start reading (expert, memory, slot)s into slots that no graph reads and no map names."""
        batch = self.source.submit([t for e, slots, slot in places for t in self._targets(slots, e, slot)])
        self.counters.nbytes += batch.nbytes
        return batch

    def waited(self, batch: Batch) -> None:
        """Wait for a batch; the time is stall."""
        start = perf_counter()
        batch.wait()
        self.counters.stall += perf_counter() - start

    def settle(self) -> None:
        """Publish guesses that have arrived; forget those that failed (a demand will say why). Reads that were left
        behind by an error end first: their slots count as empty."""
        self.slots.written()
        for expert in [e for e, guess in self._guesses.items() if guess.batch.ready]:
            guess = self._guesses.pop(expert)
            if guess.batch.error is None:
                self.publish(expert, guess.slot)
                self._arrived.add(expert)

    def drain(self) -> None:
        """Wait until nothing is being read into the slots."""
        for guess in self._guesses.values():
            guess.batch.done.wait()
        self.settle()

    def _targets(self, slots: Slots, expert: int, slot: int):
        return slots.targets(slot, self.layout.extents(expert), f"expert {expert} of {self.layout.name}")

    def _vacate(self, victim: int, slot: int) -> None:
        if victim >= 0:
            assert self.slot_of[victim] == slot
            self.slot_of[victim] = -1
        self.expert_in[slot] = -1

    def publish(self, expert: int, slot: int) -> None:
        """The slot holds the expert, all of it."""
        self.slot_of[expert], self.expert_in[slot] = slot, expert
