"""Our rounding on a CPU is MLX's rounding, bit for bit."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen35_local.hub import fp4
from qwen35_local.hub.convert import bfloat16, ordinary

MODES = {"mxfp4": (fp4.mxfp4, 32), "nvfp4": (fp4.nvfp4, 16)}


def check(bits: np.ndarray, mode: str) -> None:
    ours, group = MODES[mode]
    with mx.stream(mx.cpu):
        theirs = mx.quantize(mx.array(bits).view(mx.bfloat16), mode=mode, bits=4, group_size=group)
    for a, b in zip(ours(bits), theirs, strict=True):
        np.testing.assert_array_equal(a, np.array(b))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scale", [1e-30, 1e-6, 0.02, 1.0, 300.0])
def test_normal_weights(mode, scale):
    values = np.random.default_rng(1).normal(0, scale, (8, 512)).astype(np.float32)
    check(bfloat16(values.tobytes(), "F32").reshape(8, 512), mode)


@pytest.mark.parametrize("mode", MODES)
def test_every_magnitude_as_the_largest_with_ties_below(mode):
    top = np.arange(0x0C00, 0x4500, 5)
    bits = np.zeros((len(top), 32), np.uint16)
    for column, less in enumerate((0, 64, 128, 192, 256, 320, 384, 448, 512)):
        bits[:, column] = np.maximum(top - less, 0) | (0x8000 if column % 2 else 0)
    bits[:, 16:] = bits[:, :16]
    check(bits, mode)


@pytest.mark.parametrize("mode", MODES)
def test_zeros_of_both_signs(mode):
    bits = np.zeros((2, 64), np.uint16)
    bits[1] = 0x8000
    check(bits, mode)


@settings(deadline=None, max_examples=30)
@given(values=st.lists(st.integers(0x0C00, 0x44FF), min_size=32, max_size=32), signs=st.integers(0, 2**32 - 1))
def test_any_block(values, signs):
    bits = np.array([v | ((signs >> i & 1) << 15) for i, v in enumerate(values)], np.uint16)[None]
    for mode in MODES:
        check(bits, mode)


def test_the_ends_of_the_range_are_left_to_mlx():
    assert ordinary(np.array([0, 0x8000, 0x3F80], np.uint16))
    assert not ordinary(np.array([1], np.uint16))
    assert not ordinary(np.array([0x7F80], np.uint16))
