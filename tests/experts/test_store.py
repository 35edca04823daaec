"""The packed store: the same bytes, and no way to open a wrong one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qwen35_local.checkpoint.files import Checkpoint
from qwen35_local.checkpoint.names import canonical
from qwen35_local.errors import CheckpointError, UsageError
from qwen35_local.experts.layout import Extent, LayerLayout, layer_layout
from qwen35_local.experts.store import INDEX, JOURNAL, open_store, pack, verify


def layouts_of(path: Path) -> list[LayerLayout]:
    tensors = {canonical(name): tensor for name, tensor in Checkpoint.open(path).tensors.items()}
    return [layer_layout(tensors, f"layers.{i}.mlp", 16) for i in range(8)]


def expert(layout: LayerLayout, number: int) -> list[bytes]:
    parts = [bytearray(part.nbytes) for part in layout.parts]
    for extent in layout.extents(number):
        parts[extent.part][extent.start : extent.start + extent.nbytes] = data(extent)
    return [bytes(part) for part in parts]


def data(extent: Extent) -> bytes:
    with extent.file.open("rb") as file:
        file.seek(extent.offset)
        return file.read(extent.nbytes)


@pytest.fixture
def store(packed, tmp_path) -> Path:
    assert list(pack(layouts_of(packed), tmp_path / "s"))[-1][0] == sum(layout.nbytes for layout in layouts_of(packed))
    return tmp_path / "s"


def test_the_same_experts(packed, store):
    theirs, ours = layouts_of(packed), open_store(store)
    assert [layout.parts for layout in ours] == [layout.parts for layout in theirs]
    assert [layout.name for layout in ours] == [layout.name for layout in theirs]
    for ours_, theirs_ in zip(ours, theirs, strict=True):
        for number in (0, 7, 15):
            assert expert(ours_, number) == expert(theirs_, number)
    assert list(verify(store))[-1] == (8, 8)
    assert sorted(file.name for file in store.iterdir()) == [INDEX, *(f"layer-{i:03d}.experts" for i in range(8))]


def test_damage_is_found(store):
    file = store / "layer-003.experts"
    content = bytearray(file.read_bytes())
    content[1000] ^= 1
    file.write_bytes(content)
    open_store(store)  # sizes agree
    with pytest.raises(CheckpointError, match=r"layer-003\.experts is damaged: its SHA-256 is"):
        list(verify(store))
    os.truncate(file, 100)
    with pytest.raises(CheckpointError, match=r"layer-003\.experts has 100 bytes, 16 records of \d+ are \d+"):
        open_store(store)


@pytest.mark.parametrize("change", [{"version": 2}, {"layers": [{}]}, {"layers": 3}])
def test_a_foreign_index_is_refused(store, change):
    index = json.loads((store / INDEX).read_text()) | change
    (store / INDEX).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"version 2|damaged"):
        open_store(store)


def test_names_stay_inside(store):
    text = (store / INDEX).read_text().replace("layer-000.experts", "../layer-000.experts")
    (store / INDEX).write_text(text)
    with pytest.raises(CheckpointError, match="outside the directory"):
        open_store(store)


def test_interrupted_packing_does_not_open_and_is_continued(packed, tmp_path):
    steps = pack(layouts_of(packed), tmp_path / "s")
    for _ in range(16 * 2 + 5):
        next(steps)
    steps.close()
    with pytest.raises(CheckpointError, match="did not finish: run it again"):
        open_store(tmp_path / "s")
    first = (tmp_path / "s" / "layer-000.experts").stat().st_mtime_ns
    list(pack(layouts_of(packed), tmp_path / "s"))
    assert (tmp_path / "s" / "layer-000.experts").stat().st_mtime_ns == first, "done layers are kept"
    list(verify(tmp_path / "s"))
    with pytest.raises(UsageError, match="holds a packed store already"):
        list(pack(layouts_of(packed), tmp_path / "s"))


def test_another_checkpoint_is_not_mixed_in(packed, released, tmp_path):
    steps = pack(layouts_of(packed), tmp_path / "s")
    next(steps)
    steps.close()
    with pytest.raises(UsageError, match="another checkpoint"):
        list(pack(layouts_of(released), tmp_path / "s"))


CHILD = """
import sys
sys.path[:0] = sys.argv[3:]
from pathlib import Path
from test_store import layouts_of
from qwen35_local.experts.store import pack
import time
for _ in pack(layouts_of(Path(sys.argv[1])), Path(sys.argv[2])):
    time.sleep(0.001)
"""


def test_kill_9_leaves_nothing_that_opens_wrong(packed, tmp_path):
    """Real processes, killed at moments spread over the work, until one gets to the end."""
    target, paths = tmp_path / "s", [str(Path(__file__).parent), *(p for p in sys.path if p)]
    for attempt in range(12):
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(packed), str(target), *paths])
        deadline = time.monotonic() + 60
        had = written(target)
        while child.poll() is None and written(target) < had + 3 + attempt and time.monotonic() < deadline:
            time.sleep(0.002)
        if child.poll() is not None:
            assert child.returncode == 0
            break
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        if not (target / INDEX).exists():
            with pytest.raises(CheckpointError, match="not a packed store"):
                open_store(target)
    assert list(verify(target))[-1] == (8, 8)
    for ours, theirs in zip(open_store(target), layouts_of(packed), strict=True):
        assert [expert(ours, e) for e in range(16)] == [expert(theirs, e) for e in range(16)]
    assert not (target / JOURNAL).exists()


def written(target: Path) -> int:
    """Files that are there by now: a clock that ticks as packing proceeds."""
    return sum(1 for _ in target.iterdir()) if target.exists() else 0
