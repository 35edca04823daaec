"""The 397B's skeleton at its real geometry, sparse on disk: nothing may grow with 205 GB."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_index_is_read_in_a_second_and_fits_in_50_megabytes(tmp_path):
    command = [sys.executable, str(ROOT / "scripts" / "skeleton_397b.py"), str(tmp_path / "s"), "--tokens", "0"]
    paths = ":".join(str(ROOT / name) for name in (".", "tests", "scripts"))
    subprocess.run(command, capture_output=True, check=True, env={"PYTHONPATH": paths})  # writes it
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONPATH": paths})
    line = done.stdout.splitlines()[0]
    seconds, megabytes = float(line.split(": ")[1].split(" s")[0]), float(line.split(", ")[2].split(" MB")[0])
    assert seconds < 1
    assert megabytes < 50
    assert "6,684,672 bytes in 6 reads; a token uncached: 4.011 GB; all: 205.35 GB" in done.stdout
