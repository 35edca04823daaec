"""The pure halves of a sweep."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen35_local.experts.prefill import grouped, rounds


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), max_size=60))
def test_rounds_cover_everything_once_and_no_round_repeats_a_token(tokens):
    tokens = np.array(tokens, np.int64)
    seen: list[int] = []
    order: dict[int, list[int]] = {}
    for chosen in rounds(tokens):
        assert len(set(tokens[chosen])) == len(chosen)
        for at in chosen.tolist():
            order.setdefault(int(tokens[at]), []).append(at)
        seen += chosen.tolist()
    assert sorted(seen) == list(range(len(tokens)))
    assert all(positions == sorted(positions) for positions in order.values()), "a token's experts must ascend"


@settings(deadline=None)
@given(
    st.sets(st.integers(0, 31), min_size=1).flatmap(
        lambda experts: st.tuples(
            st.just(sorted(experts)),
            st.lists(st.integers(1, 40), min_size=len(experts), max_size=len(experts)),
            st.sets(st.integers(0, 31)),
            st.integers(0, 5),
        )
    ),
    st.integers(1, 4),
)
def test_groups_cover_the_experts_in_order_within_their_bounds(drawn, slots):
    experts, counts, cached, free = drawn
    in_bank = np.zeros(32, bool)
    in_bank[list(cached)] = True
    missing = [e for e in experts if not in_bank[e]]
    direct = {e: 100 + i for i, e in enumerate(missing[:free])}
    groups = grouped(np.array(experts), np.array(counts), in_bank, direct, slots, rows=50)
    assert [group.low for group in groups] == [0, *(group.high for group in groups[:-1])]
    assert groups[-1].high == len(experts)
    for group in groups:
        assert len(group.scratch) <= slots
        assert sum(counts[group.low : group.high]) <= 50 or group.high == group.low + 1
    assert sorted(e for g in groups for e in (*g.scratch, *(e for e, _ in g.direct))) == missing
