"""Engines to run one suite on. Those of llama.cpp need its library: without it they are skipped and say so."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qwen35_local.backends.local import LocalEngine
from qwen35_local.gguf.convert import Types, convert

LOCAL = ("mlx", "llama.cpp")


@pytest.fixture(scope="session")
def llama_cpp(pytestconfig: pytest.Config) -> None:
    """Asked for by whatever needs the library. `--all-backends`, which CI gives, makes its absence a failure."""
    try:
        import llama_cpp  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        message = f"llama-cpp-python is not installed ({error}): run scripts/wheel-llamacpp"
        if pytestconfig.getoption("--all-backends"):
            pytest.fail(message)
        pytest.skip(message)


@pytest.fixture(scope="session")
def tiny_gguf(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint in float32. Not to be changed."""
    out = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    for _ in convert(pristine, out, Types("f32", "f32")):
        pass
    return out


@pytest.fixture(scope="session")
def open_local(request: pytest.FixtureRequest, pristine: Path, tiny_gguf: Path) -> Callable[..., LocalEngine]:
    """`open_local("mlx" or "llama.cpp", …)`: the tiny checkpoint, all in float32."""
    import qwen35_local

    def open_local(backend: str, **options: object) -> LocalEngine:
        if backend == "llama.cpp":
            request.getfixturevalue("llama_cpp")
            options.setdefault("threads", 1)  # two that wait for each other are slower on a busy machine
        options.setdefault("dtype", "float32")
        return qwen35_local.open(pristine if backend == "mlx" else tiny_gguf, backend=backend, **options)  # pyright: ignore[reportArgumentType]

    return open_local


@pytest.fixture(scope="module", params=LOCAL)
def local(request: pytest.FixtureRequest, open_local: Callable[..., LocalEngine]) -> Iterator[LocalEngine]:
    """Each local backend in turn."""
    with open_local(request.param) as engine:
        yield engine
