"""The policy on replayed routing: near the optimum, never under LRU, no cliff when a token needs more than there is."""

import numpy as np
import pytest
from bench_policy import SYNTHETIC, belady, chosen, fitted, learned, lru, ours, synthetic, told
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen35_local.experts.policy import admit

MATCHED = [name for name in SYNTHETIC if "uniform" not in name]


@pytest.mark.parametrize("name", SYNTHETIC)
def test_against_lru_and_belady(name):
    logits, K = synthetic(name, tokens=200, layers=1)
    for share in (0.05, 0.1, 0.25, 0.5):
        slots = round(share * logits.shape[2])
        found = {run.__name__: run(logits[0], K, slots) / (200 * K) for run in (ours, lru, belady)}
        assert found["belady"] >= found["ours"] >= found["lru"] - 0.01, share
        if name in MATCHED:
            assert found["ours"] >= (0.82 if share == 0.05 else 0.85) * found["belady"], share


def test_bounds_are_between_ours_and_the_optimum():
    """Foresight of one token helps, nothing beats knowing everything, and what repeats itself can be learned."""
    rng = np.random.default_rng(0)
    cycle = rng.normal(size=(6, 16))[np.arange(120) % 6] + rng.normal(0, 0.05, (120, 16))
    for slots in (1, 2, 4, 8):
        hits = {run.__name__: run(cycle, 3, slots) for run in (ours, fitted, learned, told, belady)}
        assert hits["told"] >= hits["ours"]
        assert max(hits.values()) == hits["belady"]
        assert hits["learned"] >= 0.8 * hits["belady"]


def test_guesses_count_as_hits_when_they_are_right():
    """Two a token are read ahead: all of a token's experts, if it has two, and none that it did not ask for helps."""
    logits, K = synthetic("512 experts, top 10, nearly uniform", tokens=100, layers=1)[0][0][:, :64], 2
    likeliest = np.argsort(-logits, axis=1)[:, :K]
    assert ours(logits, K, 8, likeliest) == 100 * K
    wrong = np.argsort(logits, axis=1)[:, :K]
    assert ours(logits, K, 8, wrong) <= ours(logits, K, 8)


def test_no_cliff_below_one_token():
    """Fewer slots than a token needs: LRU over all experts finds nothing, ours keeps the favourites."""
    logits, K = synthetic("256 experts, top 8, strong skew", tokens=200, layers=1)
    assert lru(logits[0], K, 4) <= 0.05 * ours(logits[0], K, 4) + 20
    assert ours(logits[0], K, 4) >= 0.6 * belady(logits[0], K, 4)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 5))
def test_admissions_are_possible_and_never_evict_the_busy(seed, free):
    rng = np.random.default_rng(seed)
    E = 24
    heat, cached = rng.normal(size=E), rng.random(E) < 0.5
    busy = rng.random(E) < 0.4
    missing = [int(e) for e in np.flatnonzero(busy & ~cached)]
    found = admit(heat, cached, busy, missing, free)
    assert sorted([e for e, _ in found.taken] + list(found.passed)) == missing
    victims = [victim for _, victim in found.taken if victim >= 0]
    assert len(set(victims)) == len(victims)
    assert all(cached[v] and not busy[v] for v in victims)
    assert all(heat[v] < heat[e] for e, v in found.taken if v >= 0)
    assert sum(victim < 0 for _, victim in found.taken) == min(free, len(missing))


def test_the_optimum_is_the_optimum_on_a_small_case():
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(40, 8))
    ids = chosen(logits, 2)

    def best(t: int, cached: frozenset[int]) -> int:
        """By trying everything."""
        if t == 8:
            return 0
        step = set(ids[t].tolist())
        import itertools

        everything = cached | step
        keeps = itertools.combinations(sorted(everything), min(3, len(everything)))
        return len(step & cached) + max(best(t + 1, frozenset(keep)) for keep in keeps)

    assert belady(logits[:8], 2, 3) == best(0, frozenset())
