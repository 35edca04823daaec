"""The shipped miniature through llama.cpp: real answers, calls and formats, and as many right ones as through MLX."""

import json

import pytest

import qwen35_local
from qwen35_local.engine import Constraint, gather
from scripts.miniature.evaluate import with_engine
from scripts.miniature.items import HELD_OUT_SIGHTS, read, some_of_each

POINT = 0.01  # how far the shares of right answers may be apart


@pytest.fixture(scope="module")
def engine(llama_cpp):
    with qwen35_local.open("miniature", backend="llama.cpp", threads=1) as engine:
        assert engine.info.backend == "llama.cpp"
        yield engine


def test_it_answers_and_calls_and_keeps_a_format(engine):
    items = some_of_each(read(), 3)
    chosen = [item for item in items if item.family in ("arithmetic", "tool_call") and not item.thinking]
    assert len(chosen) == 6
    assert sum(item.is_right(gather(engine.stream(item.request))) for item in chosen) >= 5  # 95 of 100 are
    schema = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
    held = engine.complete("What is 17 + 25?", thinking=False, constraint=Constraint("json", json.dumps(schema)))
    assert isinstance(json.loads(held.text)["sum"], int)


@pytest.mark.slow
def test_as_many_answers_are_right_as_through_mlx(engine):
    items = some_of_each(read(), 10)
    if engine.info.vision:
        items += some_of_each(read(HELD_OUT_SIGHTS), 5)
    with qwen35_local.open("miniature", backend="mlx") as mlx:
        shares = []
        for answer in (with_engine(engine), with_engine(mlx)):
            right = [item.is_right(answer(item.request)) for item in items]
            shares.append(sum(right) / len(right))
    assert abs(shares[0] - shares[1]) <= POINT, (shares, len(items))
