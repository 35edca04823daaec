"""The vision part of a GGUF model: llama.cpp's multimodal library as a function from pixels to features.

Pictures and clips are decoded and resized by our own code; the library gets finished pixels and computes the tower.
Its own decoders, markers and position counting are not used.
"""

import ctypes
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ...errors import CheckpointError, Qwen35Error
from .handle import Model
from .library import LOG

TEXT_CHUNK = 0  # mtmd_input_chunk_type: anything else is a picture
FEWEST, MOST = 1, 1 << 15  # tokens of a picture, as bounds of the library's own resizing, which ours comes before


class Projector:
    """A loaded vision part; free it before the model that it belongs to."""

    def __init__(self, mtmd: ModuleType, path: Path, model: Model, gpu: bool = True):
        """`mtmd` is the binding's `mtmd_cpp`. Without `gpu` none is used, though the model's layers are on one.

        Raises CheckpointError if the file does not fit the model.
        """
        self._mtmd = mtmd
        params = mtmd.mtmd_context_params_default()
        params.use_gpu = gpu and bool(model.plan.gpu_layers)
        params.n_threads = model.plan.threads
        params.print_timings = params.warmup = False
        params.image_min_tokens, params.image_max_tokens = FEWEST, MOST
        params.flash_attn_type = model.plan.flash_attention
        LOG.clear()
        self.pointer = mtmd.mtmd_init_from_file(str(path).encode(), model.pointer, params)
        if not self.pointer:
            raise CheckpointError(f"llama.cpp cannot load the vision part {path.name}: {LOG.reason()}")
        if not mtmd.mtmd_support_vision(self.pointer) or not mtmd.mtmd_decode_use_mrope(self.pointer):
            self.close()
            raise CheckpointError(f"{path.name} is not the vision part of a Qwen3.5 model")
        self.width = model.C.llama_model_n_embd_inp(model.pointer)

    def features(self, frames: np.ndarray, tokens: int) -> np.ndarray:
        """float32 [tokens, n_embd] of one picture, uint8 [1 or 2, height, width, 3]; two are a pair of a clip.

        Height and width are multiples of a token's pixels, so that the library has nothing to resize.
        """
        M = self._mtmd
        bitmaps, chunks = [self._bitmap(frame, len(frames) > 1) for frame in frames], M.mtmd_input_chunks_init()
        try:
            parts = [M.mtmd_input_part(None, bitmap) for bitmap in bitmaps]
            pointers = (ctypes.POINTER(M.mtmd_input_part) * len(parts))(*map(ctypes.pointer, parts))
            LOG.clear()
            if status := M.mtmd_tokenize_from_parts(self.pointer, chunks, pointers, len(parts), False):
                raise Qwen35Error(f"llama.cpp could not take a picture (status {status}): {LOG.reason()}")
            count = M.mtmd_input_chunks_size(chunks)
            shown = [M.mtmd_input_chunks_get(chunks, at) for at in range(count)]
            shown = [chunk for chunk in shown if M.mtmd_input_chunk_get_type(chunk) != TEXT_CHUNK]
            found = sum(M.mtmd_input_chunk_get_n_tokens(chunk) for chunk in shown)
            if len(shown) != 1 or found != tokens:
                size = "x".join(map(str, frames.shape[2:0:-1]))
                raise Qwen35Error(f"llama.cpp makes {found} tokens of a picture of {size} pixels, not {tokens}")
            if status := M.mtmd_encode_chunk(self.pointer, shown[0]):
                raise Qwen35Error(f"llama.cpp could not see a picture (status {status}): {LOG.reason()}")
            rows = M.mtmd_get_output_embd(self.pointer)
            return np.ctypeslib.as_array(rows, (tokens, self.width)).copy()
        finally:
            M.mtmd_input_chunks_free(chunks)
            for bitmap in bitmaps:
                M.mtmd_bitmap_free(bitmap)

    def _bitmap(self, frame: np.ndarray, paired: bool) -> Any:
        height, width, _ = frame.shape
        pixels = np.ascontiguousarray(frame, np.uint8)
        bitmap = self._mtmd.mtmd_bitmap_init(width, height, pixels.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8)))
        self._mtmd.mtmd_bitmap_set_mergeable(bitmap, paired)
        return bitmap

    def close(self) -> None:
        if self.pointer:
            self._mtmd.mtmd_free(self.pointer)
            self.pointer = None
