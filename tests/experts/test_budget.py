"""Plans: the arithmetic of the released model, never over the budget, refused below the floor with both numbers."""

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen35_local.errors import MemoryPlanError, UsageError
from qwen35_local.experts.budget import default_budget, parse_memory, plan, spread
from qwen35_local.experts.host import available_memory, container_room, mac_available, total_memory
from qwen35_local.experts.machines import MACHINES, hit_rate, predict, predict_sweep
from qwen35_local.experts.released import RELEASED_397B
from qwen35_local.experts.sight import Sight
from qwen35_local.experts.telemetry import Totals


def test_the_released_model():
    assert RELEASED_397B.expert_nbytes == 6_684_672
    assert RELEASED_397B.token_nbytes == 4_010_803_200
    assert RELEASED_397B.experts_nbytes == 205_353_123_840
    assert 5.0e9 < RELEASED_397B.trunk_nbytes < 5.6e9
    assert RELEASED_397B.kv_per_token == 30_720


@settings(max_examples=60, deadline=None)
@given(st.integers(8 * 10**9, 260 * 10**9), st.integers(1, 262144), st.booleans())
def test_a_plan_keeps_its_budget_and_wastes_little(budget, context, metal):
    try:
        chosen = plan(RELEASED_397B, budget, context, metal=metal)
    except MemoryPlanError:
        assert budget < 25 * 10**9
        return
    assert chosen.total <= budget
    assert chosen.total == sum(size for _, size in chosen.items())
    assert chosen.resident or budget - chosen.total < 60 * RELEASED_397B.expert_nbytes
    assert chosen.resident == (chosen.group == 0)
    assert all(1 <= n <= 512 for n in chosen.slots)
    assert chosen.resident or chosen.group >= 10, "a token's experts fit one group, so no budget is too small for it"


def test_more_memory_is_never_fewer_slots():
    slots = [sum(plan(RELEASED_397B, gb * 10**9, 4096).slots) for gb in range(10, 250, 5)]
    assert slots == sorted(slots)


def test_the_floor_is_refused_with_both_numbers_and_what_to_change():
    with pytest.raises(
        MemoryPlanError, match=r"at least \d+\.\d\d GB with a context of 262144 tokens, and the budget"
    ) as e:
        plan(RELEASED_397B, 9 * 10**9, 262144)
    assert "9.00 GB: raise the memory budget or lower the context" in str(e.value)
    floor = float(str(e.value).split("at least ")[1].split(" GB")[0])
    plan(RELEASED_397B, int((floor + 0.01) * 1e9), 262144)


def test_the_floor_is_the_same_however_far_below_it():
    """More memory must not mean more snapshots, pictures or tokens a pass, and then too little of it."""
    small, floors = replace(RELEASED_397B, experts=16, trunk_nbytes=10**8, state_nbytes=10**6), set()
    for budget in range(10**8, 8 * 10**9, 10**7):
        try:
            plan(small, budget, 4096)
        except MemoryPlanError as refused:
            floors.add(str(refused).split(" with ")[0])
    assert len(floors) == 1


def test_a_long_prompt_is_one_pass_where_memory_allows():
    assert plan(RELEASED_397B, 16 * 10**9, 32768).pass_tokens >= 8192
    assert plan(RELEASED_397B, 64 * 10**9, 32768).pass_tokens == 16384


@given(
    st.sampled_from([10**4, 10**6, 10**8]),
    st.integers(1, 10**4),
    st.sampled_from([1024, 32768]),
    st.booleans(),
    st.integers(1, 1 << 16),
)
def test_the_floor_that_a_refusal_names_is_enough(expert_nbytes, states, context, metal, per_token):
    """Whatever more memory is spent on, snapshots and larger pictures, comes after what cannot be less."""
    sight = Sight(weights=10**6, fixed=10**6, per_token=per_token, feature=768, heads=4, tokens=16384)
    g = replace(RELEASED_397B, layers=8, experts=16, top_k=4, expert_nbytes=expert_nbytes, state_nbytes=states * 1000)
    g = replace(g, trunk_nbytes=10**7, vocab=1000, hidden=64, intermediate=64, heads=4, sight=sight)
    with pytest.raises(MemoryPlanError) as refused:
        plan(g, 1, context, metal)
    number, unit = re.search(r"at least ([\d.]+) ([MG]B)", str(refused.value)).groups()  # pyright: ignore[reportOptionalMemberAccess]
    floor = (float(number) + 0.01) * {"MB": 1e6, "GB": 1e9}[unit]
    assert min(plan(g, int(floor), context, metal).slots) >= 1


