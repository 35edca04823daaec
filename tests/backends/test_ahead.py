"""Guessing ahead changes no answer: greedy tokens are equal, sampled ones are distributed as without."""

import re

import numpy as np
import pytest

import qwen35_local
from qwen35_local.backends.mlx import MlxEngine
from qwen35_local.engine import Completion, gather
from qwen35_local.errors import MemoryPlanError, UsageError
from qwen35_local.miniature import path
from scripts.miniature.items import read, some_of_each

HEAT = 2.5  # a temperature at which the miniature still has a favourite, but other tokens have a chance


@pytest.fixture(scope="module")
def plain():
    with qwen35_local.open("miniature") as engine:
        yield engine


@pytest.fixture(scope="module", params=["3", pytest.param("auto", marks=pytest.mark.slow)])
def guessing(request):
    with qwen35_local.open("miniature", speculate=request.param) as engine:
        yield engine


def same(ours: Completion, theirs: Completion) -> bool:
    """The same tokens, as far as anyone can see; ids of calls count up alike."""
    return ours.message == theirs.message and ours.done.usage == theirs.done.usage


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("count", [3, pytest.param(1000, marks=pytest.mark.slow)])
def test_greedy_answers_are_equal(plain, guessing, count):
    items = some_of_each(read(), 1 + count // 18)[-count:]
    wrong = [item for item in items if not same(*(gather(e.stream(item.request)) for e in (plain, guessing)))]
    assert not wrong
    assert len(items) == count
    assert guessing._pace.accepted > 0


def test_seeded_samples_are_equal(plain, guessing):
    for seed in range(2):
        options = {"temperature": 1.5, "seed": seed, "max_tokens": 16, "presence_penalty": 0.5}
        assert same(
            plain.complete("Tell me about Oslo.", **options), guessing.complete("Tell me about Oslo.", **options)
        )


@pytest.mark.parametrize("count", [60, pytest.param(2000, marks=pytest.mark.slow)])
def test_samples_have_the_models_distribution(guessing, count):
    """The token after one that was guessed, right or wrong: counts against the model's own probabilities."""
    ids = guessing.tokenize("<|im_start|>user\nHow are you?<|im_end|>\n<|im_start|>assistant\n<think>\n", special=True)
    vocabulary, rng = guessing.tokenizer.size, np.random.default_rng(5)
    session = guessing.open_session()

    def sampled(logits: np.ndarray) -> int:
        p = np.exp((logits[:vocabulary] - logits[:vocabulary].max()).astype(np.float64) / HEAT)
        return int(rng.choice(vocabulary, p=p / p.sum()))

    pairs = []
    for _ in range(count):
        for _ in session.sync(ids):
            pass
        first = sampled(session.logits())
        session.advance(first)
        pairs.append((first, sampled(session.logits())))
        session.advance(pairs[-1][1])  # so that the next round has something to go back from
        session.logits()
    common = max({first for first, _ in pairs}, key=[first for first, _ in pairs].count)
    seconds = [second for first, second in pairs if first == common]
    row = guessing.logits([*ids, common])[-1, :vocabulary].astype(np.float64) / HEAT
    p = np.exp(row - row.max())
    p /= p.sum()
    # Tokens in order of probability, in groups that are each expected at least five times.
    order, groups, edge = np.argsort(-p), [], 0
    for end in range(1, vocabulary + 1):
        if p[order[edge:end]].sum() * len(seconds) >= 5:
            groups.append(order[edge:end])
            edge = end
    groups[-1] = np.concatenate([groups[-1], order[edge:]])
    observed = [sum(token in group for token in seconds) for group in map(set, groups)]
    expected = np.array([p[group].sum() * len(seconds) for group in groups])
    freedom = len(groups) - 1
    statistic = ((observed - expected) ** 2 / expected).sum()
    assert freedom >= 1
    assert statistic < freedom + 5 * np.sqrt(2 * freedom)  # chi-squared: mean and five standard deviations


def test_streamed_and_guessed_is_the_same(plain):
    with pytest.raises(MemoryPlanError) as refused:
        MlxEngine(path(), 1024, memory=1, speculate=2)
    floor = re.search(r"at least ([\d.]+) MB", str(refused.value))
    assert floor is not None
    with MlxEngine(path(), 1024, memory=int(float(floor[1]) * 1e6) + 10**6, speculate=2) as engine:
        assert not engine.plan.resident
        assert engine.experts is not None
        assert len(engine.experts.banks) == 9  # the head's experts are streamed as well
        for _ in engine.open_session().sync(engine.tokenize("word " * 40)):
            pass
        assert engine.experts.banks[0].counters.nbytes > 0
        assert engine.experts.banks[8].counters.nbytes == 0, "reading a prompt takes nothing of the head's experts"
        options = {"temperature": 0, "max_tokens": 40}
        for question in ("What is 17 + 25?", "What is the capital of France?"):
            answer = engine.complete(question, **options)
            assert same(answer, plain.complete(question, **options))
        assert answer.done.stats.extra["speculation"]["accepted"] > 0


def test_a_conversation_goes_on_from_snapshots(plain, guessing):
    """Turns go back to where answers began: the head's keys and values go back with the rest."""
    messages = []
    for question in ("What is 3 + 4?", "And 30 + 40?", "And 5 + 5?"):
        messages.append({"role": "user", "content": question})
        ours, theirs = (engine.complete(messages, temperature=0, max_tokens=60) for engine in (guessing, plain))
        assert same(ours, theirs)
        messages.append({"role": "assistant", "content": theirs.text})
    assert ours.done.usage.cached_tokens > 0
    counts = guessing._pace.report()
    assert counts["accepted"] <= counts["drafted"]


def test_an_answer_that_is_closed_leaves_nothing_behind(plain, guessing):
    for stop in (1, 4):
        events = guessing.chat("Count from 3 to 12.", temperature=0)
        for _ in range(4 + stop):
            next(events)
        events.close()
        ours, theirs = (e.complete("Count from 4 to 9.", temperature=0, max_tokens=60) for e in (guessing, plain))
        assert ours.message == theirs.message


def test_options_are_checked():
    with pytest.raises(UsageError, match="speculate must be off, auto, 1, 2 or 3, not 4"):
        qwen35_local.open("miniature", speculate=4)


def test_statistics_say_what_was_guessed(guessing):
    found = guessing.complete("What is 17 + 25?", temperature=0, max_tokens=40).done.stats.extra["speculation"]
    assert found["passes"] > 0
    assert 1 <= found["tokens_per_pass"] <= 4
    assert len(found["seconds_per_pass"]) == 4
    assert all(0 <= share <= 1 for share in found["acceptance"])
