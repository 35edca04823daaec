"""A whole model directory (tiny, random) and a way to run the command line in this process."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from make_checkpoint import write

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


@pytest.fixture(scope="session")
def pristine(tokenizer_spec: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write(tmp_path_factory.mktemp("models") / "tiny", "tiny", "F32")
    (path / "tokenizer.json").write_text(json.dumps(tokenizer_spec))
    return path


@pytest.fixture
def model(pristine: Path, tmp_path: Path) -> Path:
    """A copy to be damaged at will."""
    return Path(shutil.copytree(pristine, tmp_path / "tiny"))
