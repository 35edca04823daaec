"""Backends: the libraries that compute. `open_engine` chooses one and imports it only then."""

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..checkpoint.locate import find_model
from ..config import Streaming
from ..errors import BackendUnavailable, ModelNotFound, UsageError
from ..events import Progress
from ..gguf.model import find_gguf

if TYPE_CHECKING:
    from .llama_cpp.engine import LlamaCppEngine
    from .mlx import MlxEngine

BACKENDS = ("auto", "mlx", "llama.cpp")


def open_engine(
    model: str | Path = "miniature",
    *,
    context: int | None = None,
    dtype: str = "auto",
    memory: str | int | None = None,
    backend: str = "auto",
    speculate: str | int = "off",
    kv_bits: int | None = None,
    reproducible: bool = False,
    gpu_layers: int | Literal["auto"] = "auto",
    cpu_experts: int | Literal["auto"] = "auto",
    threads: int | None = None,
    streaming: Streaming | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> "MlxEngine | LlamaCppEngine":
    """Load a model; see `qwen35_local.open`. A GGUF file runs in llama.cpp, a checkpoint in MLX if it can."""
    if backend not in BACKENDS:
        raise UsageError(f"backend must be {', '.join(BACKENDS[:-1])} or {BACKENDS[-1]}, not {backend!r}", "backend")
    gguf = gguf_of(model)
    if gguf is not None and backend == "mlx":
        raise UsageError(f"{gguf.name} is a GGUF file, which MLX does not read: use the backend llama.cpp", "backend")
    if gguf is not None or backend == "llama.cpp" or (backend == "auto" and mlx_problem() and has_llama_cpp()):
        from .llama_cpp.engine import open_llama_cpp
        from .llama_cpp.plan import Wishes

        for name, value in (("memory", memory), ("streaming", streaming)):
            if value is not None:
                raise UsageError(f"{name} is an option of the backend mlx: llama.cpp has cpu_experts", name)
        if speculate not in ("off", "auto"):
            raise UsageError("speculate is an option of the backend mlx", "speculate")
        if reproducible:
            raise UsageError("reproducible is an option of the backend mlx", "reproducible")
        wishes = Wishes(context, dtype, gpu_layers, cpu_experts, threads, kv_bits)
        return open_llama_cpp(gguf or find_model(model), wishes, on_progress)
    for name, value in (("gpu_layers", gpu_layers), ("cpu_experts", cpu_experts), ("threads", threads)):
        if value not in ("auto", None):
            raise UsageError(f"{name} is an option of the backend llama.cpp", name)
    path = find_model(model)
    if problem := mlx_problem():
        from .llama_cpp.library import install_hint

        raise BackendUnavailable(
            f"MLX cannot be loaded ({problem}): it needs Apple Silicon or 64-bit Linux; llama.cpp runs elsewhere: "
            + install_hint()
        )
    from .mlx import MlxEngine

    return MlxEngine(path, context, dtype, on_progress, memory, streaming, speculate, kv_bits, reproducible)


def mlx_problem() -> str:
    """Why MLX cannot be loaded; nothing if it can. Its wheels are for Apple Silicon and 64-bit Linux."""
    try:
        importlib.import_module("mlx.core")
    except ImportError as error:
        return str(error)
    return ""


def has_llama_cpp() -> bool:
    """Whether llama-cpp-python is there; loading it says whether it is of use."""
    return importlib.util.find_spec("llama_cpp") is not None


def gguf_of(model: str | Path) -> Path | None:
    """The GGUF model that the user named, as a file or as a directory or repository that holds no checkpoint."""
    if model == "miniature":
        return None
    path = Path(model).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelNotFound(f"no file {path}")
        return path
    directory = find_model(model)
    return None if (directory / "config.json").exists() else find_gguf(directory)
