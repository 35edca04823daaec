"""Packed rows against an independent reading of them."""

import ctypes

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qwen35_local.backends.llama_cpp.library import ggml
from qwen35_local.gguf.types import BY_NAME, pack

GRID = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
BUSY = settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)  # the machine may be
ROWS = arrays(np.float32, (3, 64), elements=st.floats(-1e4, 1e4, width=32))


def unpacked_mxfp4(packed: np.ndarray) -> np.ndarray:
    blocks = packed.reshape(-1, 17)
    codes = np.concatenate([blocks[:, 1:] & 15, blocks[:, 1:] >> 4], 1)
    return np.concatenate([GRID, -GRID])[codes] * np.exp2(blocks[:, :1].astype(float) - 127)


@BUSY
@given(ROWS)
def test_q8_0_is_within_half_a_step(rows):
    blocks = pack(rows, BY_NAME["Q8_0"]).reshape(-1, 34)
    scale = np.ascontiguousarray(blocks[:, :2]).view(np.float16).astype(np.float32)
    codes = blocks[:, 2:].view(np.int8)
    step = np.abs(rows.reshape(-1, 32)).max(1, keepdims=True) / 127
    # The scale itself is rounded to 11 bits, or to 2^-24 where it is tiny.
    slack = np.abs(codes.astype(np.float32)) * (step * 2**-11 + 2**-25)
    assert (np.abs(codes * scale - rows.reshape(-1, 32)) <= step * 0.5001 + slack + 1e-28).all()


@BUSY
@given(ROWS)
def test_mxfp4_takes_the_nearest_value_of_its_grid(rows):
    packed = pack(rows, BY_NAME["MXFP4"])
    scale = np.exp2(packed.reshape(-1, 17)[:, :1].astype(float) - 127)
    values, wanted = unpacked_mxfp4(packed), rows.reshape(-1, 32).astype(float)
    grid = np.concatenate([-GRID[::-1], GRID]) * scale[..., None]
    nearest = np.abs(wanted[..., None] - grid).min(-1)
    np.testing.assert_allclose(np.abs(values - wanted), nearest, atol=1e-12)


@pytest.mark.parametrize("exponent", [-100, -3, 0, 9, 100])
def test_mxfp4_keeps_values_that_are_on_a_grid(exponent):
    codes = np.random.default_rng(exponent + 200).integers(0, 16, (8, 64))
    rows = (np.concatenate([GRID, -GRID])[codes] * np.exp2(exponent)).astype(np.float32)
    np.testing.assert_array_equal(unpacked_mxfp4(pack(rows, BY_NAME["MXFP4"])).reshape(8, 64), rows)


def test_small_types_are_numpys():
    rows = np.random.default_rng(0).normal(size=(4, 32)).astype(np.float32)
    assert pack(rows, BY_NAME["F32"]).tobytes() == rows.tobytes()
    assert pack(rows, BY_NAME["F16"]).tobytes() == rows.astype(np.float16).tobytes()
    upper = pack(rows, BY_NAME["BF16"]).view(np.uint16).astype(np.uint32) << 16
    np.testing.assert_allclose(upper.view(np.float32).reshape(rows.shape), rows, rtol=2**-8)
    with pytest.raises(ValueError, match="Q4_K is read, not written"):
        pack(rows, BY_NAME["Q4_K"])


@pytest.mark.parametrize("name", ["F16", "BF16", "Q8_0", "MXFP4"])
def test_packed_bytes_are_those_of_llama_cpp(name, llama_cpp):
    library, kind = ggml(), BY_NAME[name]
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    rng = np.random.default_rng(5)
    rows = (rng.normal(size=(64, 256)) * np.exp(rng.normal(size=(64, 1)) * 4)).astype(np.float32)
    rows[3] = 0
    rows[4, 32:64] = 0
    theirs = np.empty(rows.shape[0] * kind.row_bytes(rows.shape[1]), np.uint8)
    pointer = ctypes.POINTER(ctypes.c_float)
    written = library.ggml_quantize_chunk(
        kind.code, rows.ctypes.data_as(pointer), theirs.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(0),
        ctypes.c_int64(rows.shape[0]), ctypes.c_int64(rows.shape[1]), None,
    )  # fmt: skip
    assert written == theirs.size
    np.testing.assert_array_equal(pack(rows, kind).view(np.uint8).ravel(), theirs)
