"""Pictures and clips through the whole engine: equal answers however the work is split, kept, streamed or resumed."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from pictures import bomb, clip, encoded, noise, picture
from PIL import Image

import qwen35_local
from qwen35_local.backends.mlx import MlxEngine
from qwen35_local.backends.mlx_session import MlxSession
from qwen35_local.backends.prefix import Landmarks
from qwen35_local.engine import ChatRequest, ImagePart, Message, Prompt, TextPart, VideoPart
from qwen35_local.errors import ConfigError, ContextError, MediaError, MemoryPlanError
from qwen35_local.experts import budget, sight
from qwen35_local.media import video
from qwen35_local.model.qwen35 import drained
from qwen35_local.model.vision import VisionTower

OPTIONS = {"temperature": 0, "max_tokens": 6, "thinking": False}
CAT, DOG = picture((96, 64), seed=1), picture((96, 64), seed=2)


def opened(path: Path, **options) -> MlxEngine:
    engine = qwen35_local.open(path, **options)
    assert isinstance(engine, MlxEngine)
    return engine


@pytest.fixture(scope="module")
def engine(sighted):
    with opened(sighted) as engine:
        yield engine


@pytest.fixture(scope="module")
def film() -> bytes:
    return clip(12, 3, (96, 64))


def user(*parts) -> Message:
    return Message("user", tuple(TextPart(part) if isinstance(part, str) else part for part in parts))


def asked(*messages: Message) -> ChatRequest:
    return ChatRequest.of(messages, **OPTIONS)


def answer(engine: MlxEngine, *messages: Message):
    return engine.complete(messages, **OPTIONS)


def tokens_of(session: MlxSession, prompt: Prompt, count: int = 8) -> list[int]:
    for _ in session.sync(prompt):
        pass
    found = []
    for _ in range(count):
        found.append(int(session.logits().argmax()))
        session.advance(found[-1])
    return found


def session_of(engine: MlxEngine, chunk: int = 512) -> MlxSession:
    return MlxSession(engine.model, Landmarks.of(engine.tokenizer), chunk, engine.experts, eyes=engine.eyes)


@pytest.fixture(scope="module")
def mixed(film) -> Message:
    return user("first ", ImagePart(CAT), " then ", VideoPart(film), ImagePart(DOG), " what is seen?")


def test_the_prompt_is_as_the_released_processor_writes_it(engine, film):
    prompt = engine.prompt(asked(user("look: ", ImagePart(CAT), VideoPart(film), "what?")))
    text = engine.detokenize(prompt)
    seen = engine.look(VideoPart(film))
    pads = seen.rows * seen.columns
    times = "".join(
        f"<{second:.1f} seconds><|vision_start|>{'<|video_pad|>' * pads}<|vision_end|>" for second in seen.seconds
    )
    assert text.startswith(
        f"<|im_start|>user\nlook: <|vision_start|>{'<|image_pad|>' * 6}<|vision_end|>{times}what?<|im_end|>"
    )
    assert [(span.tokens, span.frame) for span in prompt.spans] == [(6, 0)] + [(pads, n) for n in range(4)]
    for span in prompt.spans:
        assert set(prompt[span.start : span.start + span.tokens]) <= {
            engine.tokenizer.special["<|image_pad|>"],
            engine.tokenizer.special["<|video_pad|>"],
        }
        assert prompt[span.start - 1] == engine.tokenizer.special["<|vision_start|>"]


def test_prices_are_known_before_decoding(engine, film, monkeypatch):
    def decodes(*_):
        raise AssertionError("decoded")

    monkeypatch.setattr("qwen35_local.media.images.rgb", decodes)
    monkeypatch.setattr("qwen35_local.media.clips.VideoFile.pictures", decodes)
    assert engine.price(ImagePart(picture((640, 480)))) == 2 + 13 * 18
    assert engine.price(ImagePart(picture((640, 480)), 100_000)) == 2 + 8 * 11
    text = engine.tokenize("<0.2 seconds>")
    assert engine.price(VideoPart(film)) == 4 * (2 + 6 + len(text))
    usage = len(engine.prompt(asked(user(ImagePart(CAT), "?")))) - len(engine.prompt(asked(user("?"))))
    assert usage == engine.price(ImagePart(CAT)) == 8


def test_pictures_matter(engine):
    logits = []
    for data in (CAT, DOG):
        session = session_of(engine)
        tokens_of(session, engine.prompt(asked(user(ImagePart(data), "what?"))), 0)
        logits.append(session.logits())
    assert np.linalg.norm(logits[0] - logits[1]) > 0.05 * np.linalg.norm(logits[0])


@pytest.mark.parametrize("chunk", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_tokens_do_not_depend_on_the_chunks(engine, mixed, chunk):
    prompt = engine.prompt(asked(mixed))
    whole, pieces = session_of(engine), session_of(engine, chunk)
    assert tokens_of(whole, prompt) == tokens_of(pieces, prompt)
    assert whole._state.rope_delta == pieces._state.rope_delta < 0


def test_tokens_do_not_depend_on_what_is_resumed(engine, sighted, mixed):
    """The second turn goes on from a snapshot, or from all of the first; a fresh engine reads everything."""
    first = answer(engine, mixed)
    again = (mixed, first.message, user("and then?"))
    resumed = answer(engine, *again)
    assert resumed.done.usage.cached_tokens > 40
    with opened(sighted) as fresh:
        whole = answer(fresh, *again)
    assert whole.done.usage.cached_tokens == 0
    assert (resumed.text, resumed.done.usage.prompt_tokens) == (whole.text, whole.done.usage.prompt_tokens)


def test_a_cut_prompt_goes_on_inside_of_a_picture(engine, mixed):
    prompt = engine.prompt(asked(mixed))
    session = session_of(engine, 4)
    steps = session.sync(prompt)
    while session.tokens < prompt.spans[0].start + 2:
        next(steps)
    steps.close()
    assert prompt.spans[0].start < session.tokens < prompt.spans[0].start + prompt.spans[0].tokens
    assert tokens_of(session, prompt) == tokens_of(session_of(engine), prompt)


def test_the_same_tokens_with_another_picture_are_not_reused(engine):
    """Pad tokens alone would agree: prefixes are those of contents."""
    prompts = [engine.prompt(asked(user("a " * 30, ImagePart(data), "what?"))) for data in (CAT, DOG)]
    assert tuple(prompts[0]) == tuple(prompts[1])
    session = session_of(engine)
    tokens_of(session, prompts[0], 0)
    assert session.shared(prompts[1]) < prompts[0].spans[0].start <= session.shared(prompts[0])
    assert tokens_of(session, prompts[1]) == tokens_of(session_of(engine), prompts[1])
    wrong = answer(engine, user(ImagePart(CAT), "what?")), answer(engine, user(ImagePart(DOG), "what?"))
    assert wrong[1].done.stats.extra["reuse"].startswith("turn 1 (user) has another picture or video")


@pytest.fixture
def small(monkeypatch) -> None:
    """Plans without the room that a process and its temporaries take, which dwarfs this model."""
    monkeypatch.setattr(budget, "PROCESS", 0)


def tenth_of(g: budget.Geometry) -> int:
    """The least budget whose plan has room for a tenth of all experts."""
    low, high = 1, 10**10
    while high - low > 10**4:
        middle = (low + high) // 2
        try:
            enough = sum(budget.plan(g, middle, 512).slots) >= g.layers * g.experts // 10
        except MemoryPlanError:
            enough = False
        low, high = (low, middle) if enough else (middle, high)
    return high


def test_streamed_at_a_tenth_of_the_experts(engine, sighted, mixed, small):
    wanted = answer(engine, mixed)
    with opened(sighted, memory=tenth_of(engine.plan.geometry), context=512) as streamed:
        assert sum(streamed.plan.slots) <= 0.15 * streamed.plan.geometry.layers * streamed.plan.geometry.experts
        found = answer(streamed, mixed)
        assert found.text == wanted.text
        assert found.done.stats.extra["experts"]["bytes_read"] > 0
        assert streamed.eyes is not None
        assert streamed.eyes.tower is None, "its memory is given back before the experts need theirs"
        assert answer(streamed, mixed, found.message, user("more")).done.usage.cached_tokens > 0


@pytest.mark.slow
def test_yarn(tokenizer_spec, tmp_path, mixed):
    from make_checkpoint import write

    texts = []
    for name, yarn in (("plain", 1.0), ("yarn", 4.0)):
        path = write(tmp_path / name, "tiny", "F32", yarn=yarn, vision=True)
        config = json.loads((path / "config.json").read_text())
        config = {key: value for key, value in config.items() if not key.endswith("token_id")}
        (path / "config.json").write_text(json.dumps(config))
        (path / "tokenizer.json").write_text(json.dumps(tokenizer_spec))
        with opened(path) as engine:
            prompt = engine.prompt(asked(mixed))
            texts.append(tokens_of(session_of(engine), prompt))
            assert texts[-1] == tokens_of(session_of(engine, 8), prompt)
    assert texts[0] != texts[1]


def test_the_tower_is_loaded_when_first_needed_and_can_be_released(sighted, monkeypatch):
    loads, looks = [], []
    init, call = VisionTower.__init__, VisionTower.__call__
    monkeypatch.setattr(VisionTower, "__init__", lambda self, *args: (loads.append(1), init(self, *args))[1])
    monkeypatch.setattr(VisionTower, "__call__", lambda self, *args: (looks.append(1), call(self, *args))[1])
    with opened(sighted) as engine:
        assert engine.info.vision
        answer(engine, user("hello"))
        assert loads == []
        first = answer(engine, user(ImagePart(CAT), "what?"))
        answer(engine, user(ImagePart(CAT), "again, from the start"))
        assert (len(loads), len(looks)) == (1, 1), "one picture, encoded once, by its content"
        before = mx.get_active_memory()
        engine.release_vision()
        assert before - mx.get_active_memory() > 2e6
        answer(engine, user("other"))
        assert answer(engine, user(ImagePart(CAT), "what?")).text == first.text
        assert (len(loads), len(looks)) == (1, 1)
        answer(engine, user(ImagePart(DOG), "what?"))
        assert (len(loads), len(looks)) == (2, 2)


def test_it_counts_in_the_memory_plan(engine, pristine, small):
    names = [name for name, _ in engine.plan.items()]
    assert any("vision" in name for name in names)
    sight = engine.plan.geometry.sight
    assert engine.plan.vision >= sight.weights > 3e6
    before = mx.get_active_memory()
    assert engine.eyes is not None
    engine.release_vision()
    loaded = engine.eyes._loaded()
    assert loaded is engine.eyes.tower
    assert mx.get_active_memory() - before <= 1.05 * sight.weights
    with opened(pristine) as blind:
        assert (blind.plan.vision, blind.plan.geometry.sight) == (0, None)
    g = engine.plan.geometry
    seeing, blind_plan = (budget.plan(geometry, 10**9, 512) for geometry in (g, replace(g, sight=None)))
    assert seeing.total - blind_plan.total == seeing.vision >= sight.weights


def test_pictures_are_shown_smaller_where_memory_is_short(engine, sighted, small, monkeypatch, film):
    """As a plan says that has no room for large ones; and it is told."""
    monkeypatch.setattr(sight, "FEWEST", 6)
    monkeypatch.setattr(sight, "SHARE", 1e-9)
    monkeypatch.setattr(budget, "_temporaries", lambda g, tokens, context: 0)
    part = ImagePart(picture((480, 320)))
    assert engine.price(part) == 2 + 15 * 10
    with opened(sighted, memory=tenth_of(engine.plan.geometry), context=512) as short:
        assert short.plan.picture_limit == 6
        assert short.price(part) == 2 + 2 * 3
        found = answer(short, user(part, "what?"))
        assert found.done.stats.extra["notices"] == [
            "480x320 pixels are shown as 96x64: the memory has no room for more at once"
        ]
        assert short.price(ImagePart(CAT)) == engine.price(ImagePart(CAT)), "a small one is what it was"
        seen = short.look(VideoPart(clip(12, 3, (320, 320))))
        assert seen.rows * seen.columns <= 6 < engine.look(VideoPart(clip(12, 3, (320, 320)))).rows ** 2
        assert "no room" in seen.notice
        assert short.look(VideoPart(film)).notice == ""


def test_a_long_clip_is_seen_in_pieces(engine, film, monkeypatch):
    """So that its length costs no memory, and an answer can be stopped meanwhile."""
    eyes = engine.eyes
    whole = np.array(drained(eyes.encode(engine.look(VideoPart(film)))))
    monkeypatch.setattr(video, "PIECE", 12)
    eyes.forget()
    seen = engine.look(VideoPart(film))
    assert [len(piece) for piece in seen.pieces()] == [2 * 24, 2 * 24]
    assert len(list(eyes.encode(seen))) == 2
    np.testing.assert_allclose(np.array(drained(eyes.encode(seen))), whole, atol=1e-5)
    eyes.forget()
    events = engine.chat([user(VideoPart(film), "what?")], **OPTIONS)
    next(events)
    events.close()
    assert seen.key not in eyes._features, "stopped after the first piece"
    assert answer(engine, user(VideoPart(film), "what?")).text is not None


def test_a_text_only_checkpoint_says_so(pristine, sighted, tmp_path):
    """Also one that has kept the tower's config without its tensors, as text conversions do."""
    shutil.copytree(pristine, tmp_path / "kept")
    shutil.copy(sighted / "config.json", tmp_path / "kept" / "config.json")
    for path in (pristine, tmp_path / "kept"):
        with opened(path) as blind:
            assert not blind.info.vision
            with pytest.raises(MediaError, match="cannot see: it has no vision tower"):
                answer(blind, user(ImagePart(CAT), "what?"))
            assert answer(blind, user("hello")).text is not None


