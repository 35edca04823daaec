"""What every engine promises: the same events for the same request, whatever computes. One suite over all of them."""

import json
import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from qwen35_local.backends.local import LocalEngine
from qwen35_local.backends.scripted import ScriptedEngine
from qwen35_local.chat.tokenizer import Tokenizer
from qwen35_local.engine import Constraint, Engine, ImagePart, Message, Reuse, Session, TextPart
from qwen35_local.errors import ContextError, MediaError, Qwen35Error, SamplingError, TemplateError, UsageError
from qwen35_local.events import Done, Event, Held, Progress, Reasoning, Text, ToolCall

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"enum": ["Paris", "Rome"]},
                "days": {"type": "integer", "minimum": 1, "maximum": 9},
            },
            "required": ["city", "days"],
        },
    },
}


BACKENDS = ("mlx", "llama.cpp", "scripted")
THINKING_HARD = "thinking hard</think>\n\nan answer of some length"


@pytest.fixture(scope="module", params=BACKENDS)
def engine(request: pytest.FixtureRequest, open_local: Callable[..., LocalEngine]) -> Iterator[Engine]:
    if request.param == "scripted":
        tokenizer = request.getfixturevalue("tokenizer")
        replies = iter(lambda: THINKING_HARD, None)
        with ScriptedEngine(tokenizer, replies, context=512) as engine:
            yield engine
    else:
        with open_local(request.param) as engine:
            yield engine


@pytest.fixture(params=BACKENDS)
def saying(
    request: pytest.FixtureRequest, open_local: Callable[..., LocalEngine], tokenizer: Tokenizer
) -> Iterator[Callable[..., Engine]]:
    """`saying(replies)`: an engine with room for tools; a scripted one says the replies, the others what they like."""
    engines: list[Engine] = []

    def saying(*replies: str) -> Engine:
        scripted = request.param == "scripted"
        engines.append(ScriptedEngine(tokenizer, replies) if scripted else open_local(request.param, room=True))
        return engines[-1]

    yield saying
    for engine in engines:
        engine.close()


def run(session: Session, ids: list[int]) -> Reuse:
    steps = session.sync(ids)
    while True:
        try:
            next(steps)
        except StopIteration as finished:
            return finished.value


def prompt(length: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, 500, length).tolist()


def events_of(engine: Engine, messages: str = "Hello there", **options: object) -> list[Event]:
    return list(engine.chat(messages, **{"max_tokens": 24, **options}))


@pytest.mark.parametrize("thinking", [True, False])
def test_events_come_in_order_and_count(engine, thinking):
    events = [event for event in events_of(engine, thinking=thinking) if not isinstance(event, Held)]
    kinds = [type(event) for event in events]
    order = [Progress, Reasoning, Text, Done]
    assert [order.index(kind) for kind in kinds] == sorted(order.index(kind) for kind in kinds)
    assert kinds.count(Done) == 1
    progress = [event for event in events if isinstance(event, Progress)]
    assert all(event.phase == "prefill" and event.unit == "tokens" for event in progress)
    assert [event.done for event in progress] == sorted(event.done for event in progress)
    done = events[-1]
    assert isinstance(done, Done)
    assert 1 <= done.usage.completion_tokens <= 24
    assert done.usage.reasoning_tokens <= done.usage.completion_tokens
    assert done.finish_reason == ("length" if done.usage.completion_tokens == 24 else "stop")
    assert done.usage.prompt_tokens == len(engine.tokenize(rendered("Hello there", thinking), special=True))
    assert "seed" in done.stats.extra


def rendered(text: str, thinking: bool) -> str:
    opening = "<think>\n" if thinking else "<think>\n\n</think>\n\n"
    return f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n{opening}"


def test_the_same_seed_gives_the_same_answer(engine):
    options = {"seed": 11, "temperature": 1.3, "max_tokens": 16}
    first, second = (engine.complete("Tell me", **options) for _ in range(2))
    assert (first.text, first.reasoning) == (second.text, second.reasoning)
    assert first.done.stats.extra["seed"] == 11


