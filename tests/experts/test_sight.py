"""What seeing takes of a plan: pictures share a pass's memory, and shrink before they cost many experts."""

import pytest

from qwen35_local.experts.budget import plan
from qwen35_local.experts.released import RELEASED_397B
from qwen35_local.experts.sight import FEWEST, SCORES, Sight

SIGHT = Sight(weights=10**9, fixed=10**8, per_token=10**5, feature=8192, heads=16, tokens=16384)


def test_a_pass_lends_its_memory():
    work = 10**8 + 16384 * 10**5 + 2 * SCORES
    assert SIGHT.beyond(16384, 0, resident=False) == 10**9 + work
    assert SIGHT.beyond(16384, work, resident=False) == 10**9, "the tower lies beside what it computes"
    assert SIGHT.beyond(16384, 10**10, resident=False) == 0, "and is gone before the pass"
    assert SIGHT.beyond(16384, 10**10, resident=True) == 10**9, "unless all experts are in memory, and so does it stay"


def test_scores_of_small_pictures_are_small():
    assert SIGHT.beyond(1, 0, resident=True) == 10**9 + 10**8 + 10**5 + 2 * 16 * 16 * 4


@pytest.mark.parametrize(("left", "tokens"), [(10**12, 16384), (25 * 10**9, 8192), (10**9, FEWEST), (-1, FEWEST)])
def test_pictures_shrink_before_experts_go(left, tokens):
    assert SIGHT.chosen(32768, 0, left) == tokens


def test_no_picture_is_larger_than_the_context():
    assert SIGHT.chosen(300, 0, 10**12) == 300
    assert SIGHT.chosen(300, 0, 1) == 300


def test_the_released_model():
    """Its tower is 0.456 G parameters; a machine of 48 GB shows pictures as released, one of 16 GB smaller ones."""
    sight = RELEASED_397B.sight
    assert sight is not None
    assert sight.weights == pytest.approx(2 * 0.456e9, rel=0.005)
    large, small = (plan(RELEASED_397B, size * 10**9, 32768, metal=True) for size in (48, 16))
    assert large.picture_limit is None
    assert small.picture_limit == small.picture_tokens
    assert FEWEST <= small.picture_tokens < 16384
    assert small.total <= 16 * 10**9
    assert dict(small.items())[f"vision, pictures of {small.picture_tokens} tokens"] == small.vision
    assert small.vision >= 32768 * 4096 * 2, "features of a context full of pictures"
