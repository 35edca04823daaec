"""How far to guess ahead: decided by costs and acceptance that are made up here."""

from random import Random

import pytest

from qwen35_local.backends.pace import RETRY, TRIES, Pace


def driven(pace: Pace, costs: list[float], right: float, passes: int, seed: int = 0) -> list[int]:
    """Depths chosen when a pass with d guesses costs costs[d] and each guess is right this often."""
    rng, depths = Random(seed), []
    for _ in range(passes):
        depth = pace.depth()
        depths.append(depth)
        pace.passed(depth, costs[depth])
        for place in range(depth):
            hit = rng.random() < right
            pace.judged(place, hit)
            if not hit:
                break
    return depths


def test_cheap_good_guesses_are_made_as_deep_as_allowed():
    pace = Pace(3)
    driven(pace, [1, 1.1, 1.2, 1.3], 0.95, 200)
    assert pace.best() == 3
    assert pace.report()["tokens_per_pass"] > 3


@pytest.mark.parametrize("costs", [[1, 2, 3, 4], [1, 1.9, 2.9, 3.9]])
def test_guesses_that_cost_as_much_as_tokens_are_not_made(costs):
    """As with streamed experts whose union grows with every token."""
    pace = Pace(3)
    depths = driven(pace, costs, 0.8, 600)
    assert pace.best() == 0
    assert depths[4 * TRIES :].count(0) > 0.95 * len(depths[4 * TRIES :])


def test_one_guess_where_one_pays():
    pace = Pace(3)
    driven(pace, [1, 1.2, 2.2, 3.4], 0.7, 400)
    assert pace.best() == 1


def test_wrong_guesses_are_given_up_and_tried_again():
    pace = Pace(2)
    driven(pace, [1, 1.1, 1.2], 0.02, 300)
    assert pace.best() == 0
    later = driven(pace, [1, 1.1, 1.2], 0.95, 20 * RETRY, seed=1)  # from prose to a table, say
    assert pace.best() == 2
    assert 0 in later
    assert 2 in later


def test_a_fixed_depth_is_kept():
    assert set(driven(Pace(2, fixed=True), [1, 9, 9], 0.0, 50)) == {2}


def test_expected_tokens():
    pace = Pace(2)
    for _ in range(300):
        pace.judged(0, True)
        pace.judged(1, False)
    assert pace.tokens(0) == 1
    assert pace.tokens(1) == pytest.approx(2, abs=0.01)
    assert pace.tokens(2) == pytest.approx(2, abs=0.02)
