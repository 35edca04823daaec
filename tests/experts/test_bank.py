"""The bank keeps its promises under random use: what a map names is there, and nobody's slot is given away."""

import errno
from threading import Event
from time import sleep

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen35_local.errors import ExpertReadError
from qwen35_local.experts.bank import LayerBank
from qwen35_local.experts.layout import LayerLayout
from qwen35_local.experts.slots import Slots
from qwen35_local.experts.source import Source


@pytest.fixture(scope="module")
def truth(layout: LayerLayout) -> list[bytes]:
    """Every expert's bytes, part after part."""
    source = Source(workers=2)
    all_of_them = Slots(layout.parts, 16)
    bank = LayerBank(layout, all_of_them, source)
    bank.fill(range(16))
    source.close()
    return [held(all_of_them, slot) for slot in range(16)]


def held(slots: Slots, slot: int) -> bytes:
    return b"".join(np.array(array[slot].view(mx.uint8)).tobytes() for array in slots.arrays)


def bank_of(layout: LayerLayout, slots: int, source: Source) -> LayerBank:
    return LayerBank(layout, Slots(layout.parts, slots), source)


def check(bank: LayerBank) -> None:
    """The two maps agree."""
    slots = np.flatnonzero(bank.expert_in >= 0)
    assert (bank.slot_of[bank.expert_in[slots]] == slots).all()
    assert (bank.slot_of >= 0).sum() == len(slots)


def serve(bank: LayerBank, scratch: Slots, experts: list[int], truth: list[bytes]) -> None:
    """One token: every expert must be readable where the plan says."""
    bank.warm(np.where(np.isin(np.arange(16), experts), 0.0, -5.0)[None])
    plan = bank.plan(experts)
    bank.finish(bank.commit(plan, scratch))
    places = [*plan.hits, *plan.joined, *plan.misses]
    assert sorted([e for e, _ in places] + list(plan.passed)) == sorted(experts)
    for expert, slot in places:
        assert held(bank.slots, slot) == truth[expert]
    for slot, expert in enumerate(plan.passed):
        assert held(scratch, slot) == truth[expert]
    check(bank)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 16),
    st.lists(
        st.tuples(st.sets(st.integers(0, 15), min_size=1, max_size=4), st.lists(st.integers(0, 15), max_size=3)),
        max_size=25,
    ),
)
def test_random_use(layout, truth, slots, steps):
    source = Source(workers=2)
    bank, scratch = bank_of(layout, slots, source), Slots(layout.parts, 4)
    for experts, guesses in steps:
        serve(bank, scratch, sorted(experts), truth)
        bank.guess(list(dict.fromkeys(guesses)), 2)
    bank.drain()
    for slot, expert in enumerate(bank.expert_in):
        assert expert < 0 or held(bank.slots, slot) == truth[expert]
    check(bank)
    source.close()


def test_a_plan_changes_nothing_and_grows_old(layout, source):
    bank = bank_of(layout, 4, source)
    plan = bank.plan([1, 2])
    assert bank.plan([1, 2]) == plan
    assert [expert for expert, _ in plan.misses] == [1, 2]
    assert plan.victims == (-1, -1)
    bank.finish(bank.commit(plan))
    with pytest.raises(AssertionError, match="plan of generation 0, the bank is at 1"):
        bank.commit(plan)
    assert bank.plan([1, 2]).hits == ((1, 0), (2, 1))


def test_a_slot_is_not_written_while_a_graph_reads_it(layout, truth, source, reader):
    """The graph is slow and under way when its expert is evicted: it must see the old bytes to its end."""
    bank = bank_of(layout, 1, source)
    serve(bank, Slots(layout.parts, 1), [5], truth)
    busy = mx.random.normal((700, 700))
    mx.eval(busy)
    late = (busy @ busy @ busy).sum() * 0
    weights = bank.slots.arrays[0][0].astype(mx.float32) + late
    bank.slots.reading(weights)
    mx.async_eval(weights)
    before = np.frombuffer(truth[5], np.uint32, weights.size).reshape(weights.shape).astype(np.float32)
    bank.heat[:] = -np.arange(16)
    bank.heat[9] = 1
    serve(bank, Slots(layout.parts, 1), [9], truth)
    assert np.array_equal(np.array(weights), before)


