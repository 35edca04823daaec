"""The llama.cpp backend: exact where it can be, and one sentence for whatever cannot be loaded."""

import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

import qwen35_local
from qwen35_local.errors import CheckpointError, MemoryPlanError, ModelNotFound, UsageError
from qwen35_local.gguf.header import read_header
from qwen35_local.gguf.model import GgufModel
from qwen35_local.gguf.write import Planned, write_file

pytestmark = pytest.mark.usefixtures("llama_cpp")


@pytest.fixture(scope="module")
def engine(open_local):
    with open_local("llama.cpp") as engine:
        yield engine


def rewritten(source: Path, out: Path, metadata: dict, shapes: dict | None = None) -> Path:
    """A copy of a GGUF file with other metadata or shapes of tensors: a file that is sound and says the wrong thing."""
    header = read_header(source)
    tensors = []
    for tensor in header.tensors.values():
        data = np.fromfile(source, np.uint8, tensor.nbytes, offset=tensor.offset)
        shape = (shapes or {}).get(tensor.name, tensor.shape)
        planned = Planned(tensor.name, shape, tensor.type)
        tensors.append((planned, iter([data[: planned.nbytes]])))
    for _ in write_file(out, {**header.metadata, **metadata}, tensors):
        pass
    return out


def test_logits_are_those_of_transformers(engine, golden):
    ids = golden["F32.ids"].tolist()
    for chunk in (512, 37):
        logits = engine.logits(ids, chunk)
        assert np.abs(logits - golden["F32.logits"]).max() <= 3e-4
    session = engine.open_session()
    for _ in session.sync(ids):
        pass
    said = []
    for _ in golden["F32.greedy"]:
        said.append(int(session.logits().argmax()))
        session.advance(said[-1])
    assert said == golden["F32.greedy"].tolist()
    session.close()


def test_a_long_prompt_and_decoding_are_those_of_transformers(engine, golden_decode):
    ids = golden_decode["ids"].tolist()
    assert len(ids) == 200
    assert np.abs(engine.logits(ids) - golden_decode["logits"]).max() <= 3e-4
    session = engine.open_session()
    for _ in session.sync(ids):
        pass
    said, apart = [], []
    for expected in golden_decode["steps"]:
        apart.append(np.abs(session.logits() - expected).max())
        said.append(int(session.logits().argmax()))
        session.advance(said[-1])
    assert said == golden_decode["said"].tolist()
    assert len(said) == 64
    # A step is 3e-5 to 8e-5 from it; one or two of 64 have nearly equal experts, which enlarge what libraries round.
    assert np.sort(apart)[-3] <= 1e-4
    assert max(apart) <= 1.5e-4
    session.close()


def test_logits_are_a_view_without_a_copy(engine):
    session = engine.open_session()
    for _ in session.sync([1, 2, 3]):
        pass
    assert not session.logits().flags.owndata
    assert session.logits().shape == (704,)
    session.close()


def test_a_failure_inside_the_library_leaves_a_usable_session(engine):
    session = engine.open_session()
    with pytest.raises(UsageError, match="the context of 512 tokens is full"):
        for _ in session.sync([1] * 513):
            pass
    assert session.tokens == 0
    for _ in session.sync([1, 2]):
        pass
    assert np.isfinite(session.logits()).all()
    session.close()


def test_loading_reports_bytes_and_can_be_stopped(tiny_gguf):
    heard = []
    with qwen35_local.open(tiny_gguf, on_progress=heard.append) as engine:
        assert engine.info.backend == "llama.cpp"
        assert engine.info.quantization == "F32"
    assert heard[-1].done == heard[-1].total == GgufModel.open(tiny_gguf).nbytes

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        qwen35_local.open(tiny_gguf, on_progress=stop)


def test_another_session_needs_memory(engine, monkeypatch):
    monkeypatch.setattr(type(engine), "has_room", lambda self: False)
    with pytest.raises(MemoryPlanError, match=r"another conversation at the same time needs [\d.]+ GB"):
        engine.open_session()
    monkeypatch.setattr(engine, "parallel", 2)
    for text in ("One", "Quite another"):  # what is free is used again
        assert engine.complete(text, max_tokens=2).done.usage.completion_tokens <= 2


