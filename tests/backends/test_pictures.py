"""Pictures and clips: what every local backend promises; llama.cpp against transformers (tests/golden/drawn.json)."""

import io
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image
from tiny import opened
from vision_cases import DRAWN, Shown, prompt

import qwen35_local
from qwen35_local.backends.llama_cpp.engine import LlamaCppEngine
from qwen35_local.backends.local import LocalEngine
from qwen35_local.engine import ImagePart, Message, Prompt, Span, TextPart, VideoPart
from qwen35_local.errors import CheckpointError, MediaError
from qwen35_local.events import Done, Progress
from qwen35_local.gguf.convert import Types, convert, convert_vision
from qwen35_local.gguf.model import GgufModel
from qwen35_local.gguf.vision import find_vision
from qwen35_local.gguf.write import Planned, write_file
from qwen35_local.model.vision import VisionTower

GREEDY = {"temperature": 0, "thinking": False, "max_tokens": 6}


@pytest.fixture(scope="session")
def seeing_gguf(sighted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as GGUF, its vision part beside it. Not to be changed."""
    out = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    for steps in (convert(sighted, out, Types("f32", "f32")), convert_vision(sighted, mmproj(out), Types("f32"))):
        for _ in steps:
            pass
    return out


def mmproj(model: Path) -> Path:
    return model.with_name(f"mmproj-{model.name}")


@pytest.fixture(scope="module")
def open_seeing(request: pytest.FixtureRequest, sighted: Path, seeing_gguf: Path) -> Callable[[str], LocalEngine]:
    def open_seeing(backend: str) -> LocalEngine:
        if backend == "mlx":
            return qwen35_local.open(sighted, dtype="float32")
        request.getfixturevalue("llama_cpp")
        return qwen35_local.open(seeing_gguf, dtype="float32", threads=1)

    return open_seeing


@pytest.fixture(scope="module", params=("mlx", "llama.cpp"))
def engine(request: pytest.FixtureRequest, open_seeing: Callable[[str], LocalEngine]) -> Iterator[LocalEngine]:
    with open_seeing(request.param) as engine:
        yield engine


def picture(seed: int, width: int = 96, height: int = 64) -> ImagePart:
    return ImagePart(encoded([noise_picture(seed, width, height)]))


def clip(seed: int) -> VideoPart:
    return VideoPart(encoded([noise_picture(seed + i, 64, 64) for i in range(4)]))


def noise_picture(seed: int, width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3))
    return Image.fromarray(noise.astype(np.uint8)).resize((width, height))


def encoded(frames: list[Image.Image]) -> bytes:
    file = io.BytesIO()
    if len(frames) == 1:
        frames[0].save(file, "PNG")
    else:
        frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=500)
    return file.getvalue()


def asked(*parts: ImagePart | VideoPart | str) -> Message:
    return Message("user", tuple(TextPart(part) if isinstance(part, str) else part for part in parts))


def test_a_picture_is_part_of_the_prompt(engine):
    assert engine.info.vision
    events = list(engine.chat([asked("what is this?", picture(1))], **GREEDY))
    blind = engine.complete([asked("what is this?")], **GREEDY).done.usage.prompt_tokens
    done = events[-1]
    assert isinstance(done, Done)
    assert done.usage.prompt_tokens == blind + 6 + 2  # 2 x 3 tokens between two marks
    assert [type(event) for event in events].index(Progress) == 0


def test_a_clip_is_pairs_of_frames_after_their_times(engine):
    request = qwen35_local.ChatRequest.of([asked("what moves?", clip(5))])
    found = engine.prompt(request)
    assert [(span.rows, span.columns, span.frame) for span in found.spans] == [(2, 2, 0), (2, 2, 1)]
    text = engine.tokenizer.decode(found)
    assert text.count("seconds>") == 2
    assert engine.complete([asked("what moves?", clip(5))], **GREEDY).done.usage.completion_tokens >= 1


def test_the_next_turn_sees_nothing_again_and_another_picture_is_another(engine):
    first = [Message("system", "Look. " * 20), asked(picture(2), "what is this?")]
    answer = engine.complete(first, **GREEDY)
    second = [*first, answer.message, Message("user", "and where?")]
    done = engine.complete(second, **GREEDY).done
    assert done.usage.cached_tokens >= answer.done.usage.prompt_tokens - 12  # all but how the answer begins
    other = engine.complete([first[0], asked(picture(3), "what is this?")], **GREEDY).done.usage
    system = len(engine.tokenize("Look. " * 20))
    assert system <= other.cached_tokens < system + 12  # up to the picture, although its tokens are spelled the same


def test_what_is_reused_is_what_would_be_computed(engine):
    first = [Message("system", "Look."), asked(picture(2), "one", picture(4, 64, 128), "two", clip(9), "three")]
    longer = [*first, Message("assistant", "Yes."), asked(picture(2), "again")]
    kept, fresh = engine.open_session(), engine.open_session()
    prompts = [engine.prompt(qwen35_local.ChatRequest.of(messages)) for messages in (first, longer)]
    for _ in kept.sync(prompts[0]):
        pass
    kept.advance(5)
    for _ in kept.sync(prompts[1]):
        pass
    for _ in fresh.sync(prompts[1]):
        pass
    np.testing.assert_allclose(kept.logits(), fresh.logits(), atol=1e-3)
    kept.close()
    fresh.close()


def test_a_prompt_cancelled_inside_a_picture_goes_on(engine):
    found = engine.prompt(qwen35_local.ChatRequest.of([asked("a", picture(6, 480, 512), "b")]))
    assert found.spans[0].tokens == 15 * 16
    sessions = [engine.open_session(), engine.open_session()]
    if engine.info.backend == "llama.cpp":
        sessions[0]._chunk = 50
    steps = sessions[0].sync(found)
    for done, _ in steps:
        if done > found.spans[0].start:
            break
    steps.close()
    for session in sessions:
        for _ in session.sync(found):
            pass
    np.testing.assert_allclose(sessions[0].logits(), sessions[1].logits(), atol=1e-3)
    for session in sessions:
        session.close()


@pytest.mark.parametrize("backend", ["mlx", "llama.cpp"])
def test_a_conversation_about_a_picture_goes_on_in_another_process(open_seeing, backend, tmp_path):
    """Positions lag behind tokens from the first picture on, in the state and in every snapshot of it."""
    first = [Message("system", "Look."), asked(picture(2, 256, 160), "what is this?")]
    later, other = Message("user", "and where?"), asked(picture(2, 256, 160), "is it red?")
    with open_seeing(backend) as engine:
        kept = engine.keep("seen", tmp_path)
        said = [*first, engine.complete(first, **GREEDY).message]
        kept.remember(said)
    with open_seeing(backend) as engine:
        kept = engine.keep("seen", tmp_path)
        assert kept.resumed > 40
        again = engine.complete([*kept.messages, later], **GREEDY)
        assert again.done.usage.cached_tokens > 40
        before = engine.complete([first[0], other], **GREEDY)  # from a snapshot before or behind the picture
        assert before.done.usage.cached_tokens > 0
    with open_seeing(backend) as engine:
        assert engine.complete([*said, later], **GREEDY).text == again.text
        assert engine.complete([first[0], other], **GREEDY).text == before.text


def test_eyes_can_be_closed_and_opened(engine):
    before = engine.complete([asked(picture(7))], **GREEDY)
    engine.release_vision()
    assert engine.complete([asked(picture(7))], **GREEDY).text == before.text
    assert engine.complete([asked(picture(8))], **GREEDY).done.usage.completion_tokens >= 1


def test_what_is_no_picture_is_refused_by_the_call(engine):
    with pytest.raises(MediaError, match="text is not a picture"):
        engine.chat([asked(ImagePart(b"hello"))])


def test_backends_see_the_same(open_seeing):
    with open_seeing("mlx") as mlx, open_seeing("llama.cpp") as llama:
        for parts in ((picture(1), "what?"), ("this", picture(2, 256, 160), "and", clip(3), "?")):
            options = GREEDY | {"max_tokens": 12}
            assert mlx.complete([asked(*parts)], **options).text == llama.complete([asked(*parts)], **options).text


@dataclass(frozen=True)
class Tile:
    """A `Seen` of `vision_cases`."""

    it: Shown
    key: str
    notice: str = ""

    @property
    def rows(self) -> int:
        return self.it.grid[1] // 2

    @property
    def columns(self) -> int:
        return self.it.grid[2] // 2

    @property
    def size(self) -> tuple[int, int]:
        return self.it.grid[2] * 16, self.it.grid[1] * 16

    @property
    def seconds(self) -> tuple[float, ...] | None:
        return tuple(map(float, range(self.it.grid[0]))) if self.it.clip else None

    def pixels(self) -> np.ndarray:
        return self.it.pixels()


def drawn(case: str) -> tuple[Prompt, dict[str, np.ndarray]]:
    """A prompt of `vision_cases`, and what transformers says to it: `logits` of its last token, `greedy` after it."""
    golden = np.load(Path(__file__).parent.parent / "golden" / "drawn.npz")
    ids, shown, runs = prompt(case)
    tiles = [Tile(it, f"{case} {number}") for number, it in enumerate(shown)]
    spans = [Span(at, tiles[i].rows, tiles[i].columns, tiles[i], pair) for at, i, pair in runs]
    found = {"logits": golden[f"{case}.logits"][-1], "greedy": golden[f"{case}.greedy"]}
    return Prompt(ids.tolist(), spans), found


@pytest.mark.parametrize("case", DRAWN)
def test_llama_cpp_says_what_transformers_says(open_seeing, sighted, case):
    """Its tower looks GELU up in a table of 16-bit floats, and random experts that are nearly equal make much of that:
    so its features are compared, its first token, and with exact features all the rest."""
    ids, theirs = drawn(case)
    weights, config = opened(sighted)
    assert config.vision is not None
    tower = VisionTower(weights, config.vision)
    with open_seeing("llama.cpp") as engine:
        session = engine.open_session()
        for _ in session.sync(ids):
            pass
        assert session.logits().argmax() == theirs["greedy"][0]
        session.close()
        for span in ids.spans:
            assert isinstance(span.seen, Tile)
            features = np.array(tower(mx.array(span.seen.it.patches()), span.seen.it.grid))
            exact = features[span.frame * span.tokens :][: span.tokens]
            rows = engine._eyes.rows(span)
            assert np.linalg.norm(rows - exact) <= 1e-3 * np.linalg.norm(exact)
            rows[:] = exact
        session = engine.open_session()
        for _ in session.sync(ids):
            pass
        assert np.abs(session.logits() - theirs["logits"]).max() <= 3e-4
        for token in theirs["greedy"]:
            assert session.logits().argmax() == token
            session.advance(int(token))
        session.close()


def test_the_vision_part_is_found_beside_the_model_or_above_it(seeing_gguf, tmp_path):
    model = tmp_path / "UD-Q4_K_XL" / "tiny.gguf"
    model.parent.mkdir()
    shutil.copy(seeing_gguf, model)
    gguf = GgufModel.open(model)
    assert find_vision(gguf) is None
    (tmp_path / "mmproj-other.gguf").write_bytes(b"GGUF of something else")
    assert find_vision(gguf) is None  # another model's
    (tmp_path / "mmproj-other.gguf").unlink()
    for name in ("F32", "F16"):
        shutil.copy(mmproj(seeing_gguf), tmp_path / f"mmproj-{name}.gguf")
    assert (found := find_vision(gguf)) is not None
    assert found.path.name == "mmproj-F16.gguf"
    shutil.copy(mmproj(seeing_gguf), mmproj(model))
    assert (found := find_vision(gguf)) is not None
    assert found.path == mmproj(model)


def test_without_a_vision_part_the_sentence_says_what_to_fetch(llama_cpp, seeing_gguf, tmp_path):
    shutil.copy(seeing_gguf, tmp_path / "a.gguf")
    with qwen35_local.open(tmp_path / "a.gguf", threads=1) as engine:
        assert not engine.info.vision
        with pytest.raises(MediaError, match=r"a cannot see: there is no mmproj\*\.gguf beside it"):
            engine.chat([asked(picture(1))])


def spoiled(part: Path, metadata: dict, drop: str = "") -> None:
    """Rewrite a vision part with other metadata, or without a tensor."""
    from qwen35_local.gguf.header import read_header

    header = read_header(part)
    tensors = [
        (Planned(t.name, t.shape, t.type), iter([np.fromfile(part, np.uint8, t.nbytes, offset=t.offset)]))
        for t in header.tensors.values()
        if t.name != drop
    ]
    for _ in write_file(part, {**header.metadata, **metadata}, tensors):
        pass


@pytest.mark.parametrize(
    ("metadata", "drop", "message"),
    [
        ({"clip.vision.projection_dim": 64}, "", "makes features of 64 channels, the model's hidden size is 128"),
        ({"clip.projector_type": "mlp"}, "", "vision part of another model: it has 'mlp'"),
        ({"clip.vision.block_count": 4}, "", r"has no tensor v\.blk\.3\."),
        ({"clip.vision.embedding_length": 152}, "", "metadata ask for"),
        ({"clip.vision.patch_size": 0}, "", r"lacks clip\.vision\.patch_size"),
        ({"general.architecture": "qwen35moe"}, "", "is not the vision part of a model"),
        ({}, "mm.2.bias", r"has no tensor mm\.2\.bias"),
    ],
)
def test_a_vision_part_that_does_not_fit_is_one_sentence(seeing_gguf, tmp_path, metadata, drop, message):
    model = Path(shutil.copy(seeing_gguf, tmp_path / "a.gguf"))
    spoiled(Path(shutil.copy(mmproj(seeing_gguf), mmproj(model))), metadata, drop)
    with pytest.raises(CheckpointError, match=message) as caught:
        find_vision(GgufModel.open(model))
    assert "\n" not in str(caught.value)


def test_a_checkpoint_with_eyes_is_converted_on_the_way(llama_cpp, sighted):
    with qwen35_local.open(sighted, backend="llama.cpp", threads=1, dtype="float32") as engine:
        assert isinstance(engine, LlamaCppEngine)
        assert engine.info.vision
        scratch = engine._scratch
        assert engine.complete([asked(picture(1))], **GREEDY).done.usage.completion_tokens >= 1
    assert scratch is not None
    assert not Path(scratch.name).exists()