BAD = {
    "bomb": (ImagePart(bomb()), "too large"),
    "long": (ImagePart(encoded(Image.new("1", (100_000, 1)))), "too long"),
    "cut": (ImagePart(encoded(noise((400, 300)), "JPEG")[:5000]), "damaged"),
    "text": (ImagePart(b"text"), "text is not a picture"),
    "svg": (ImagePart(b"<svg/>"), "SVG"),
    "no clip": (VideoPart(b"text"), "clip cannot be read"),
}


@pytest.mark.parametrize("name", BAD)
def test_after_bad_media_the_engine_answers(engine, name):
    part, word = BAD[name]
    wanted = answer(engine, user(ImagePart(CAT), "what?")).text
    with pytest.raises(MediaError, match=word):
        answer(engine, user(ImagePart(CAT), part, "what?"))
    assert answer(engine, user(ImagePart(CAT), "what?")).text == wanted


def test_a_hundred_pictures_are_priced_first(sighted, monkeypatch):
    with opened(sighted, context=256) as engine:
        monkeypatch.setattr("qwen35_local.media.images.rgb", lambda image: pytest.fail("decoded"))
        parts = [ImagePart(picture((96, 64), seed=number)) for number in range(100)]
        with pytest.raises(ContextError, match=r"the prompt has 8\d\d tokens and the context is 256"):
            answer(engine, user(*parts, "what?"))


