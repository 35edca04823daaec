"""The shipped miniature answers, through our own engine."""

import pytest

import qwen35_local
from scripts.miniature.evaluate import score, with_engine
from scripts.miniature.items import HELD_OUT_SIGHTS, Item, read, some_of_each

ITEMS = some_of_each(read(), 12)
SHORT = [item for item in ITEMS if item.family not in ("needle", "tool_call", "tool_answer")]


@pytest.fixture(scope="module")
def engine():
    with qwen35_local.open("miniature") as engine:
        yield engine


def first_of_each(items: list[Item]) -> list[Item]:
    """One of each family: half of them with a thought."""
    families = sorted({item.family for item in items})
    wanted = {(family, place % 2 == 0) for place, family in enumerate(families)}
    return [item for item in some_of_each(items, 1) if (item.family, item.thinking) in wanted]


def test_it_answers_one_held_out_prompt_of_every_family(engine):
    shares = score(with_engine(engine), first_of_each(ITEMS))
    assert sum(shares.values()) >= len(shares) - 1  # 95 in 100 each, so one of nine may miss


def test_it_sees_one_held_out_picture_of_every_family(engine):
    shares = score(with_engine(engine), first_of_each(read(HELD_OUT_SIGHTS)))
    assert sum(shares.values()) >= len(shares) - 1


@pytest.mark.slow
def test_it_sees_nearly_always(engine):
    shares = score(with_engine(engine), some_of_each(read(HELD_OUT_SIGHTS), 12))
    assert sum(shares.values()) / len(shares) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("sampled", [False, True], ids=["greedy", "sampled"])
def test_it_is_right_nearly_always(engine, sampled):
    shares = score(with_engine(engine), SHORT, sampled=sampled)
    assert sum(shares.values()) / len(shares) >= 0.9


def test_it_says_what_it_is(engine):
    answer = engine.complete("Who are you?", thinking=False, temperature=0, max_tokens=80).text
    assert "demonstration" in answer
    assert "not the 397B" in answer
