"""The library's two objects as Python ones: a loaded `Model` and a `Context` on it, freed once and in order."""

import ctypes
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from ...errors import CheckpointError, ContextError, MemoryPlanError, Qwen35Error, UsageError
from ...gguf.model import GgufModel
from .library import LOG, PARTIAL, ggml
from .plan import Plan

NO_SLOT = 1  # llama_decode: the cache is full
ALLOCATION_FAILED = -2
AXES = 4  # of a position of an embedding: time, height, width and one that is not used
c_int32 = ctypes.c_int32


class Override(ctypes.Structure):
    """llama_model_tensor_buft_override, which the binding does not declare: tensors that match go to that memory."""

    _fields_ = (("pattern", ctypes.c_char_p), ("buffer_type", ctypes.c_void_p))


class Model:
    """The weights of a file, loaded as planned."""

    def __init__(
        self,
        C: ModuleType,
        gguf: GgufModel,
        plan: Plan,
        on_progress: Callable[[float], None] | None = None,
        allocate: bool = True,
    ):
        """`on_progress` hears a fraction; what it raises stops the loading. Without `allocate` nothing is read."""
        self.C, self.plan, self._path = C, plan, gguf.path
        raised: list[BaseException] = []

        def report(fraction: float, _data: Any) -> bool:
            try:
                if on_progress is not None:
                    on_progress(fraction)
            except BaseException as error:  # an exception must not cross the library's frames; Ctrl-C comes here too
                raised.append(error)
            return not raised

        params = C.llama_model_default_params()
        params.n_gpu_layers = plan.gpu_layers
        params.use_extra_bufts = plan.repack
        # What is repacked is a copy: mapped, the file would take memory a second time.
        params.load_mode = C.LLAMA_LOAD_MODE_NONE if plan.repack else C.LLAMA_LOAD_MODE_MMAP
        if not allocate:
            params.no_alloc, params.load_mode = True, C.LLAMA_LOAD_MODE_NONE  # the library asserts that both are so
        params.load_mtp = False
        callback = C.llama_progress_callback(report)
        params.progress_callback = callback
        overrides = _overrides(plan)
        params.tensor_buft_overrides = ctypes.cast(overrides, ctypes.c_void_p) if overrides is not None else None
        LOG.clear()
        self.pointer = C.llama_model_load_from_file(str(gguf.path).encode(), params)
        if raised:
            self.close()
            raise raised[0]
        if not self.pointer:
            raise CheckpointError(f"llama.cpp cannot load {gguf.path.name}: {LOG.reason()}")
        self.vocab_size = C.llama_vocab_n_tokens(C.llama_model_get_vocab(self.pointer))

    def close(self) -> None:
        if self.pointer:
            self.C.llama_model_free(self.pointer)
            self.pointer = None


def _overrides(plan: Plan) -> Any:
    """Experts of the first layers stay in memory although their layers are on the GPU."""
    if not plan.gpu_layers or not plan.cpu_experts:
        return None
    cpu = ggml().ggml_backend_cpu_buffer_type
    cpu.restype = ctypes.c_void_p
    layers = "|".join(map(str, range(plan.cpu_experts)))
    pattern = rf"^blk\.({layers})\.ffn_(gate|up|down|gate_up)_exps"
    return (Override * 2)(Override(pattern.encode(), cpu()), Override(None, None))


class One:
    """A batch of one token, made once: most of an answer is such batches."""

    def __init__(self, C: ModuleType):
        self._token, self._position = (c_int32 * 1)(), (c_int32 * 1)()
        self._batch = C.llama_batch_get_one(self._token, 1)
        self._batch.pos = ctypes.cast(self._position, type(self._batch.pos))

    def of(self, token: int, position: int) -> Any:
        self._token[0], self._position[0] = token, position
        return self._batch


