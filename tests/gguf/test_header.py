"""A GGUF header can lie in many ways; each is one sentence, and no damage is an exception of another kind."""

import struct
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qwen35_local.errors import CheckpointError, ConfigError, ModelNotFound, Qwen35Error
from qwen35_local.gguf.header import read_header
from qwen35_local.gguf.model import GgufModel, find_gguf
from qwen35_local.gguf.types import BY_NAME
from qwen35_local.gguf.write import Planned, header_bytes

F32 = BY_NAME["F32"]
QWEN = {"general.architecture": "qwen35moe"}


def file_of(path, metadata, *tensors, cut=0, data=None):
    planned = [Planned(name, shape, F32) for name, shape in tensors]
    body = bytes(sum(p.nbytes + -p.nbytes % 32 for p in planned)) if data is None else data
    whole = header_bytes(metadata, planned) + body
    path.write_bytes(whole[: len(whole) - cut])
    return path


def test_values_and_tensors_come_back(tmp_path):
    metadata = {"a": 7, "b": True, "c": 0.5, "d": "ö€", "e": ["x", "ÿ", ""], "f": [1, -2, 3]}
    header = read_header(file_of(tmp_path / "m.gguf", metadata, ("t", (3, 5)), ("u", (7,))))
    assert {key: getattr(value, "tolist", lambda v=value: v)() for key, value in header.metadata.items()} == metadata
    assert header.tensors["t"].shape == (3, 5)
    assert header.tensors["u"].offset == header.tensors["t"].offset + 64
    assert header.size == header.tensors["u"].offset + 32


def test_damage_is_named(tmp_path):
    path = tmp_path / "m.gguf"
    cases = {
        "begins with b'PK": b"PK\x03\x04" + bytes(100),
        "Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "GGUF version 1:": b"GGUF" + struct.pack("<IQQ", 1, 0, 0),
        "version 50331648": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
        "it claims 1152921504606846976 tensors": b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0),
        "goes on past byte": b"GGUF" + struct.pack("<IQQ", 3, 1, 0),
        "begins with b''": b"",
    }
    for message, content in cases.items():
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            read_header(path)
    file_of(path, QWEN, ("t", (64, 64)), cut=100)
    with pytest.raises(CheckpointError, match=r"truncated: t ends at byte \d+, the file at \d+"):
        read_header(path)
    file_of(path, {**QWEN, "general.alignment": 3}, ("t", (64, 64)))
    with pytest.raises(CheckpointError, match=r"general\.alignment is 3"):
        read_header(path)


def test_a_tensor_of_another_size_is_noticed(tmp_path):
    path = file_of(tmp_path / "m.gguf", QWEN, ("t", (4, 64)), ("u", (64,)))
    whole = path.read_bytes()
    at = whole.index(b"t", whole.index(b"qwen35moe")) + 1 + 4  # after the name and the count of dimensions
    path.write_bytes(whole[:at] + struct.pack("<Q", 32) + whole[at + 8 :])
    with pytest.raises(CheckpointError, match="u is said to be at offset 1024, the tensors before it end at 512"):
        read_header(path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(at=st.integers(0, 300), value=st.integers(0, 255), cut=st.integers(0, 200))
def test_no_damage_is_another_exception(tmp_path, at, value, cut):
    path = file_of(tmp_path / "m.gguf", QWEN | {"x": [1, 2], "y": ["a"]}, ("t", (4, 8)), ("u", (8,)))
    whole = bytearray(path.read_bytes())
    whole[at % len(whole)] = value
    path.write_bytes(bytes(whole[: len(whole) - cut]))
    with suppress(Qwen35Error):
        GgufModel.open(path)


def test_other_models_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="holds a 'llama' model: this engine runs qwen35moe only"):
        GgufModel.open(file_of(tmp_path / "m.gguf", {"general.architecture": "llama"}))
    with pytest.raises(ConfigError, match="vision part"):
        GgufModel.open(file_of(tmp_path / "mmproj.gguf", {"general.architecture": "clip"}))


def test_parts(tmp_path):
    def part(number, count=3, no=None, tensor=None):
        split = {"split.no": number if no is None else no, "split.count": count, "split.tensors.count": 3}
        path = tmp_path / f"m-{number + 1:05d}-of-00003.gguf"
        return file_of(path, {**QWEN, **split}, (tensor or f"t{number}", (8,)))

    paths = [part(0), part(1), part(2)]
    for path in paths:  # any of them names the whole
        assert GgufModel.open(path).files == tuple(paths)
    assert find_gguf(tmp_path) == paths[0]
    part(1, no=2)
    with pytest.raises(CheckpointError, match=r"holds part 3 of 3, not 2: it was renamed"):
        GgufModel.open(paths[0])
    part(1, tensor="t0")
    with pytest.raises(CheckpointError, match=r"t0 is in m-00001-of-00003\.gguf and in"):
        GgufModel.open(paths[0])
    part(1, count=2)
    with pytest.raises(CheckpointError, match="one of 2 parts, its name says 3"):
        GgufModel.open(paths[0])
    paths[1].unlink()
    with pytest.raises(CheckpointError, match=r"1 of 3 parts are missing in .*, the first is m-00002-of-00003\.gguf"):
        GgufModel.open(paths[2])


def test_finding(tmp_path):
    assert find_gguf(tmp_path) is None
    assert find_gguf(tmp_path / "none") is None
    file_of(tmp_path / "mmproj-F16.gguf", {})
    (tmp_path / "Q4").mkdir()
    first = file_of(tmp_path / "Q4" / "a-00001-of-00002.gguf", QWEN)
    file_of(tmp_path / "Q4" / "a-00002-of-00002.gguf", QWEN)
    assert find_gguf(tmp_path) == first
    file_of(tmp_path / "b.gguf", QWEN)
    with pytest.raises(ModelNotFound, match="2 GGUF models"):
        find_gguf(tmp_path)