def test_a_failed_read_publishes_nothing_and_the_next_try_succeeds(layout, truth, source, reader):
    bank, scratch = bank_of(layout, 3, source), Slots(layout.parts, 4)
    serve(bank, scratch, [0, 1, 2], truth)
    reader.fault = lambda views, offset: OSError(errno.EIO, "Input/output error")
    with pytest.raises(ExpertReadError, match=r"of layers\.2\.mlp from model-00001-of-00002\.safetensors"):
        serve(bank, scratch, [7, 8, 9], truth)
    assert not (bank.slot_of[[7, 8, 9]] >= 0).any()
    check(bank)
    reader.fault = lambda views, offset: None
    serve(bank, scratch, [7, 8, 9], truth)


def test_reads_left_behind_by_an_error_end_before_their_slots_are_used_again(layout, truth, source, reader):
    bank, scratch = bank_of(layout, 2, source), Slots(layout.parts, 4)
    bank.commit(bank.plan([3, 4]), scratch)  # and the caller fails before `finish`
    serve(bank, scratch, [5, 6], truth)


def test_nobody_writes_into_scratch_that_an_abandoned_layer_still_reads_into(layout, truth, source, reader):
    """Layers share scratch. One fails with slow reads under way; the next pass begins with another layer."""
    slow, scratch = bank_of(layout, 1, source), Slots(layout.parts, 4)
    serve(slow, scratch, [0], truth)
    slow.heat[0] = 9
    begun = Event()
    reader.fault = lambda views, offset: begun.set() or sleep(0.1)
    slow.commit(slow.plan([3, 4]), scratch)  # through scratch: neither is hotter than what is there
    begun.wait()
    reader.fault = lambda views, offset: None
    other = bank_of(layout, 1, source)
    serve(other, scratch, [0], truth)
    other.heat[0] = 9
    plan = other.plan([5, 6])
    assert plan.passed == (5, 6)
    other.finish(other.commit(plan, scratch))
    sleep(0.3)
    assert [held(scratch, 0), held(scratch, 1)] == [truth[5], truth[6]]


def test_a_failed_guess_is_forgotten(layout, truth, source, reader):
    bank = bank_of(layout, 4, source)
    reader.fault = lambda views, offset: OSError(errno.EIO, "Input/output error")
    assert bank.guess([3, 4, 5], 2) == 2
    bank.drain()
    reader.fault = lambda views, offset: None
    serve(bank, Slots(layout.parts, 4), [3, 4], truth)
    assert bank.counters.useful == 0


def test_a_used_guess_is_counted(layout, truth, source):
    bank = bank_of(layout, 4, source)
    bank.guess([3, 4], 2)
    serve(bank, Slots(layout.parts, 4), [3, 7], truth)
    assert (bank.counters.guessed, bank.counters.useful) == (2, 1)
    assert bank.counters.hits + bank.counters.joined == 1


def test_memory_is_written_in_place(layout, truth, source):
    """The address never moves: views are taken once, for life."""
    bank = bank_of(layout, 4, source)
    address = [np.asarray(array.view(mx.uint8)).__array_interface__["data"][0] for array in bank.slots.arrays]
    for round in range(10):
        serve(bank, Slots(layout.parts, 4), [round % 16, (round + 5) % 16], truth)
    again = [np.asarray(array.view(mx.uint8)).__array_interface__["data"][0] for array in bank.slots.arrays]
    assert address == again


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 16), st.sets(st.integers(0, 15), min_size=1, max_size=4)), max_size=6))
def test_resizing_keeps_the_hottest_and_their_bytes(layout, truth, steps):
    source = Source(workers=2)
    bank, scratch = bank_of(layout, 6, source), Slots(layout.parts, 4)
    for count, experts in steps:
        serve(bank, scratch, sorted(experts), truth)
        bank.guess([15, 0], 2)
        before = np.flatnonzero(bank.slot_of >= 0)
        bank.resize(count)
        stay = np.flatnonzero(bank.slot_of >= 0)
        assert bank.slots.count == count
        assert bank.slots.nbytes == count * layout.expert_nbytes
        if count < len(before):
            assert len(stay) == count
            assert bank.heat[stay].min() >= max((bank.heat[e] for e in before if e not in stay), default=-np.inf)
        if bank.complete:
            assert (bank.slot_of == np.arange(16)).all()
        for expert in stay:
            assert held(bank.slots, int(bank.slot_of[expert])) == truth[expert]
        check(bank)
    source.close()
