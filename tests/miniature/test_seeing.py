"""What the shipped miniature says of held-out pictures and clips, however its work is split, streamed or resumed."""

import pytest
from backends.test_eyes import opened, session_of, tenth_of, tokens_of

from qwen35_local import miniature
from qwen35_local.engine import ChatRequest, Message, TextPart, VideoPart
from qwen35_local.experts import budget
from scripts.miniature.items import HELD_OUT_SIGHTS, Item, read

CONTEXT = 512
FAMILIES = ("see colour", "see sides", "see video")  # one picture, two, and a clip


@pytest.fixture(scope="module")
def engine():
    with opened(miniature.path(), dtype="float32", context=CONTEXT) as engine:
        yield engine


@pytest.fixture(scope="module", params=FAMILIES)
def item(request, engine) -> Item:
    """The first of its family that is answered rightly as a whole, so that what is compared are words, not noise."""
    items = [item for item in read(HELD_OUT_SIGHTS) if item.family == request.param and not item.thinking][:4]
    return next(item for item in items if item.is_right(engine.complete(item.messages, **options())))


@pytest.fixture(scope="module")
def mixed(engine) -> ChatRequest:
    """Pictures and a clip in one question, which it was never taught: only the tokens count."""
    items = {item.family: item for item in reversed(read(HELD_OUT_SIGHTS))}
    parts = [part for family in FAMILIES for part in items[family].messages[-1].content if not isinstance(part, str)]
    assert sum(isinstance(part, VideoPart) for part in parts) == 1
    return ChatRequest.of((Message("user", (*parts, TextPart(" Where is the clip?"))),), **options())


def options() -> dict:
    return {"temperature": 0, "max_tokens": 24, "thinking": False}


def answers(engine, prompt, chunk: int) -> list[int]:
    return tokens_of(session_of(engine, chunk), prompt, 10)


def seen_until(engine, item: Item) -> int:
    """The token after the last picture: a snapshot behind it means that nothing is looked at again."""
    last = engine.prompt(item.request).spans[-1]
    return last.start + last.tokens


@pytest.mark.parametrize("chunk", [pytest.param(1, marks=pytest.mark.slow), 7])
def test_chunks(engine, item, chunk):
    prompt = engine.prompt(item.request)
    whole = answers(engine, prompt, CONTEXT)
    assert engine.detokenize(whole).startswith(item.content)
    assert answers(engine, prompt, chunk) == whole


@pytest.mark.parametrize("chunk", [pytest.param(5, marks=pytest.mark.slow), 64])
def test_chunks_of_pictures_and_a_clip(engine, mixed, chunk):
    prompt = engine.prompt(mixed)
    assert len(prompt.spans) > 4
    assert answers(engine, prompt, chunk) == answers(engine, prompt, CONTEXT)


@pytest.fixture(scope="module")
def tenth(engine):
    """The same, of whose experts a tenth is in memory, without the room of a process, which dwarfs this model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budget, "PROCESS", 0)
        memory = tenth_of(engine.plan.geometry)
        with opened(miniature.path(), dtype="float32", memory=memory, context=CONTEXT) as streamed:
            plan = streamed.plan
            assert sum(plan.slots) <= 0.15 * plan.geometry.layers * plan.geometry.experts
            yield streamed


def test_streamed_at_a_tenth(tenth, item):
    found = tenth.complete(item.messages, **options())
    assert found.text == item.content
    assert found.done.stats.extra["experts"]["bytes_read"] > 0
    assert tenth.eyes.tower is None, "its memory is given back before the experts need theirs"


def test_streamed_pictures_and_a_clip(engine, tenth, mixed):
    assert answers(tenth, tenth.prompt(mixed), 32) == answers(engine, engine.prompt(mixed), CONTEXT)


def test_resumed(engine, item):
    """A second turn goes on from a snapshot after the pictures; a fresh engine reads all of it."""
    first = engine.complete(item.messages, **options())
    again = (*item.messages, first.message, Message("user", "Are you sure?"))
    resumed = engine.complete(again, **options())
    assert resumed.done.usage.cached_tokens >= seen_until(engine, item)
    with opened(miniature.path(), dtype="float32", context=CONTEXT) as fresh:
        whole = fresh.complete(again, **options())
    assert whole.done.usage.cached_tokens == 0
    assert (resumed.text, resumed.done.usage.prompt_tokens) == (whole.text, whole.done.usage.prompt_tokens)


def test_resumed_from_disk(engine, item, tmp_path):
    """The same after the process that saw it is gone: neither picture nor prompt is read again."""
    again = Message("user", "Are you sure?")
    with opened(miniature.path(), dtype="float32", context=CONTEXT) as gone:
        kept = gone.keep("seen", tmp_path)
        first = gone.complete(item.messages, **options())
        kept.remember([*item.messages, first.message])
    with opened(miniature.path(), dtype="float32", context=CONTEXT) as fresh:
        messages = fresh.keep("seen", tmp_path).messages
        assert messages is not None
        found = fresh.complete((*messages, again), **options())
        assert fresh.eyes is not None
        assert fresh.eyes.tower is None, "nothing was looked at again"
    assert found.done.usage.cached_tokens >= seen_until(engine, item)
    assert found.text == engine.complete((*item.messages, first.message, again), **options()).text
