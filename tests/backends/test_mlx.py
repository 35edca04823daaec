"""The MLX engine: equal answers however the work is split, reused or interrupted."""

import math
import threading

import numpy as np
import pytest
from make_checkpoint import PRESETS, tensors

import qwen35_local
from qwen35_local.backends.mlx import MlxEngine
from qwen35_local.backends.mlx_session import MlxSession
from qwen35_local.backends.prefix import Landmarks
from qwen35_local.engine import ImagePart, Reuse, TextPart
from qwen35_local.errors import ContextError, MediaError, UsageError


@pytest.fixture(scope="module")
def engine(pristine):
    with qwen35_local.open(pristine) as engine:
        yield engine


def run(session: MlxSession, ids: list[int]) -> Reuse:
    steps = session.sync(ids)
    while True:
        try:
            next(steps)
        except StopIteration as finished:
            return finished.value


def prompt(length: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, 500, length).tolist()


def test_logits_are_those_of_the_model(engine, golden):
    ids = golden["F32.ids"].tolist()
    for chunk in (512, 50):
        ours = engine.logits(ids, chunk)
        assert ours.dtype == np.float32
        assert np.abs(ours - golden["F32.logits"]).max() <= 5e-4
    session = engine.open_session()
    run(session, ids[:100])
    assert np.abs(session.logits() - golden["F32.logits"][99]).max() <= 5e-4
    session.advance(ids[100])
    assert np.abs(session.logits() - golden["F32.logits"][100]).max() <= 5e-4


def test_greedy_answers_do_not_depend_on_the_chunks(engine):
    answers = []
    for chunk in (512, 64, 7, 1):
        session = MlxSession(engine.model, Landmarks.of(engine.tokenizer), chunk)
        run(session, prompt(90))
        tokens = []
        for _ in range(12):
            tokens.append(int(session.logits().argmax()))
            session.advance(tokens[-1])
        answers.append(tokens)
    assert all(answer == answers[0] for answer in answers)


def test_progress_counts_every_token(engine):
    session = MlxSession(engine.model, Landmarks.of(engine.tokenizer), chunk=32)
    assert list(session.sync(prompt(90))) == [(32, 90), (64, 90), (90, 90)]


def test_an_extended_prompt_is_not_read_again(engine):
    session = engine.open_session()
    assert run(session, prompt(60)).reused == 0
    session.advance(5)
    assert run(session, [*prompt(60), 5, 6, 7]).reused == 61
    fresh = engine.open_session()
    run(fresh, [*prompt(60), 5, 6, 7])
    np.testing.assert_allclose(session.logits(), fresh.logits(), atol=2e-4)
    assert run(session, [*prompt(60), 5, 6, 7]).reused == 63
    np.testing.assert_allclose(session.logits(), fresh.logits(), atol=2e-4)


def test_a_new_turn_goes_back_to_where_the_last_began(engine):
    """The template rewrites the last answer, so tokens agree up to its first: that state must be there."""
    turn = engine.tokenizer.special["<|im_start|>"]
    history = [turn, *prompt(20), turn, *prompt(15, 1)]
    session = engine.open_session()
    run(session, [*history, turn, 3, 4])
    for token in (8, 9, 10):
        session.advance(token)
    longer = [*history, turn, 3, 8, 9, turn, *prompt(5, 2), turn, 3, 4]
    reuse = run(session, longer)
    assert reuse.reused == len(history)
    assert reuse.differs == len(history) + 2
    fresh = engine.open_session()
    run(fresh, longer)
    np.testing.assert_allclose(session.logits(), fresh.logits(), atol=2e-4)
    other = [turn, *prompt(20), turn, *prompt(30, 7)]
    assert run(session, other).reused == 21  # what leads the conversation is kept as well
    fresh = engine.open_session()
    run(fresh, other)
    np.testing.assert_allclose(session.logits(), fresh.logits(), atol=2e-4)


def test_a_different_prompt_starts_over(engine):
    session = engine.open_session()
    run(session, prompt(40))
    assert run(session, prompt(40, 9)).reused == 0
    fresh = engine.open_session()
    run(fresh, prompt(40, 9))
    np.testing.assert_allclose(session.logits(), fresh.logits(), atol=2e-4)
    assert run(session, prompt(10, 9)).reused == 0  # a shorter one: the state cannot be cut back


