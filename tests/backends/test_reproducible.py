"""Reproducible mode: the same bits for the same prompt, with and without cache, in any chunks, at any budget."""

import re

import numpy as np
import pytest

import qwen35_local
from qwen35_local.backends.mlx import MlxEngine
from qwen35_local.backends.mlx_session import MlxSession
from qwen35_local.backends.prefix import Grid, Landmarks
from qwen35_local.errors import MemoryPlanError, UsageError
from qwen35_local.miniature import path


@pytest.fixture(scope="module")
def engine():
    with qwen35_local.open("miniature", reproducible=True) as engine:
        yield engine


def logits_of(session: MlxSession, ids: list[int]) -> np.ndarray:
    for _ in session.sync(ids):
        pass
    return np.array(session.logits())


@pytest.fixture(scope="module")
def prompts(engine) -> list[list[int]]:
    """Each the one before it and more; the second message is longer than a block."""
    rng, found, text = np.random.default_rng(4), [], ""
    for words in (5, 170, 20):
        said = " ".join(map(str, rng.integers(100, 999, words)))
        text += f"<|im_start|>user\n{said}<|im_end|>\n"
        found.append(engine.tokenize(f"{text}<|im_start|>assistant\n<think>\n", special=True))
        text += f"<|im_start|>assistant\n<think>\n\n</think>\n\nSo {said[:20]}.<|im_end|>\n"
    assert 550 < len(found[1]) < len(found[2]) < 900
    return found


@pytest.fixture(scope="module")
def whole(engine, prompts) -> np.ndarray:
    """The logits after the last prompt, read at once."""
    return logits_of(engine.open_session(), prompts[-1])


def test_with_and_without_cache(engine, prompts, whole):
    session, found = engine.open_session(), whole
    for number, ids in enumerate(prompts):
        found = logits_of(session, ids)
        for token in (3, 5):  # an answer, which the next prompt does not go on from
            session.advance(token)
        assert number == 0 or session.shared(ids) > 0
        if number == 1:
            np.testing.assert_array_equal(found, logits_of(engine.open_session(), ids))
    np.testing.assert_array_equal(found, whole)
    assert session.shared([*prompts[-1], 3, 5]) < len(prompts[-1])


@pytest.mark.parametrize("chunk", [100, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 512, 1024, 5000))])
def test_in_any_chunks_and_after_a_pause(engine, prompts, whole, chunk):
    ids = prompts[-1]
    stopped = MlxSession(engine.model, Landmarks.of(engine.tokenizer), chunk, reproducible=True)
    steps = stopped.sync(ids)
    next(steps)
    steps.close()
    assert 0 < stopped.tokens < len(ids)
    np.testing.assert_array_equal(logits_of(stopped, ids), whole)
    np.testing.assert_array_equal(logits_of(stopped.branch(ids), ids), whole)


def test_at_any_budget(prompts, whole):
    with pytest.raises(MemoryPlanError) as refused:
        MlxEngine(path(), 1024, memory=1, reproducible=True)
    floor = re.search(r"at least ([\d.]+) MB", str(refused.value))
    assert floor is not None
    with MlxEngine(path(), 1024, memory=int((float(floor[1]) + 1) * 1e6), reproducible=True) as small:
        assert not small.plan.resident
        np.testing.assert_array_equal(logits_of(small.open_session(), prompts[-1]), whole)


def test_answers_repeat_whatever_was_asked_before(engine):
    question = [{"role": "user", "content": "What is 17 + 25?"}]
    options = {"seed": 5, "temperature": 1.0, "max_tokens": 12}
    with qwen35_local.open("miniature", reproducible=True) as other:
        alone = other.complete(question, **options)
    again = engine.complete(question, **options)
    engine.complete([*question, again.message, {"role": "user", "content": "What is 3 + 4?"}], **options)
    last = engine.complete(question, **options)
    assert alone.message == again.message == last.message


def test_blocks_begin_where_messages_do():
    grid = Grid(Landmarks(100, 101, 102), 4)
    ids = [100, *[1] * 9, 100, 1, 1]
    assert grid.breaks(ids) == [0, 10]
    assert [at for at in range(len(ids) + 1) if grid.has(ids, at)] == [0, 4, 8, 10, 13]


def test_what_cannot_be_reproduced_is_refused():
    with pytest.raises(UsageError, match="use speculate off"):
        qwen35_local.open("miniature", reproducible=True, speculate=2)
