"""Processes that die at any moment, by any signal: what is there at the end is right, and little came twice."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import make_checkpoint
import pytest

from hub.fake_hub import FakeHub, Fault
from qwen35_local.hub.manifest import Manifest

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def environment(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.upper().endswith("_PROXY")}
    return kept | {"HF_HOME": str(tmp_path / "hf"), "QWEN35_MODELS": str(tmp_path / "models"), "NO_PROXY": "*"}


def start(hub: FakeHub, tmp_path: Path, *more: str) -> subprocess.Popen:
    command = ("download", "--repo", "me/model", "--endpoint", hub.endpoint, *more)
    return subprocess.Popen(
        [sys.executable, "-m", "qwen35_local.cli", *command],
        env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def kill_many(hub: FakeHub, tmp_path: Path, kills: int, longest: float) -> int:
    """Kill so many downloads at random moments of their transfer, then let one finish; returns the kills that hit."""
    luck, hit = random.Random(35), 0
    while hit < kills:
        hub.rate = 1e6
        before = hub.sent
        process = start(hub, tmp_path)
        while hub.sent == before and process.poll() is None:
            time.sleep(0.005)
        time.sleep(luck.uniform(0, longest))
        process.send_signal(luck.choice(SIGNALS))
        process.communicate(timeout=20)
        if process.returncode == 0:
            return hit
        hit += 1
    hub.rate = None
    process = start(hub, tmp_path)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "files verified" in out
    return hit


def check(hub: FakeHub, tmp_path: Path) -> None:
    path = tmp_path / "models" / "model"
    manifest = Manifest.read(path)
    assert manifest is not None
    for name in manifest.files:
        assert (path / name).read_bytes() == hub.files[name]


def download_kills(hub: FakeHub, tmp_path: Path, kills: int, megabytes: int, longest: float) -> None:
    noise = random.Random(1)
    for number in (1, 2):
        hub.files[f"model-0000{number}-of-00002.safetensors"] = noise.randbytes(megabytes * 500_000)
    assert kill_many(hub, tmp_path, kills, longest) == kills
    check(hub, tmp_path)
    twice = hub.sent / (megabytes * 1e6) - 1
    print(f"{kills} kills, {100 * twice:.2f} % fetched twice")
    assert twice < 0.03


def test_some_kills(hub, tmp_path):
    download_kills(hub, tmp_path, 3, 12, 0.3)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_hundred_kills(hub, tmp_path):
    download_kills(hub, tmp_path, 100, 200, 0.5)


def interrupted(
    hub: FakeHub, tmp_path: Path, ready: Callable[[], bool], *more: str, tries: int = 3
) -> tuple[float, int, str]:
    """Ctrl-C once `ready`: seconds until the end (a busy machine gets three tries), exit status, what was said."""
    process = start(hub, tmp_path, *more)
    while not ready():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    asked = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    if (seconds := time.monotonic() - asked) < 1 or tries == 1:
        return seconds, process.returncode, err
    hub.requests.clear()
    return interrupted(hub, tmp_path, ready, *more, tries=tries - 1)


def test_ctrl_c_answers_within_a_second_and_says_how_to_go_on(hub, tmp_path):
    hub.files["model-00001-of-00002.safetensors"] = random.Random(1).randbytes(8_000_000)
    hub.rate = 100_000
    seconds, status, err = interrupted(hub, tmp_path, lambda: hub.sent > 200_000)
    assert seconds < 1
    assert status == 130
    assert "stopped at" in err
    assert f"to go on: qwen35 download --repo me/model --endpoint {hub.endpoint}" in err


def test_a_stalled_connection_does_not_hold_ctrl_c(hub, tmp_path):
    hub.fault = lambda r: Fault(stall=1000) if r.kind == "cdn" else None
    seconds, _, _ = interrupted(hub, tmp_path, lambda: bool(hub.seen("cdn")) and hub.sent >= 1000)
    assert seconds < 1


def test_ctrl_c_of_a_download_that_converts(hub, tmp_path):
    """While a source shard is fetched and the one before was converted."""
    release = make_checkpoint.write(tmp_path / "release", "tiny", "BF16", shards=3)
    hub.files = {file.name: file.read_bytes() for file in release.iterdir()}
    hub.rate = 500_000
    made = tmp_path / "models" / "model-mxfp4.partial" / "model-00001-of-00003.safetensors"
    ready = lambda: made.exists() and bool(hub.seen("cdn"))  # noqa: E731
    seconds, status, err = interrupted(hub, tmp_path, ready, "--quant", "mxfp4")
    assert seconds < 1
    assert status == 130
    assert f"to go on: qwen35 download --repo me/model --endpoint {hub.endpoint} --quant mxfp4" in err
    hub.rate = None
    process = start(hub, tmp_path, "--quant", "mxfp4")
    assert process.communicate(timeout=60)[0].endswith("try it: qwen35 chat --model model-mxfp4\n")
