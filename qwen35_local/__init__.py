"""Run Qwen3.5-397B-A17B on a personal machine: the public API.

import qwen35_local

with qwen35_local.open("miniature") as engine:
    for event in engine.chat("What is 17 + 25?"):
        if isinstance(event, qwen35_local.Text):
            print(event.text, end="")
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from .config import Streaming
from .engine import ChatRequest, Completion, Engine, EngineInfo, ImagePart, Message, Sampling, TextPart, VideoPart
from .errors import Qwen35Error
from .events import Done, Event, Held, Progress, Reasoning, Stats, Text, TokenLogprob, ToolCall, Usage

if TYPE_CHECKING:
    from .backends.llama_cpp.engine import LlamaCppEngine
    from .backends.mlx import MlxEngine

__version__ = "0.1.0"
__all__ = [
    "ChatRequest",
    "Completion",
    "Done",
    "Engine",
    "EngineInfo",
    "Event",
    "Held",
    "ImagePart",
    "Message",
    "Progress",
    "Qwen35Error",
    "Reasoning",
    "Sampling",
    "Stats",
    "Streaming",
    "Text",
    "TextPart",
    "TokenLogprob",
    "ToolCall",
    "Usage",
    "VideoPart",
    "__version__",
    "open",
]


def open(
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
    """Load a model and return its engine, a context manager. Use it in the thread that opened it.

    `model` is a directory, a GGUF file, a repository in the Hub cache, or "miniature", the small model that ships with
    the package. `backend` "auto" takes llama.cpp for GGUF files, and MLX for the rest where it can be loaded.
    `context` is the most tokens of prompt and answer together, by default all that the model allows; up to four times
    as many stretch its positions (YaRN). `kv_bits` keeps keys and values in 16, 8 or 4 bits instead of as computed.
    `reproducible`: the same bits for the same prompt, whatever was cached, at any budget. `dtype` is that of the
    activations: "auto" is the checkpoint's on Metal and float32 on a CPU; "float32" is for exact work.
    `memory` ("24GB", or bytes) is the most to use, by default a share of what is free; a model that needs more streams
    its experts from disk, with the same answers; `streaming` says how. `speculate` is how many tokens the model's MTP
    head guesses ahead, 1 to 3, or "auto": as many as pay by what is measured on the way. Answers stay the same.
    With llama.cpp `dtype` is that of the KV cache; `gpu_layers` layers go to the GPU, but the experts of the first
    `cpu_experts` ones stay in memory ("auto": as fits); `threads` compute on the CPU (None: physical cores but one).
    `on_progress` hears of loading. Raises a `Qwen35Error` whose text says what is wrong.
    """
    from .backends import open_engine

    return open_engine(
        model,
        context=context,
        dtype=dtype,
        memory=memory,
        backend=backend,
        speculate=speculate,
        kv_bits=kv_bits,
        reproducible=reproducible,
        gpu_layers=gpu_layers,
        cpu_experts=cpu_experts,
        threads=threads,
        streaming=streaming,
        on_progress=on_progress,
    )