def test_a_cancelled_prompt_leaves_a_usable_session(engine):
    session = MlxSession(engine.model, Landmarks.of(engine.tokenizer), chunk=16)
    steps = session.sync(prompt(90))
    next(steps)
    next(steps)
    steps.close()
    assert run(session, prompt(90)).reused == 32
    fresh = engine.open_session()
    run(fresh, prompt(90))
    np.testing.assert_allclose(session.logits(), fresh.logits(), atol=2e-4)


def test_unknown_tokens_are_refused(engine):
    session = engine.open_session()
    with pytest.raises(UsageError, match="the prompt is empty"):
        run(session, [])
    with pytest.raises(UsageError, match="token 704 is not below the model's 704"):
        run(session, [1, 704])
    with pytest.raises(UsageError, match="from 0 to 703"):
        engine.logits([-1])


def test_the_context_is_kept(pristine):
    with qwen35_local.open(pristine, context=30) as engine:
        with pytest.raises(ContextError, match="31 tokens exceed the context of 30"):
            engine.logits([1] * 31)
        with pytest.raises(ContextError, match="and the context is 30"):
            engine.complete("word " * 50)
        done = engine.complete("a", thinking=False).done
        assert done.usage.prompt_tokens + done.usage.completion_tokens <= 30


def test_closing_the_iterator_cancels_and_frees_the_engine(engine):
    events = engine.chat("hello", max_tokens=50)
    next(events)
    with pytest.raises(UsageError, match="answering another request"):
        next(engine.chat("hello"))
    events.close()
    assert engine.complete("hello", max_tokens=2).done.usage.completion_tokens <= 2


def test_seeded_answers_repeat(engine):
    one, two = (engine.complete("hello", seed=7, max_tokens=20, temperature=1.0) for _ in range(2))
    assert (one.text, one.reasoning) == (two.text, two.reasoning)


def test_logprobs_are_those_of_the_logits(engine):
    request = qwen35_local.ChatRequest.of("hello", temperature=0, max_tokens=5, top_logprobs=3, thinking=False)
    ids = list(engine.prompt(request))
    found = [p for event in engine.stream(request) if isinstance(event, qwen35_local.Text) for p in event.logprobs]
    assert found
    for logprob in found:
        row = engine.logits(ids)[-1, : engine.tokenizer.size].astype(np.float64)  # padding is no token
        expected = row - np.log(np.exp(row - row.max()).sum()) - row.max()
        assert logprob.logprob == pytest.approx(expected[logprob.id], abs=1e-3)
        assert [alternative[0] for alternative in logprob.top] == np.argsort(-expected[: engine.tokenizer.size])[
            :3
        ].tolist()
        ids.append(logprob.id)


def test_pictures_are_refused_with_a_sentence(engine):
    with pytest.raises(MediaError, match="cannot see"):
        engine.chat([qwen35_local.Message("user", (TextPart("what?"), ImagePart(b"")))])


def test_a_closed_engine_says_so(pristine):
    engine = qwen35_local.open(pristine)
    engine.close()
    engine.close()
    for use in (lambda: engine.chat("hello"), lambda: engine.logits([1])):
        with pytest.raises(UsageError, match="the engine is closed"):
            use()


def test_an_engine_lives_in_any_one_thread(pristine):
    found = []

    def work() -> None:
        with MlxEngine(pristine) as engine:
            found.append(engine.complete("hello", max_tokens=3).done.usage.completion_tokens)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found
    assert 1 <= found[0] <= 3


def test_loading_reports_bytes(pristine):
    parameters = sum(math.prod(shape) for name, shape, _ in tensors(PRESETS["tiny"]) if not name.startswith("mtp."))
    seen = []
    with qwen35_local.open(pristine, on_progress=seen.append) as engine:
        assert engine.info.parameters == parameters
    assert [event.done for event in seen] == sorted(event.done for event in seen)
    assert seen[-1].unit == "bytes"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"dtype": "int3"}, "dtype must be auto"),
        ({"backend": "cuda"}, "backend must be auto"),
        ({"context": -1}, "context must be from 1"),
    ],
)
def test_impossible_options(pristine, options, sentence):
    with pytest.raises(UsageError, match=sentence):
        qwen35_local.open(pristine, **options)