def test_logprobs_are_probabilities_of_what_was_said(engine):
    events = events_of(engine, top_logprobs=3, thinking=False, max_tokens=6, temperature=0)
    found = [logprob for event in events if isinstance(event, Text) for logprob in event.logprobs]
    assert found
    for logprob in found:
        assert -math.inf < logprob.logprob <= 1e-6
        assert 1 <= len(logprob.top) <= 3
        assert logprob.top[0][0] == logprob.id  # greedy
        assert [value for *_, value in logprob.top] == sorted((value for *_, value in logprob.top), reverse=True)
    said = "".join(event.text for event in events if isinstance(event, Text))
    assert b"".join(logprob.data for logprob in found).decode(errors="replace").startswith(said[:1])


def test_a_stop_string_ends_the_answer_and_is_not_in_it(engine):
    whole = engine.complete("Say something", thinking=False, temperature=0, max_tokens=24).text
    stop = whole[len(whole) // 2 :][:2]
    cut = engine.complete("Say something", thinking=False, temperature=0, max_tokens=24, stop=stop)
    assert cut.text == whole[: whole.index(stop)]
    assert cut.done.stop == stop
    assert cut.done.finish_reason == "stop"


def test_closing_the_iterator_cancels_and_the_engine_goes_on(engine):
    events = engine.chat("A long one, please", max_tokens=200)
    for event in events:
        if not isinstance(event, Progress):
            break
    events.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(events_of(engine)[-1], Done)


def test_calls_and_results_are_part_of_the_prompt(engine):
    call = {"id": "a", "function": {"name": "get_weather", "arguments": {"city": "Paris"}}}
    asked = [{"role": "user", "content": "Weather?"}]
    answered = [
        *asked,
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "sunny"},
    ]
    first, second = (engine.complete(messages, max_tokens=2).done.usage.prompt_tokens for messages in (asked, answered))
    assert second > first + 20
    with pytest.raises(
        ContextError, match=r"has \d+ tokens and the context"
    ):  # the instructions alone are longer than this context
        engine.chat(asked, tools=[WEATHER])


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"temperature": -1}, SamplingError, "temperature must be a number from 0 to 100"),
        ({"max_tokens": 0}, UsageError, "max_tokens must be"),
        ({"top_logprobs": 21}, UsageError, "from 0 to 20"),
        ({"logit_bias": {10**6: 1.0}}, SamplingError, "1000000"),
        ({"colour": 1}, UsageError, "unknown option 'colour'"),
    ],
)
def test_bad_options_are_refused_by_the_call(engine, options, kind, message):
    with pytest.raises(kind, match=message):
        engine.chat("Hi", **options)
    assert isinstance(events_of(engine)[-1], Done)


def test_a_conversation_that_cannot_be_rendered_is_refused_by_the_call(engine):
    with pytest.raises(TemplateError):
        engine.chat([Message("assistant", "I begin")])


def test_a_prompt_longer_than_the_context_is_refused_by_the_call(engine):
    with pytest.raises(ContextError, match=r"has \d+ tokens and the context is 512"):
        engine.chat("word " * 600)


def test_an_answer_ends_with_the_context(engine):
    done = engine.complete("word " * 94, thinking=False, temperature=0).done
    assert 480 < done.usage.prompt_tokens < 512
    assert done.usage.prompt_tokens + done.usage.completion_tokens <= 512


def test_the_next_turn_reads_only_what_is_new(local):
    system = {"role": "system", "content": "You are terse. " * 20}
    first = [system, {"role": "user", "content": "One"}]
    answer = local.complete(first, max_tokens=12, temperature=0)
    second = [*first, answer.message, {"role": "user", "content": "Two"}]
    done = local.complete(second, max_tokens=4).done
    fresh_tokens = done.usage.prompt_tokens - done.usage.cached_tokens
    turn = len(local.tokenize("<|im_start|>user\nTwo<|im_end|>\n<|im_start|>assistant\n<think>\n", special=True))
    assert fresh_tokens <= turn + answer.done.usage.completion_tokens + 8
    other = local.complete([system, {"role": "user", "content": "Another matter"}], max_tokens=4).done
    assert other.usage.cached_tokens >= len(local.tokenize(system["content"]))


