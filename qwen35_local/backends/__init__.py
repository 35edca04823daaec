"""Backends: the libraries that compute. `open_engine` chooses one and imports it only then."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..checkpoint.locate import find_model
from ..errors import BackendUnavailable, UsageError
from ..events import Progress

if TYPE_CHECKING:
    from .mlx import MlxEngine


def open_engine(
    model: str | Path = "miniature",
    *,
    context: int | None = None,
    dtype: str = "auto",
    backend: str = "auto",
    on_progress: Callable[[Progress], None] | None = None,
) -> "MlxEngine":
    """Load a model; see `qwen35_local.open`."""
    if backend not in ("auto", "mlx"):
        raise UsageError(f"backend must be auto or mlx, not {backend!r}", "backend")
    path = find_model(model)
    try:
        from .mlx import MlxEngine
    except ImportError as error:
        raise BackendUnavailable(f"MLX cannot be loaded ({error}): it needs Apple Silicon or 64-bit Linux") from error
    return MlxEngine(path, context, dtype, on_progress)
