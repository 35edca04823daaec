"""Backends: the libraries that compute. `open_engine` chooses one and imports it only then."""

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
    gpu_layers: int | Literal["auto"] = "auto",
    cpu_experts: int | Literal["auto"] = "auto",
    threads: int | None = None,
    streaming: Streaming | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> "MlxEngine | LlamaCppEngine":
    """Load a model; see `qwen35_local.open`. A GGUF file runs in llama.cpp, a checkpoint in MLX unless asked."""
    if backend not in BACKENDS:
        raise UsageError(f"backend must be {', '.join(BACKENDS[:-1])} or {BACKENDS[-1]}, not {backend!r}", "backend")
    gguf = gguf_of(model)
    if gguf is not None and backend == "mlx":
        raise UsageError(f"{gguf.name} is a GGUF file, which MLX does not read: use the backend llama.cpp", "backend")
    if gguf is not None or backend == "llama.cpp":
        from .llama_cpp.engine import open_llama_cpp
        from .llama_cpp.plan import Wishes

        for name, value in (("memory", memory), ("streaming", streaming)):
            if value is not None:
                raise UsageError(f"{name} is an option of the backend mlx: llama.cpp has cpu_experts", name)
        if speculate not in ("off", "auto"):
            raise UsageError("speculate is an option of the backend mlx", "speculate")
        wishes = Wishes(context, dtype, gpu_layers, cpu_experts, threads)
        return open_llama_cpp(gguf or find_model(model), wishes, on_progress)
    for name, value in (("gpu_layers", gpu_layers), ("cpu_experts", cpu_experts), ("threads", threads)):
        if value not in ("auto", None):
            raise UsageError(f"{name} is an option of the backend llama.cpp", name)
    path = find_model(model)
    try:
        from .mlx import MlxEngine
    except ImportError as error:
        if (error.name or "").split(".")[0] != "mlx":  # something else is missing, or broken
            raise
        raise BackendUnavailable(f"MLX cannot be loaded ({error}): it needs Apple Silicon or 64-bit Linux") from error
    return MlxEngine(path, context, dtype, on_progress, memory, streaming, speculate)


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