def test_a_schema_is_kept_whatever_the_model(saying):
    schema = {
        "type": "object",
        "properties": {"n": {"enum": [1, 2, 3]}},
        "required": ["n"],
        "additionalProperties": False,
    }
    engine = saying('{"n": 2}', 'so</think>\n\n{"n": 3}')
    for thinking in (False, True):
        answer = engine.complete(
            "A number", constraint=Constraint("json", json.dumps(schema)), thinking=thinking, thinking_budget=4, seed=1
        )
        assert json.loads(answer.text)["n"] in (1, 2, 3)
        assert bool(answer.reasoning) is thinking
        assert answer.done.finish_reason == "stop"


CALL = (
    "<tool_call>\n<function=get_weather>\n<parameter=city>\nRome\n</parameter>\n<parameter=days>\n3\n</parameter>\n"
    "</function>\n</tool_call>"
)


def test_a_call_that_must_be_made_is_one_and_its_result_is_read(saying):
    engine = saying(CALL, THINKING_HARD)
    asked = [{"role": "user", "content": "Weather?"}]
    must = Constraint(calls=("get_weather",), must_call=True)
    options = {"tools": [WEATHER], "temperature": 0, "max_tokens": 120, "thinking": False}
    events = engine.chat(asked, constraint=must, **options)
    call, done = (event for event in events if not isinstance(event, Progress | Held))
    assert isinstance(call, ToolCall)
    assert call.name == "get_weather"
    assert call.arguments["city"] in ("Paris", "Rome")
    assert 1 <= call.arguments["days"] <= 9
    assert isinstance(done, Done)
    assert done.finish_reason == "tool_calls"
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    answer = engine.complete([*asked, Message("assistant", tool_calls=(call,)), result], **options).done
    assert answer.finish_reason in ("stop", "length")
    assert answer.usage.prompt_tokens > done.usage.prompt_tokens
    assert answer.usage.prompt_tokens - answer.usage.cached_tokens < 200  # the instructions are not read again


def test_pictures_are_refused_with_a_sentence(local):
    with pytest.raises(MediaError, match="cannot see"):
        local.chat([Message("user", (TextPart("what?"), ImagePart(b"")))])


def test_a_session_extends_rewinds_and_starts_over(local):
    turn = local.tokenizer.special["<|im_start|>"]
    history = [turn, *prompt(20), turn, *prompt(15, 1)]
    session, fresh = local.open_session(), local.open_session()
    cases = [
        ([*history, turn, 3, 4], 0),
        ([*history, turn, 3, 4, 5, 6], len(history) + 3),  # extended
        ([*history, turn, 3, 8, 9, turn, *prompt(5, 2), turn, 3], len(history)),  # the last answer rewritten
        ([turn, *prompt(20), turn, *prompt(30, 7)], 21),  # another question to the same system message
        (prompt(12, 9), 0),
    ]
    for ids, reused in cases:
        assert session.shared(ids) == reused
        assert run(session, ids).reused == reused
        assert session.tokens == len(ids)
        run(fresh, prompt(3, 99))  # so that it shares nothing
        run(fresh, ids)
        np.testing.assert_allclose(session.logits(), fresh.logits(), atol=5e-4)
    session.close()
    fresh.close()


