"""The tiny checkpoint to damage, and as a GGUF file."""

import shutil
from pathlib import Path

import pytest

from qwen35_local.gguf.convert import Types, convert


@pytest.fixture
def model_dir(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "model"))


@pytest.fixture(scope="session")
def tiny_gguf(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    out = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    for _ in convert(pristine, out, Types("f32", "f32")):
        pass
    return out