def test_guessed_tokens_change_nothing(engine, sighted, mixed):
    """The MTP head sees pictures as any token; what it guesses is checked all the same."""
    wanted = answer(engine, mixed)
    with opened(sighted, speculate="2") as ahead:
        found = answer(ahead, mixed)
        again = answer(ahead, mixed, found.message, user("and then?"))
    assert found.text == wanted.text
    assert found.done.stats.extra["speculation"]
    assert again.text == answer(engine, mixed, wanted.message, user("and then?")).text


def test_features_are_kept_within_their_room(engine, monkeypatch):
    eyes = engine.eyes
    eyes.forget()
    one, two = (engine.look(ImagePart(data)) for data in (CAT, DOG))
    monkeypatch.setattr(eyes, "_kept", drained(eyes.encode(one)).nbytes)
    drained(eyes.encode(two))
    assert list(eyes._features) == [two.key], "the oldest goes"


def test_a_long_clip_is_capped_and_said(tokenizer_spec, sighted, tmp_path):
    shutil.copytree(sighted, tmp_path / "model")
    rules = json.loads((sighted / "video_preprocessor_config.json").read_text()) | {"max_frames": 8}
    (tmp_path / "model" / "video_preprocessor_config.json").write_text(json.dumps(rules))
    with opened(tmp_path / "model") as engine:
        done = answer(engine, user(VideoPart(clip(40, 1 / 900, (32, 32))), "what?")).done
    assert done.stats.extra["notices"] == ["a clip of 600 minutes is shown as 8 frames, one every 4500.0 seconds"]


def test_configs_that_contradict_each_other(sighted, tmp_path):
    for number, (file, change, word) in enumerate(
        (
            ("config.json", {"image_token_id": 5}, "image_token_id in config.json is 5"),
            ("preprocessor_config.json", {"patch_size": 14}, "patch_size is 14 in the preprocessor config and 16"),
        )
    ):
        path = tmp_path / str(number)
        shutil.copytree(sighted, path)
        (path / file).write_text(json.dumps(json.loads((path / file).read_text()) | change))
        with pytest.raises(ConfigError, match=word):
            opened(path)
