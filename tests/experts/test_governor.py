"""Memory given back at once and taken again slowly; what the systems say of pressure."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen35_local.experts.governor import CALM, LEAST, LOOK, SETTLE, Elastic, Governor, after
from qwen35_local.experts.pressure import Pressure, linux_pressure, read_pressure

GB = 10**9


def meminfo(available: int) -> str:
    return f"MemTotal:       24000000 kB\nMemFree:          100000 kB\nMemAvailable:   {available} kB\n"


def psi(some: float, full: float) -> str:
    return (
        f"some avg10={some:.2f} avg60=1.00 avg300=0.00 total=1\nfull avg10={full:.2f} avg60=0.00 avg300=0.00 total=1\n"
    )


@pytest.mark.parametrize(
    ("available", "waits", "level"),
    [
        (12_000_000, "", 0),
        (12_000_000, psi(60, 40), 0),  # experts through the page cache: waiting, with plenty left
        (3_000_000, psi(5, 0), 0),
        (3_000_000, psi(15, 2), 1),
        (3_000_000, psi(50, 12), 2),
        (1_300_000, "", 1),
        (600_000, "", 2),
    ],
)
def test_levels_on_linux(available, waits, level):
    assert linux_pressure(meminfo(available), waits) == Pressure(level, available * 1024)


def test_a_system_that_says_nothing_is_no_reason_to_shrink():
    assert linux_pressure("", "") == Pressure(0)
    assert linux_pressure("MemTotal: 5 kB", psi(99, 99)) == Pressure(0)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_this_machine_answers():
    assert read_pressure().free


def test_shrinks_at_once_and_grows_slowly():
    now, said = [0.0], [Pressure(0, 9 * GB)]
    governor = Governor(8 * GB, lambda: said[0], lambda: now[0])

    def at(seconds: float, level: int, free: int = 9 * GB) -> float:
        now[0], said[0] = seconds, Pressure(level, free)  # pyright: ignore[reportArgumentType]
        return governor.share()

    assert at(0.5, 2) == 1.0, "not a second has passed"
    assert at(1.5, 1) == 0.85
    assert at(3.0, 1) == 0.85, "what was given back must show first"
    assert at(5.0, 2) == pytest.approx(0.51)
    assert at(9.0, 2) == pytest.approx(0.306)
    assert [at(13 + 4 * i, 2) for i in range(3)][-1] == LEAST
    assert at(22, 0) == LEAST
    assert at(50, 0) == LEAST, "29 seconds of calm"
    assert at(52, 0) == LEAST + 1 / 16
    assert at(60, 0) == LEAST + 1 / 16
    assert at(83, 0, GB) == LEAST + 1 / 16, "enough, but not for another step"
    assert at(85, 0) == LEAST + 2 / 16
    assert at(120, 0) == LEAST + 3 / 16
    assert [at(151 + 31 * i, 0) for i in range(12)][-1] == 1.0


@given(st.lists(st.tuples(st.floats(0, 60), st.sampled_from([0, 1, 2]), st.sampled_from([None, GB, 9 * GB]))))
def test_whatever_happens(looks):
    state, now = Elastic(), 100.0
    for wait, level, free in looks:
        now += LOOK + wait
        found = after(state, Pressure(level, free), now, 8 * GB)
        assert LEAST <= found.share <= 1
        if found.share > state.share:
            assert level == 0
            assert now - state.short >= CALM
        if found.share < state.share:
            assert level
            assert now - state.changed >= SETTLE
        state = found