class Context:
    """State and scratch of one sequence of tokens. `outputs` is of how many tokens of a batch logits can be had."""

    def __init__(self, model: Model, outputs: int = 1):
        C, plan = model.C, model.plan
        self.C, self.vocab_size, self.batch, self.size = C, model.vocab_size, plan.batch, plan.context
        params = C.llama_context_default_params()
        params.n_ctx = plan.context
        params.n_batch = params.n_ubatch = plan.batch
        params.n_seq_max = 1
        params.n_threads = params.n_threads_batch = plan.threads
        params.type_k = params.type_v = plan.cache_type
        params.flash_attn_type = plan.flash_attention
        params.no_perf = True
        if hasattr(params, "n_outputs_max"):  # by default the buffer has a row of logits for each token of a batch
            params.n_outputs_max = outputs
        LOG.clear()
        self.pointer = C.llama_init_from_model(model.pointer, params)
        if not self.pointer:
            raise MemoryPlanError(f"llama.cpp cannot make room for {plan.context} tokens: {LOG.reason()}")
        self._memory = C.llama_get_memory(self.pointer)
        # As a number: the binding makes a typed pointer of it, which costs more than a look at the logits.
        self._logits_at = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, c_int32)(("llama_get_logits_ith", C._lib))
        self._view, self._place = np.empty((0, 0), np.float32), (0, 0)
        self._one = One(C)

    def decode(self, ids: Sequence[int], position: int, all_logits: bool = False) -> None:
        """Append tokens (at most `batch`) that stand at `position` and after it.

        Logits of the last one, or of all, can be had afterwards.
        """
        n = len(ids)
        if n == 1:
            self._run(self._one.of(ids[0], position), 1)
            return
        tokens, positions = (c_int32 * n)(*ids), (c_int32 * n)(*range(position, position + n))
        batch = self.C.llama_batch_get_one(tokens, n)
        batch.pos = ctypes.cast(positions, type(batch.pos))
        if all_logits:
            flags = (ctypes.c_int8 * n)(*[1] * n)
            batch.logits = ctypes.cast(flags, type(batch.logits))
        self._run(batch, n)

    def decode_rows(self, rows: np.ndarray, positions: np.ndarray) -> None:
        """Append embeddings, float32 [n, n_embd] with n at most `batch`, that stand at `positions` int32 [3, n]."""
        n = len(rows)
        rows = np.ascontiguousarray(rows, np.float32)
        axes = np.zeros((AXES, n), np.int32)
        axes[: len(positions)] = positions
        batch = self.C.llama_batch_get_one((c_int32 * n)(), n)
        batch.token = None
        batch.embd = rows.ctypes.data_as(type(batch.embd))
        batch.pos = axes.ctypes.data_as(type(batch.pos))
        self._run(batch, n)

    def _run(self, batch: Any, n: int) -> None:
        LOG.clear()
        status = self.C.llama_decode(self.pointer, batch)
        if status == NO_SLOT:
            raise ContextError(f"the context of {self.size} tokens is full")
        if status == ALLOCATION_FAILED:
            raise MemoryPlanError(f"llama.cpp ran out of memory at a batch of {n} tokens: {LOG.reason()}")
        if status:
            raise Qwen35Error(f"llama.cpp could not compute {n} tokens (status {status}): {LOG.reason()}")

    def logits(self, rows: int = 1) -> np.ndarray:
        """float32 [rows, V] of the last batch: a view, valid until the next call."""
        place = (self._logits_at(self.pointer, -rows), rows)
        if place != self._place:  # the library's buffer seldom moves, and making a view costs a tenth of a millisecond
            buffer = (ctypes.c_float * (rows * self.vocab_size)).from_address(place[0])
            self._view, self._place = np.frombuffer(buffer, np.float32).reshape(rows, -1), place
        return self._view

    def save(self) -> Any:
        """A copy of the recurrent state, which unlike the KV cache cannot be cut back."""
        size = self.C.llama_state_seq_get_size_ext(self.pointer, 0, PARTIAL)
        buffer = (ctypes.c_uint8 * size)()
        if self.C.llama_state_seq_get_data_ext(self.pointer, buffer, size, 0, PARTIAL) != size:
            raise Qwen35Error(f"llama.cpp did not hand over its state of {size} bytes: {LOG.reason()}")
        return buffer

    def restore(self, buffer: Any, position: int) -> bool:
        """Go back to `position`, where `buffer` was saved; False leaves a context that must be cleared."""
        if not self.C.llama_state_seq_set_data_ext(self.pointer, buffer, len(buffer), 0, PARTIAL):
            return False
        return bool(self.C.llama_memory_seq_rm(self._memory, 0, position, -1))

    def save_all(self) -> Any:
        """A copy of the whole state, KV cache included."""
        size = self.C.llama_state_seq_get_size(self.pointer, 0)
        buffer = (ctypes.c_uint8 * size)()
        LOG.clear()
        if self.C.llama_state_seq_get_data(self.pointer, buffer, size, 0) != size:
            raise Qwen35Error(f"llama.cpp did not hand over its state of {size} bytes: {LOG.reason()}")
        return buffer

    def restore_all(self, buffer: Any) -> bool:
        """Be what `save_all` gave, here or elsewhere; False leaves a context that must be cleared."""
        return bool(self.C.llama_state_seq_set_data(self.pointer, buffer, len(buffer), 0))

    def clear(self) -> None:
        self.C.llama_memory_seq_rm(self._memory, 0, -1, -1)

    def close(self) -> None:
        if self.pointer:
            self.C.llama_free(self.pointer)
            self.pointer = None


def check_tokens(ids: Sequence[int], vocab_size: int) -> None:
    """Refuse an empty prompt and ids that the model does not have."""
    if not ids:
        raise UsageError("the prompt is empty")
    if unknown := [token for token in ids if not 0 <= token < vocab_size]:
        raise UsageError(f"token {unknown[0]} is not below the model's {vocab_size}")
