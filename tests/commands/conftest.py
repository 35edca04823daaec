"""A whole model directory (tiny, random) and a way to run the command line in this process."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from qwen35_local.cli import main


class Result(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def qwen35(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """`qwen35("run", "hello")` as the shell would run it."""

    def call(*argv: str) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main(argv)
        captured = capsys.readouterr()
        return Result(int(stopped.value.code or 0), captured.out, captured.err)

    return call


@pytest.fixture
def model(pristine: Path, tmp_path: Path) -> Path:
    """A copy to be damaged at will."""
    return Path(shutil.copytree(pristine, tmp_path / "tiny"))