@given(st.integers(1, 80), st.integers(2, 512), st.floats(0.01, 1))
def test_spread(layers, experts, share):
    slots = max(layers, int(share * layers * experts))
    spread_out = spread(slots, layers, experts)
    assert len(spread_out) == layers
    assert sum(spread_out) <= slots
    assert max(spread_out) <= experts
    if slots < 0.8 * layers * experts:
        assert sum(spread_out) == slots
        assert max(spread_out) - min(spread_out) <= 1
    elif layers > 3 and experts > 8:
        assert experts in spread_out


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("24GB", 24 * 10**9),
        ("22.5 GiB", int(22.5 * 2**30)),
        ("800mb", 8 * 10**8),
        (12345, 12345),
        ("1T", 10**12),
        ("2g", 2 * 10**9),
    ],
)
def test_sizes(text, nbytes):
    assert parse_memory(text) == nbytes


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "24 potatoes", "1e9", True, "24GBB", "nan"])
def test_no_sizes(text):
    with pytest.raises(UsageError, match="memory must be a size like 24GB"):
        parse_memory(text)


def test_host():
    assert 0 < available_memory() <= total_memory()
    assert default_budget(100, 100) == 65
    assert default_budget(100, 20) == 18
    text = (
        "Mach Virtual Memory Statistics: (page size of 16384 bytes)\n"
        "Pages free:                               10.\nPages active: 99.\nPages inactive: 5.\nPages speculative: 2.\n"
    )
    assert mac_available(text) == 17 * 16384


def test_a_container_has_what_its_limit_leaves(tmp_path):
    assert container_room(tmp_path) > 2**60  # no such files: not in one
    for name, text in (
        ("max", "1000\n"),
        ("current", "700\n"),
        ("stat", "anon 100\ninactive_file 90\nactive_file 10\n"),
    ):
        (tmp_path / f"memory.{name}").write_text(text)
    assert container_room(tmp_path) == 400
    (tmp_path / "memory.max").write_text("max\n")
    assert container_room(tmp_path) > 2**60


def test_predictions_move_the_right_way():
    rates = [hit_rate(share / 100) for share in range(101)]
    assert rates == sorted(rates)
    assert rates[0] == 0
    assert rates[-1] == 1
    mac = MACHINES["m3-max-48"]
    chosen = plan(RELEASED_397B, 38 * 10**9, 32768, metal=True)
    cold = predict(chosen, mac.bandwidth, mac.ssd, hits=0)
    assert cold.read_per_token == RELEASED_397B.token_nbytes
    assert cold.overlapped == pytest.approx(5.5 / 4.0108, rel=0.01)
    expected = predict(chosen, mac.bandwidth, mac.ssd)
    assert cold.serial < expected.serial < expected.overlapped
    read, seconds = predict_sweep(chosen, mac.bandwidth, mac.ssd, 2048)
    assert read == pytest.approx(205.35e9, rel=0.01)
    assert seconds == pytest.approx(37.3, rel=0.01)
    resident = replace(chosen, slots=(512,) * 60)
    assert predict(resident, mac.bandwidth, mac.ssd).read_per_token == 0


def test_reports():
    before = Totals(hits=5, misses=5, nbytes=100)
    now = Totals(hits=14, misses=6, nbytes=2_000_000_100, busy=2.0, stall=0.5, guessed=3, useful=2)
    report = (now - before).report(4.0)
    assert report["hit_rate"] == 0.9
    assert report["bytes_read"] == 2_000_000_000
    assert report["read_gbps"] == 1.0
    assert report["stall_share"] == 0.125
    assert Totals().report(0)["hit_rate"] == 1.0
