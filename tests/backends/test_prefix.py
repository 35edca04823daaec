"""Where snapshots are kept, and which one a prompt goes on from."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen35_local.backends.prefix import Landmarks, common_prefix, longest, places, survivors

TURN, USER, TOOL = 100, 101, 102
MARKS = Landmarks(TURN, USER, TOOL)
SYSTEM, ASSISTANT = 103, 104


def turn(role: int, *content: int) -> list[int]:
    return [TURN, role, *content]


def test_turns_begin_at_places_and_the_best_are_named():
    ids = [
        *turn(SYSTEM, 1, 2),
        *turn(USER, 3),  # 4
        *turn(ASSISTANT, 4, 5),  # 7: the answer to the last question begins
        *turn(USER, TOOL, 6),  # 11: a result, no question
        *turn(ASSISTANT, 7),  # 15
    ]
    found, best = places(ids, MARKS)
    assert found == [4, 7, 11, 15]
    assert best == [15, 7, 4]


def test_without_a_system_message_the_first_turn_counts():
    ids = [*turn(USER, 1), *turn(ASSISTANT, 2), *turn(USER, 3), *turn(ASSISTANT)]
    found, best = places(ids, MARKS)
    assert found == [3, 6, 9]
    assert best == [9, 3]


def test_long_messages_get_places_of_their_own():
    ids = [*turn(USER, *range(50)), *turn(ASSISTANT)]
    assert places(ids, MARKS, every=20)[0] == [20, 40, 52]
    assert places([1] * 10, MARKS, every=4) == ([4, 8], [])
    assert places([], MARKS) == ([], [])


@given(st.sets(st.integers(1, 5000), max_size=400), st.integers(1, 40), st.randoms())
def test_survivors_are_few_and_hold_the_best(found, most, random):
    best = random.sample(sorted(found), min(3, len(found)))
    kept = survivors(found, best, 5001, most)
    assert kept == sorted(set(kept))
    assert set(kept) <= found
    assert len(kept) <= most
    assert set(best[:most]) <= set(kept)
    if len(found) <= most:
        assert kept == sorted(found)


def test_survivors_thin_out_backwards():
    kept = survivors(set(range(100, 10_001, 100)), [], 10_001, 8)
    # Each as far from the end as what is lost by going back to the one before it, or so.
    lost = [(later - earlier) / (10_001 - earlier) for earlier, later in pairwise(kept)]
    assert max(lost) < 3 * min(lost)
    assert kept[-1] >= 9_800


@pytest.mark.parametrize(("common", "total", "at"), [(25, 40, 20), (20, 40, 20), (40, 20, 10), (9, 40, 0)])
def test_longest_leaves_a_token_to_read(common, total, at):
    assert longest([10, 20, 30], common, total) == at


def test_common_prefix():
    assert common_prefix([], [1]) == 0
    assert common_prefix([1, 2], [1, 2, 3]) == 2
    assert common_prefix([1, 5, 3], [1, 2, 3]) == 1
