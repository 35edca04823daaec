"""Files of arrays: what was written comes back, what is not whole is refused, and a killed writer loses nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from qwen35_local.errors import SessionError, StorageError
from qwen35_local.sessions import file as module
from qwen35_local.sessions.file import BLOCK, Array, Entry, StateFile, write


def array(name: str, values: np.ndarray, dtype: str) -> Array:
    return Array(name, dtype, values.shape, memoryview(values.tobytes()))


def some(seed: int = 0) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [
        array("a", rng.standard_normal((3, 5, 7)).astype(np.float32), "float32"),
        array("long", rng.integers(0, 255, BLOCK * 2 + 12345, np.uint8), "uint8"),
        array("smooth", (1 + np.arange(60_000) / 1e6).astype(np.float32), "float32"),
        array("empty", np.zeros((0, 4), np.float32), "float32"),
        array("halves", rng.standard_normal((2, 100)).astype(np.float16).view(np.uint16).view(np.float16), "bfloat16"),
    ]


def loaded(path: Path) -> dict[str, bytes]:
    found: dict[str, bytearray] = {}

    def room(entry: Entry) -> memoryview:
        found[entry.name] = bytearray(entry.nbytes)
        return memoryview(found[entry.name])

    StateFile.open(path).read(room)
    return {name: bytes(data) for name, data in found.items()}


@pytest.mark.parametrize("compress", [False, True])
def test_what_was_written_comes_back(tmp_path, compress):
    path, arrays = tmp_path / "new" / "x.state", some()
    size = write(path, {"name": "ü"}, arrays, compress)
    opened = StateFile.open(path)
    assert opened.header == {"name": "ü"}
    assert opened.nbytes == size == path.stat().st_size
    assert [(e.name, e.dtype, e.shape) for e in opened.entries] == [(a.name, a.dtype, a.shape) for a in arrays]
    assert loaded(path) == {a.name: bytes(a.data) for a in arrays}
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o077 == 0, "conversations are nobody else's"
    smooth = next(entry for entry in opened.entries if entry.name == "smooth")
    assert (sum(block.stored for block in smooth.blocks) < 0.6 * smooth.nbytes) == compress


def test_every_damage_is_found(tmp_path):
    """Any byte, changed: refused, by the index or by the checksum of a block. The file stays as it is."""
    path = tmp_path / "x.state"
    write(path, {"n": 1}, some()[:1])
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(SessionError):
            loaded(path)
    assert path.stat().st_size == len(whole)


def test_cut_files_are_refused(tmp_path):
    path = tmp_path / "x.state"
    write(path, {"n": 1}, some())
    whole = path.read_bytes()
    for length in (0, 7, 39, 40, 1000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(SessionError, match=f"is cut: it has {length} bytes of|does not begin like one"):
            StateFile.open(path)
        assert path.stat().st_size == length


def test_other_formats_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "x.state"
    monkeypatch.setattr(module, "VERSION", 0)
    write(path, {}, some()[:1])
    monkeypatch.undo()
    with pytest.raises(SessionError, match="written in format 0 and this program reads 1"):
        StateFile.open(path)
    with pytest.raises(SessionError, match="cannot be read"):
        StateFile.open(tmp_path / "none.state")


def test_a_full_disk_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.state"
    write(path, {"n": 1}, some())

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left on device; what was there is kept"):
        write(path, {"n": 2}, some(1))
    assert StateFile.open(path).header == {"n": 1}
    assert loaded(path) == {a.name: bytes(a.data) for a in some()}
    assert list(tmp_path.iterdir()) == [path]


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from sessions.test_file import some, write
n = 0
print("go", flush=True)
while True:
    n += 1
    write(Path({path!r}), {{"n": n}}, some(n))
"""


def test_a_killed_writer_leaves_a_whole_file(tmp_path):
    """SIGKILL while a process replaces the file again and again: what lies there is one that it wrote, and whole."""
    path, tests = tmp_path / "x.state", str(Path(__file__).parent.parent)
    write(path, {"n": 0}, some(0))
    for delay in (0.0, 0.02, 0.05):
        code = WRITER.format(tests=tests, path=str(path))
        writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        with writer.stdout:
            writer.stdout.readline()
            time.sleep(delay)
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        found = loaded(path)
        assert found == {a.name: bytes(a.data) for a in some(StateFile.open(path).header["n"])}