def test_a_cancelled_prompt_leaves_a_usable_session(local):
    turn = local.tokenizer.special["<|im_start|>"]
    ids = [turn, *prompt(100), turn, *prompt(100, 3), turn, 5]
    session, fresh = local.open_session(), local.open_session()
    steps = session.sync(ids)
    done, total = next(steps)
    steps.close()
    assert 101 <= done <= total == 204
    assert run(session, ids).reused == done
    run(fresh, ids)
    np.testing.assert_allclose(session.logits(), fresh.logits(), atol=5e-4)
    session.close()
    fresh.close()


def test_a_branch_knows_what_both_have_in_common(local):
    turn = local.tokenizer.special["<|im_start|>"]
    history = [turn, *prompt(20), turn, *prompt(40, 1), turn]
    session = local.open_session()
    run(session, [*history, 3, 4])
    for token in (8, 9, 10):
        session.advance(token)
    other_way = [*history, 7, 7, 7]
    branch = local.branch(session, other_way)
    assert branch.ids == history[:-1]
    assert run(branch, other_way).reused == len(history) - 1
    fresh = local.open_session()
    run(fresh, other_way)
    np.testing.assert_allclose(branch.logits(), fresh.logits(), atol=5e-4)
    assert run(session, [*history, 3, 4, 8, 9, 10, 11]).reused == len(history) + 5  # the first is as it was
    whole = local.open_session()
    run(whole, [*history, 3, 4, 8, 9, 10, 11])
    np.testing.assert_allclose(session.logits(), whole.logits(), atol=5e-4)
    assert local.branch(session, prompt(9, 50)).ids == []
    for one in (session, branch, fresh, whole):
        one.close()


def test_two_conversations_are_remembered_beside_each_other(local):
    long, other = "word " * 40, "another one entirely"
    for text in (long, other, long, other):
        found = local.complete(text, max_tokens=2, thinking=False).done
    assert found.usage.cached_tokens >= found.usage.prompt_tokens - 12 > 0
    assert len(local._sessions) >= 2


def test_advancing_is_reading_one_more(local):
    session, fresh = local.open_session(), local.open_session()
    run(session, prompt(30))
    for token in (5, 6, 7):
        session.advance(token)
        run(fresh, [*prompt(30), *range(5, token + 1)])
        np.testing.assert_allclose(session.logits(), fresh.logits(), atol=5e-4)
    assert run(session, [*prompt(30), 5, 6, 7]) == Reuse(33, 33)
    session.close()
    fresh.close()


def test_unknown_tokens_are_refused(local):
    session = local.open_session()
    for ids, message in (([], "the prompt is empty"), ([1, 704], "token 704 is not below the model's 704")):
        with pytest.raises(UsageError, match=message):
            run(session, ids)
    session.close()


def test_a_closed_engine_says_so(open_local, engine):
    if engine.info.backend == "scripted":
        pytest.skip("its tests have it")
    closed = open_local(engine.info.backend)
    closed.close()
    closed.close()
    with pytest.raises(UsageError, match="the engine is closed"):
        closed.chat("hello")


@pytest.mark.parametrize("context", [0, 2049])
def test_the_context_is_between_1_and_the_models(open_local, engine, context):
    if engine.info.backend == "scripted":
        pytest.skip("has no model")
    with pytest.raises(Qwen35Error, match="context must be from 1 to the model's 512 tokens"):
        open_local(engine.info.backend, context=context)


def test_backends_say_the_same(open_local):
    """Greedy, in float32, the two libraries choose the same tokens, and their logits agree."""
    with open_local("mlx") as mlx, open_local("llama.cpp") as llama:
        ids = prompt(100)
        np.testing.assert_allclose(llama.logits(ids), mlx.logits(ids), atol=5e-4)
        for text in ("Hello", "def main():", "敏捷的棕色狐狸"):
            for thinking in (True, False):
                options = {"temperature": 0, "max_tokens": 20, "thinking": thinking}
                ours, theirs = mlx.complete(text, **options), llama.complete(text, **options)
                assert (ours.reasoning, ours.text, ours.done.usage) == (
                    theirs.reasoning,
                    theirs.text,
                    theirs.done.usage,
                )
