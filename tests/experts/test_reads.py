"""Merging and splitting: whatever the extents, each byte is read once and lands where it belongs."""

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from qwen35_local.experts import reads
from qwen35_local.experts.layout import Extent
from qwen35_local.experts.reads import Target, plan_reads

FILE = Path("a")


def targets_of(lengths: list[tuple[int, int]]) -> tuple[list[Target], bytearray]:
    """Targets of these (gap before, length), in memory back to back."""
    memory = bytearray(sum(length for _, length in lengths))
    targets, offset, at = [], 0, 0
    for gap, length in lengths:
        offset += gap
        view = memoryview(memory)[at : at + length]
        targets.append(Target(Extent(FILE, offset, length, 0, 0), view, f"expert {len(targets)}"))
        offset, at = offset + length, at + length
    return targets, memory


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0, 0, 1, 7]), st.integers(1, 300)), max_size=40),
    st.integers(1, 9),
    st.sampled_from([1, 16, 50]),
    st.randoms(),
)
def test_every_byte_once(lengths, workers, page, random):
    targets, memory = targets_of(lengths)
    end = max((t.extent.offset + t.extent.nbytes for t in targets), default=0)
    disk = bytes(random.randrange(1, 256) for _ in range(end))
    shuffled = random.sample(targets, len(targets))
    old = reads.MERGE, reads.SPLIT, reads.PAGE, reads.VECTORS
    reads.MERGE, reads.SPLIT, reads.PAGE, reads.VECTORS = 120, 30, page, 5
    try:
        planned = plan_reads(shuffled, workers)
    finally:
        reads.MERGE, reads.SPLIT, reads.PAGE, reads.VECTORS = old
    assert sum(read.nbytes for read in planned) == len(memory)
    for read in planned:
        assert 0 < len(read.views) <= 5
        assert all(len(view) for view in read.views)
        at = read.offset
        for view in read.views:
            assert not any(view), "read twice"
            view[:] = disk[at : at + len(view)]
            at += len(view)
    for target in targets:
        begin = target.extent.offset
        assert bytes(target.view) == disk[begin : begin + target.extent.nbytes]


def test_a_packed_expert_is_split_to_fill_the_queue_and_a_row_of_scales_is_one_read():
    parts = [(0, 4 << 20), (0, 256 << 10), (0, 2 << 20), (0, 128 << 10)]
    one, _ = targets_of(parts)
    assert [read.nbytes for read in plan_reads(one, 8)] == [835_584] * 8
    assert all(read.offset % reads.PAGE == 0 for read in plan_reads(one, 8))
    ten, _ = targets_of([(16 << 10 if i % 4 == 0 else 0, size) for i, (_, size) in enumerate(parts * 10)])
    assert len(plan_reads(ten, 8)) == 10
    scales, _ = targets_of([(0, 64 << 10)] * 40)
    assert len(plan_reads(scales, 2)) == 2
