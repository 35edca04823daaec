"""Every way a safetensors file or its index can lie must be refused, with the file named."""

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen35_local.checkpoint.files import Checkpoint, read_header, read_tensors
from qwen35_local.errors import CheckpointError, ConfigError, ModelNotFound


def entry(shape: list, begin: int, end: int, dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def file_of(path: Path, header: object, data: bytes, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def test_reads_what_the_library_writes(tmp_path):
    save_file = pytest.importorskip("safetensors.numpy").save_file
    arrays = {"a": np.ones((2, 3), np.float32), "b": np.zeros(5, np.uint8), "empty": np.zeros((0, 4), np.float16)}
    save_file(arrays, tmp_path / "x.safetensors", metadata={"format": "np"})
    tensors = read_header(tmp_path / "x.safetensors")
    assert {name: tensor.shape for name, tensor in tensors.items()} == {"a": (2, 3), "b": (5,), "empty": (0, 4)}
    data = (tmp_path / "x.safetensors").read_bytes()
    a = tensors["a"]
    assert data[a.offset : a.offset + a.nbytes] == arrays["a"].tobytes()


LIES = {
    "is truncated": (b"", b"", 0),
    "a damaged header": (b"{", bytes(4), None),
    "not a JSON object": (b"[]", b"", None),
    "occurs twice": (b'{"a": {}, "a": {}}', b"", None),
    "lacks dtype": ({"a": {"dtype": "F32", "shape": [1]}}, bytes(4), None),
    "unknown dtype": ({"a": entry([1], 0, 4, "F4")}, bytes(4), None),
    "impossible shape": ({"a": entry([-1], 0, 4)}, bytes(4), None),
    "but spans": ({"a": entry([2], 0, 4)}, bytes(4), None),
    "overlaps": ({"a": entry([1], 0, 4), "b": entry([1], 2, 6)}, bytes(6), None),
    "leaves a gap": ({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, bytes(12), None),
    "ends at": ({"a": entry([4], 0, 16)}, bytes(15), None),
    "after its last tensor": ({"a": entry([1], 0, 4)}, bytes(5), None),
    "the header ends at": ({"a": entry([1], 0, 4)}, b"", 200),
    "at most 100000000 are read": ({}, b"", 100_000_001),
}


@pytest.mark.parametrize("sentence", LIES)
def test_a_lying_file_is_refused(tmp_path, sentence):
    header, data, length = LIES[sentence]
    path = tmp_path / "m.safetensors"
    if sentence == "is truncated":
        path.write_bytes(b"abc")
    else:
        file_of(path, header, data, length)
    with pytest.raises(CheckpointError, match=sentence) as error:
        read_header(path)
    assert "m.safetensors" in str(error.value)


def test_a_git_lfs_pointer_is_named(tmp_path):
    pointer = tmp_path / "m.safetensors"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    with pytest.raises(CheckpointError, match="Git LFS pointer"):
        read_header(pointer)


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_or_read(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / "m.safetensors"
    path.write_bytes(data)
    with contextlib.suppress(CheckpointError):
        read_header(path)


@given(st.integers(0, 400), st.integers(0, 255))
def test_one_changed_byte_never_escapes(tmp_path_factory, at, value):
    path = tmp_path_factory.mktemp("flip") / "m.safetensors"
    file_of(path, {"a": entry([2, 3], 0, 24), "b": entry([4], 24, 40)}, bytes(40))
    damaged = bytearray(path.read_bytes())
    damaged[at % len(damaged)] = value
    path.write_bytes(damaged)
    try:
        tensors = read_header(path)
    except CheckpointError:
        return
    assert all(tensor.offset + tensor.nbytes <= len(damaged) for tensor in tensors.values())


def shard(path: Path, *names: str) -> None:
    file_of(path, {name: entry([1], 4 * i, 4 * i + 4) for i, name in enumerate(names)}, bytes(4 * len(names)))


def index(path: Path, weight_map: object) -> None:
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_index_and_odd_shard_names(tmp_path):
    shard(tmp_path / "model.safetensors-00001-of-00002.safetensors", "a")
    shard(tmp_path / "model.safetensors-00002-of-00002.safetensors", "b")
    assert set(read_tensors(tmp_path)) == {"a", "b"}
    index(tmp_path, {"a": "model.safetensors-00001-of-00002.safetensors"})
    assert set(read_tensors(tmp_path)) == {"a"}


def test_a_missing_shard_is_named(tmp_path):
    shard(tmp_path / "1.safetensors", "a")
    index(tmp_path, {"a": "1.safetensors", "b": "2.safetensors", "c": "3.safetensors"})
    with pytest.raises(CheckpointError, match=r"2 of 3 shards are missing in .*, the first is 2\.safetensors"):
        read_tensors(tmp_path)


@pytest.mark.parametrize(
    ("weight_map", "sentence"),
    [
        ({"a": "1.safetensors", "x": "1.safetensors"}, "x is in 1.safetensors, but it is not there"),
        ({"a": "../1.safetensors"}, "outside the directory"),
        ({"a": 1}, "has no weight_map"),
        (None, "has no weight_map"),
    ],
)
def test_a_lying_index_is_refused(tmp_path, weight_map, sentence):
    shard(tmp_path / "1.safetensors", "a")
    index(tmp_path, weight_map)
    with pytest.raises(CheckpointError, match=sentence):
        read_tensors(tmp_path)


def test_the_same_tensor_in_two_files(tmp_path):
    shard(tmp_path / "1.safetensors", "a")
    shard(tmp_path / "2.safetensors", "a")
    with pytest.raises(CheckpointError, match=r"a is in 1\.safetensors and in 2\.safetensors"):
        read_tensors(tmp_path)


def test_directories_without_a_model(tmp_path):
    with pytest.raises(ModelNotFound, match="no model directory"):
        Checkpoint.open(tmp_path / "nothing")
    with pytest.raises(ConfigError, match=r"config\.json is missing"):
        Checkpoint.open(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"no \.safetensors file"):
        Checkpoint.open(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="not valid JSON"):
        Checkpoint.open(tmp_path)


def test_an_unreadable_file_is_named(tmp_path):
    (tmp_path / "m.safetensors").mkdir()  # root may read any file, but nobody can read a directory
    with pytest.raises(CheckpointError, match=r"cannot read m\.safetensors"):
        read_header(tmp_path / "m.safetensors")