def test_checkpoints_are_few_and_counted(engine):
    turn = engine.tokenizer.special["<|im_start|>"]
    session = engine.open_session()
    ids = [turn, 1, 2]
    for _ in range(9):
        ids += [turn, 3, 4, 5]
        for _ in session.sync(ids):
            pass
    one = session.stats()["checkpoint_bytes"] // 4
    assert session.stats()["checkpoint_bytes"] == 4 * one > 0
    # The first turn's and the last ones' are there: a new conversation and an edited one both go back to one.
    assert session.shared([*ids[:3], turn, 9, 9]) == 3
    assert session.shared([*ids[:-3], 9, 9]) == len(ids) - 4
    session.close()


@pytest.mark.parametrize(
    ("metadata", "shapes", "message"),
    [
        ({"qwen35moe.embedding_length": 96}, None, "llama.cpp cannot load bad.gguf: .*wrong shape"),
        ({"qwen35moe.expert_count": 0}, None, "llama.cpp (cannot load|crashes on) bad.gguf"),
        ({"qwen35moe.ssm.group_count": 3}, None, "llama.cpp (cannot load|crashes on) bad.gguf"),
        ({}, {"blk.0.attn_norm.weight": (64,)}, "llama.cpp cannot load bad.gguf: .*blk.0.attn_norm.weight"),
        ({"general.architecture": "llama"}, None, "this engine runs qwen35moe only"),
    ],
)
def test_a_file_that_contradicts_itself_is_one_sentence(tiny_gguf, tmp_path, metadata, shapes, message):
    bad = rewritten(tiny_gguf, tmp_path / "bad.gguf", metadata, shapes)
    with pytest.raises(CheckpointError, match=message) as caught:
        qwen35_local.open(bad)
    assert "\n" not in str(caught.value)


def test_damaged_files_are_one_sentence(tiny_gguf, tmp_path):
    whole = tiny_gguf.read_bytes()
    bad = tmp_path / "bad.gguf"
    cases = {
        "truncated: blk": whole[:-1000],
        "truncated": whole[: len(whole) // 2],
        "not a GGUF file": b"PK" + whole[2:],
        "version 9": whole[:4] + struct.pack("<I", 9) + whole[8:],
    }
    for message, content in cases.items():
        bad.write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            qwen35_local.open(bad)


def test_the_wrong_part_is_one_sentence(tiny_gguf, tmp_path):
    part = tmp_path / "tiny-00002-of-00003.gguf"
    shutil.copy(tiny_gguf, part)
    with pytest.raises(CheckpointError, match=r"2 of 3 parts are missing .* first is tiny-00001-of-00003\.gguf"):
        qwen35_local.open(part)


def test_selection(tiny_gguf, pristine, tmp_path):
    with pytest.raises(UsageError, match=r"tiny\.gguf is a GGUF file, which MLX does not read"):
        qwen35_local.open(tiny_gguf, backend="mlx")
    with pytest.raises(ModelNotFound, match=r"no file .*none\.gguf"):
        qwen35_local.open(tmp_path / "none.gguf")
    with pytest.raises(UsageError, match="threads is an option of the backend"):
        qwen35_local.open(pristine, threads=1)
    with pytest.raises(UsageError, match=r"backend must be auto, mlx or llama\.cpp, not 'cuda'"):
        qwen35_local.open(pristine, backend="cuda")
    shutil.copy(tiny_gguf, tmp_path / "a.gguf")
    with qwen35_local.open(tmp_path) as engine:  # a directory with one model in it
        assert (engine.info.backend, engine.info.model) == ("llama.cpp", "a")
    with qwen35_local.open(pristine, backend="llama.cpp", threads=1, context=64) as engine:  # converted on the way
        assert (engine.info.backend, engine.info.model, engine.info.context) == ("llama.cpp", "tiny", 64)
        assert engine.complete("Hi", max_tokens=3).done.usage.completion_tokens <= 3


def test_a_tokenizer_of_another_model_is_refused(tiny_gguf, tmp_path):
    bad = rewritten(tiny_gguf, tmp_path / "bad.gguf", {"tokenizer.ggml.model": "llama"})
    with pytest.raises(CheckpointError, match="no byte-level BPE tokenizer"):
        qwen35_local.open(bad)
