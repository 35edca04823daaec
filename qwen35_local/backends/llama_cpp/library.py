"""llama-cpp-python's low-level layer: found, version-checked, quiet. Imported only when a GGUF model is opened.

Only ctypes declarations are used, never the high-level `Llama` class: that one reads a whole conversation again when
any of it changes, and decodes all text so far for every token.
"""

import ctypes
import importlib
import os
import platform
import shlex
import shutil
import sys
from types import ModuleType
from typing import Any

from ...errors import BackendUnavailable

FIRST, BELOW = (0, 3, 36), (0, 4)  # the struct layouts and the qwen35moe architecture that this was written for
WHEELS = "https://abetlen.github.io/llama-cpp-python/whl/cu124"  # its author's, for any driver that has CUDA 12.4
# Fields that a changed binding might lack: without one of them the structs are not those that we fill.
MODEL_FIELDS = ("n_gpu_layers", "tensor_buft_overrides", "load_mode", "use_extra_bufts", "no_alloc", "load_mtp")
CONTEXT_FIELDS = ("n_ctx", "n_ubatch", "n_threads", "flash_attn_type", "type_k", "type_v", "kv_unified")
MTMD_FIELDS = ("use_gpu", "n_threads", "flash_attn_type", "warmup", "image_min_tokens", "image_max_tokens")
WARNING, ERROR, CONTINUED = 3, 4, 5  # ggml_log_level
KEPT_LINES = 40
PARTIAL = 1  # LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY: the recurrent part of a sequence, without the KV cache


def install_hint(gpu: bool | None = None, system: str | None = None, toolkit: bool | None = None) -> str:
    """The line that installs the library on this machine: built for its GPU, where there is one. Arguments are for
    tests: an NVIDIA `gpu`, the `system`, whether there is CUDA's `toolkit` to compile with."""
    system = system or platform.system()
    gpu = shutil.which("nvidia-smi") is not None if gpu is None else gpu
    toolkit = shutil.which("nvcc") is not None if toolkit is None else toolkit
    first, below = (".".join(map(str, bound)) for bound in (FIRST, BELOW))
    install = f"{shlex.quote(sys.executable)} -m pip install 'llama-cpp-python>={first},<{below}'"
    if system == "Darwin" or not gpu:
        return f"{install} (it compiles for some minutes and needs a C++ compiler)"
    if toolkit:
        return f'CMAKE_ARGS="-DGGML_CUDA=on" {install} (it compiles for some minutes)'
    # Without --only-binary pip takes the newer source of PyPI and builds it for the CPU.
    return (
        f"{install} --only-binary llama-cpp-python --extra-index-url {WHEELS} "
        "(built for CUDA and without AVX2; with CUDA's toolkit installed, a build of your own is faster)"
    )


def load() -> ModuleType:
    """The binding's `llama_cpp.llama_cpp`, checked and initialised; BackendUnavailable says what to install."""
    # Read by libgomp when it is first loaded: idle workers must sleep, or the interface starves on a small machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        C = importlib.import_module("llama_cpp.llama_cpp")
    except ImportError as error:
        raise BackendUnavailable(f"GGUF models need llama-cpp-python: {install_hint()}") from error
    except (OSError, RuntimeError) as error:  # its shared library is there and does not load
        raise BackendUnavailable(f"llama-cpp-python does not load ({error}): install it again") from error
    version = library_version()
    check_version(version)
    for struct, fields in ((C.llama_model_params, MODEL_FIELDS), (C.llama_context_params, CONTEXT_FIELDS)):
        names = {name for name, *_ in struct._fields_}
        if missing := [field for field in fields if field not in names]:
            raise BackendUnavailable(
                f"llama-cpp-python {version} has no {struct.__name__}.{missing[0]}: {install_hint()}"
            )
    LOG.attach(C)
    return C


def load_mtmd() -> ModuleType:
    """The binding of the multimodal library, checked and quiet; call `load` first."""
    try:
        M = importlib.import_module("llama_cpp.mtmd_cpp")
    except (ImportError, OSError, RuntimeError) as error:  # builds may leave it out
        raise BackendUnavailable(
            f"this llama-cpp-python was built without pictures ({error}): install it again"
        ) from error
    names = {name for name, *_ in M.mtmd_context_params._fields_}
    if missing := [field for field in MTMD_FIELDS if field not in names]:
        raise BackendUnavailable(
            f"llama-cpp-python {library_version()} has no mtmd_context_params.{missing[0]}: {install_hint()}"
        )
    LOG.attach_mtmd(M)
    return M


def library_version() -> str:
    """Of the binding, once it is loaded; it names the build of llama.cpp as well."""
    return str(sys.modules["llama_cpp"].__version__)


def ggml() -> Any:
    """The shared object beneath: its own functions, for devices and buffer types."""
    return importlib.import_module("llama_cpp._ggml").libggml


def check_version(version: str) -> None:
    """Raise BackendUnavailable unless `version` is one whose structs are known."""
    numbers = tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
    if numbers < FIRST or numbers[:2] >= BELOW:
        first, below = (".".join(map(str, bound)) for bound in (FIRST, BELOW))
        raise BackendUnavailable(
            f"llama-cpp-python {version} is not supported: install one from {first} to below {below}"
        )


class Log:
    """The library's log: nothing is printed, the last warnings and errors are kept for our sentences."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._kept = False
        self._callback: Any = None  # the library calls it at any time: collected, it would be a crash

    def attach(self, C: ModuleType) -> None:
        """Hear what the library says from now on."""
        first = self._callback is None
        self._callback = self._callback or C.llama_log_callback(self._hear)
        C.llama_log_set(self._callback, ctypes.c_void_p(0))
        if first:
            C.llama_backend_init()

    def attach_mtmd(self, M: ModuleType) -> None:
        M.mtmd_helper_log_set(self._callback, ctypes.c_void_p(0))

    def _hear(self, level: int, text: bytes, _data: Any) -> None:
        self._kept = level in (WARNING, ERROR) or (level == CONTINUED and self._kept)
        if self._kept and (line := text.decode(errors="replace").strip()):
            self.lines = [*self.lines[1 - KEPT_LINES :], line]

    def clear(self) -> None:
        self.lines = []

    def reason(self) -> str:
        """The first error since `clear` without the name of the C function that wrote it: later ones follow from it."""
        errors = [line for line in self.lines if "error" in line or "fail" in line] or self.lines
        line = errors[0] if errors else "it gave no reason"
        head, _, rest = line.partition(": ")
        return (rest if rest and " " not in head else line).rstrip(".")


LOG = Log()
