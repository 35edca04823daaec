"""Engines to run one suite on. Those of llama.cpp need its library: without it they are skipped and say so."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qwen35_local.backends.local import LocalEngine
from qwen35_local.gguf.convert import Types, convert

LOCAL = ("mlx", "llama.cpp")


@pytest.fixture(scope="session")
def tiny_gguf(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint in float32. Not to be changed."""
    out = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    for _ in convert(pristine, out, Types("f32", "f32")):
        pass
    return out


@pytest.fixture(scope="session")
def roomy(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint with a context that the instructions of tools fit in. Not to be changed."""
    path = Path(shutil.copytree(pristine, tmp_path_factory.mktemp("models") / "roomy"))
    config = json.loads((path / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 4096
    (path / "config.json").write_text(json.dumps(config))
    return path


@pytest.fixture(scope="session")
def open_local(
    request: pytest.FixtureRequest, pristine: Path, tiny_gguf: Path, roomy: Path
) -> Callable[..., LocalEngine]:
    """`open_local("mlx" or "llama.cpp", …)`: the tiny checkpoint, all in float32; with `room` for tools if asked."""
    import qwen35_local

    def open_local(backend: str, room: bool = False, **options: object) -> LocalEngine:
        if backend == "llama.cpp":
            request.getfixturevalue("llama_cpp")
            options.setdefault("threads", 1)  # two that wait for each other are slower on a busy machine
        options.setdefault("dtype", "float32")
        path = roomy if room else pristine if backend == "mlx" else tiny_gguf
        return qwen35_local.open(path, backend=backend, **options)  # pyright: ignore[reportArgumentType]

    return open_local


@pytest.fixture(scope="module", params=LOCAL)
def local(request: pytest.FixtureRequest, open_local: Callable[..., LocalEngine]) -> Iterator[LocalEngine]:
    """Each local backend in turn."""
    with open_local(request.param) as engine:
        yield engine
