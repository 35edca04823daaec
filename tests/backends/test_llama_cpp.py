"""The llama.cpp backend: exact where it can be, and one sentence for whatever cannot be loaded."""

import shutil
import struct
import sys
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest

import qwen35_local
from qwen35_local.backends.llama_cpp.engine import LlamaCppEngine
from qwen35_local.backends.llama_cpp.handle import Model
from qwen35_local.backends.llama_cpp.library import LOG, load
from qwen35_local.backends.llama_cpp.machine import Machine
from qwen35_local.backends.llama_cpp.plan import Wishes, make_plan
from qwen35_local.errors import BackendUnavailable, CheckpointError, MemoryPlanError, ModelNotFound, UsageError
from qwen35_local.gguf import write
from qwen35_local.gguf.header import read_header
from qwen35_local.gguf.model import GgufModel
from qwen35_local.gguf.write import Planned, write_file

pytestmark = pytest.mark.usefixtures("llama_cpp")


@pytest.fixture(scope="module")
def engine(open_local):
    with open_local("llama.cpp") as engine:
        yield engine


def rewritten(
    source: Path, out: Path, metadata: dict, shapes: dict | None = None, only: Collection[str] | None = None
) -> Path:
    """A copy of a GGUF file with other metadata or shapes of tensors: a file that is sound and says the wrong thing.

    With `only` it has these tensors, and of a part the metadata given alone.
    """
    header = read_header(source)
    tensors = []
    for tensor in header.tensors.values():
        if only is not None and tensor.name not in only:
            continue
        data = np.fromfile(source, np.uint8, tensor.nbytes, offset=tensor.offset)
        shape = (shapes or {}).get(tensor.name, tensor.shape)
        planned = Planned(tensor.name, shape, tensor.type)
        tensors.append((planned, iter([data[: planned.nbytes]])))
    for _ in write_file(out, {**({} if "split.no" in metadata else header.metadata), **metadata}, tensors):
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
    # A step is 3e-5 to 8e-5 from it; a few of 64 have nearly equal experts, which enlarge what libraries round
    # (transformers itself is up to 5e-5 from float64 in these steps).
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
        ({"qwen35moe.expert_count": 2**30}, None, r"llama.cpp crashes on bad.gguf \(status -6\): GGML_ASSERT"),
        ({"qwen35moe.ssm.group_count": 3}, None, "llama.cpp cannot load bad.gguf: .*attn_qkv.weight' has wrong shape"),
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


def test_a_model_in_parts_is_whole_by_any_of_them(engine, tiny_gguf, tmp_path, monkeypatch):
    # The types that llama.cpp's own splitter gives these keys, which we read and never write; it takes no others.
    value, kinds = write._value, {np.uint16: "<IH", np.int32: "<Ii"}
    codes = {np.uint16: 2, np.int32: 5}
    monkeypatch.setattr(
        write, "_value", lambda v: struct.pack(kinds[type(v)], codes[type(v)], v) if type(v) in kinds else value(v)
    )
    header = read_header(tiny_gguf)
    names = list(header.tensors)
    cuts, files = [0, 40, 41, len(names)], []
    for part in range(3):
        metadata = {
            "split.no": np.uint16(part),
            "split.count": np.uint16(3),
            "split.tensors.count": np.int32(len(names)),
        }
        metadata |= header.metadata if part == 0 else {"general.architecture": "qwen35moe"}
        inside = names[cuts[part] : cuts[part + 1]]
        files.append(rewritten(tiny_gguf, tmp_path / f"tiny-{part + 1:05d}-of-00003.gguf", metadata, only=inside))
    ids = [5, 6, 7, 8]
    for file in files[:2]:
        with qwen35_local.open(file, dtype="float32", threads=1) as whole:
            assert whole.info.model == "tiny"
            np.testing.assert_array_equal(whole.logits(ids), engine.logits(ids))
    moved = {file: file.read_bytes() for file in files[1:]}
    for file, other in zip(files[1:], reversed(files[1:]), strict=True):
        file.write_bytes(moved[other])
    with pytest.raises(CheckpointError, match=r"00002-of-00003\.gguf holds part 3 of 3, not 2: it was renamed"):
        qwen35_local.open(files[0])


@pytest.mark.parametrize(("bits", "nbytes"), [(16, 64), (8, 34), (4, 18)])
def test_keys_and_values_in_fewer_bits(engine, tiny_gguf, golden, bits, nbytes):
    ids = golden["F32.ids"].tolist()
    with qwen35_local.open(tiny_gguf, kv_bits=bits, threads=1) as packed:
        assert isinstance(packed, LlamaCppEngine)
        packed_size, size = (one.plan.parts["keys and values of 512 tokens"] for one in (packed, engine))
        assert packed_size * 128 == size * nbytes
        apart = np.abs(packed.logits(ids) - engine.logits(ids)).max()
        assert 0 < apart < {16: 0.05, 8: 0.5, 4: 2}[bits]
        session = packed.open_session()
        for _ in session.sync(ids):
            pass
        if bits > 4:
            assert session.logits().argmax() == golden["F32.greedy"][0]
        session.close()


def test_experts_stay_in_memory_by_layer(tiny_gguf):
    """The struct that says so is not declared by the binding: only the library can tell whether it is as it should be.
    Without a GPU the layers go nowhere, and the library says of every tensor where it was told to put it."""
    C, heard = load(), []
    log = C.llama_log_callback(lambda level, text, data: heard.append(text.decode()))
    model = GgufModel.open(tiny_gguf)
    plan = make_plan(model, Machine(10**10, (10**10,), 2), Wishes(cpu_experts=3))
    assert (plan.gpu_layers, plan.cpu_experts) == (9, 3)
    C.llama_log_set(log, None)
    try:
        Model(C, model, plan).close()
    finally:
        LOG.attach(C)
    told = [line for line in heard if "overrid" in line and "blk." in line]
    assert len(told) == 9, told  # three stacks in each of three layers
    assert all(any(f"blk.{layer}.ffn_" in line for line in told) for layer in range(3))


def test_the_mtp_head_that_we_write_is_one_for_the_library(tiny_gguf, tmp_path):
    """Asked for, its tensors are loaded and checked; we do not ask, as guesses cost more than they give there."""

    def loads(path: Path) -> bool:
        C = load()
        params = C.llama_model_default_params()
        params.load_mtp = True
        model = C.llama_model_load_from_file(str(path).encode(), params)
        if model:
            C.llama_model_free(model)
        return bool(model)

    assert loads(tiny_gguf)
    names = read_header(tiny_gguf).tensors
    for name in ("blk.8.nextn.eh_proj.weight", "blk.8.nextn.enorm.weight", "blk.8.attn_q.weight"):
        assert not loads(rewritten(tiny_gguf, tmp_path / "bad.gguf", {}, only=[n for n in names if n != name])), name


def test_where_mlx_cannot_be_loaded_a_checkpoint_runs_in_llama_cpp(pristine, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlx.core", None)  # as if it were not installed
    with qwen35_local.open(pristine, context=64, threads=1) as engine:
        assert engine.info.backend == "llama.cpp"
    with pytest.raises(BackendUnavailable, match=r"MLX cannot be loaded .* llama\.cpp runs elsewhere: .* -m pip"):
        qwen35_local.open(pristine, backend="mlx")


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
