"""bfloat16 -> MXFP4 and NVFP4 with the bits of `mx.quantize`, in NumPy: on a CPU MLX rounds about 5 MB a second.

A bfloat16 without its sign is a 15-bit number in the order of its magnitude, so all is integer work on those bits:
a block's scale comes from a table over its largest magnitude, a level by counting the thresholds it reaches.
"""

from functools import cache

import numpy as np

BLOCK = 1 << 16  # elements at a time: every temporary stays in a core's cache
LEVELS = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
# The least bits beyond the middle of two levels; in the middle MLX takes the lower one.
THRESHOLDS = [(int(middle.view(np.uint32)) >> 16) + 1 for middle in (LEVELS[1:] + LEVELS[:-1]) / 2]


def magnitudes() -> np.ndarray:
    """float32 [32768]: the value of every bfloat16 without sign."""
    return (np.arange(1 << 15, dtype=np.uint32) << 16).view(np.float32)


@cache
def _scales(mode: str, group: int) -> np.ndarray:
    """uint8 [32768]: the scale that MLX stores for each largest magnitude of a block; asked of MLX itself."""
    import mlx.core as mx

    blocks = np.zeros((1 << 15, 32), np.uint16)
    blocks[:, 0] = np.arange(1 << 15)
    quantized = mx.quantize(mx.array(blocks).view(mx.bfloat16), mode=mode, bits=4, group_size=group)
    return np.array(quantized[1])[:, 0].copy()


def mxfp4(bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """uint16 [rows, n] -> codes uint32 [rows, n / 8] and scales uint8 [rows, n / 32]."""
    return _blocks(bits, 32, _mxfp4_block)


def nvfp4(bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """uint16 [rows, n] -> codes uint32 [rows, n / 8] and scales uint8 [rows, n / 16]."""
    return _blocks(bits, 16, _nvfp4_block)


def _blocks(bits: np.ndarray, group: int, block) -> tuple[np.ndarray, np.ndarray]:
    rows, n = bits.shape
    flat = bits.reshape(-1, group)
    packed = np.empty((flat.shape[0], group // 2), np.uint8)
    scales = np.empty(flat.shape[0], np.uint8)
    step = max(BLOCK // group, 1)
    for at in range(0, flat.shape[0], step):
        block(flat[at : at + step], packed[at : at + step], scales[at : at + step])
    return packed.view(np.uint32).reshape(rows, n // 8), scales.reshape(rows, n // group)


def _largest(sizes: np.ndarray) -> np.ndarray:
    """The largest of each row, by halving: NumPy reduces short rows slowly."""
    while sizes.shape[1] > 1:
        half = sizes.shape[1] // 2
        sizes = np.maximum(sizes[:, :half], sizes[:, half:])
    return sizes[:, 0]


def _mxfp4_block(bits: np.ndarray, packed: np.ndarray, scales: np.ndarray) -> None:
    sizes = (bits & 0x7FFF).view(np.int16)
    np.take(_scales("mxfp4", 32), _largest(sizes), out=scales)
    # Dividing by a power of two takes it off the exponent.
    sizes -= ((scales.astype(np.int16) - 127) << 7)[:, None]
    codes = np.zeros(bits.shape, np.uint8)
    for threshold in THRESHOLDS:
        codes += (sizes >= threshold).view(np.uint8)
    _pack(codes, bits, packed)


def _pack(codes: np.ndarray, bits: np.ndarray, packed: np.ndarray) -> None:
    """Levels and the signs of `bits` to two codes a byte, the first lower; nothing is negative zero."""
    codes |= (bits >> 12).astype(np.uint8) & ((codes > 0).view(np.uint8) << 3)
    np.left_shift(codes[:, 1::2], 4, out=packed)
    packed |= codes[:, ::2]


@cache
def _nvfp4_levels() -> np.ndarray:
    """uint8 [128 * 32768]: the level of scale * 32768 + magnitude. The nearest; of equally near ones the first."""
    import mlx.core as mx

    values = magnitudes()
    steps = np.array(mx.from_fp8(mx.arange(128, dtype=mx.uint8), mx.float32))
    levels = np.zeros((128, 1 << 15), np.uint8)
    with np.errstate(all="ignore"):
        for code in range(1, 127):  # 0 divides by nothing, 127 is NaN
            levels[code] = np.argmin(np.abs((values / steps[code])[:, None] - LEVELS), axis=1)
    return levels.reshape(-1)


def _nvfp4_block(bits: np.ndarray, packed: np.ndarray, scales: np.ndarray) -> None:
    sizes = bits & 0x7FFF
    np.take(_scales("nvfp4", 16), _largest(sizes), out=scales)
    codes = _nvfp4_levels()[(scales.astype(np.int32) << 15)[:, None] + sizes]
    _pack(codes, bits, packed)
