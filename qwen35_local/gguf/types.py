"""The element types of GGUF: their sizes, and float32 rows -> packed bytes for those that we write. Pure."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Type:
    """`block` values of one row take `nbytes` bytes; `code` is the number in the file."""

    name: str
    code: int
    block: int
    nbytes: int

    def row_bytes(self, columns: int) -> int:
        return columns // self.block * self.nbytes


TYPES = {
    code: Type(name, code, block, nbytes)
    for name, code, block, nbytes in (
        *(("F32", 0, 1, 4), ("F16", 1, 1, 2), ("BF16", 30, 1, 2), ("F64", 28, 1, 8)),
        *(("I8", 24, 1, 1), ("I16", 25, 1, 2), ("I32", 26, 1, 4), ("I64", 27, 1, 8)),
        *(("Q4_0", 2, 32, 18), ("Q4_1", 3, 32, 20), ("Q5_0", 6, 32, 22), ("Q5_1", 7, 32, 24), ("Q8_0", 8, 32, 34)),
        *(("Q8_1", 9, 32, 36), ("Q2_K", 10, 256, 84), ("Q3_K", 11, 256, 110), ("Q4_K", 12, 256, 144)),
        *(("Q5_K", 13, 256, 176), ("Q6_K", 14, 256, 210), ("Q8_K", 15, 256, 292)),
        *(("IQ2_XXS", 16, 256, 66), ("IQ2_XS", 17, 256, 74), ("IQ3_XXS", 18, 256, 98), ("IQ1_S", 19, 256, 50)),
        *(("IQ4_NL", 20, 32, 18), ("IQ3_S", 21, 256, 110), ("IQ2_S", 22, 256, 82), ("IQ4_XS", 23, 256, 136)),
        *(("IQ1_M", 29, 256, 56), ("TQ1_0", 34, 256, 54), ("TQ2_0", 35, 256, 66)),
        *(("MXFP4", 39, 32, 17), ("NVFP4", 40, 64, 36), ("Q1_0", 41, 128, 18)),
    )
}
BY_NAME = {kind.name: kind for kind in TYPES.values()}
WRITABLE = ("F32", "F16", "BF16", "Q8_0", "MXFP4")
F32 = BY_NAME["F32"]

# Magnitudes of e2m1, by code; bit 3 is the sign.
FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
# A magnitude is nearest to code c when c of these bounds lie below it; on a bound the smaller code wins.
FP4_BOUNDS = (FP4[1:] + FP4[:-1]) / 2


def pack(rows: np.ndarray, kind: Type) -> np.ndarray:
    """float32 [..., columns] -> the same values as `kind`: uint8, in the order of the file."""
    rows = np.ascontiguousarray(rows, np.float32)
    match kind.name:
        case "F32":
            return rows.view(np.uint8).ravel()
        case "F16":
            return rows.astype(np.float16).view(np.uint8).ravel()
        case "BF16":
            return bfloat16(rows).view(np.uint8).ravel()
        case "Q8_0":
            return _q8_0(rows.reshape(-1, 32)).ravel()
        case "MXFP4":
            return _mxfp4(rows.reshape(-1, 32)).ravel()
    raise ValueError(f"{kind.name} is read, not written")


def bfloat16(values: np.ndarray) -> np.ndarray:
    """float32 -> the upper half of its bits, uint16, rounded to nearest even."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _q8_0(blocks: np.ndarray) -> np.ndarray:
    """[N, 32] -> uint8 [N, 34]: a float16 scale, then 32 signed bytes."""
    scale = np.abs(blocks).max(1) / np.float32(127)
    # Below this bound the float16 scale is zero anyway, and its inverse would overflow.
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 2**-100)
    scaled = blocks * inverse[:, None]
    # Halves go away from zero, as in C's roundf.
    codes = (np.sign(scaled) * np.floor(np.abs(scaled) + np.float32(0.5))).astype(np.int8)
    return np.concatenate([scale.astype(np.float16)[:, None].view(np.uint8), codes.view(np.uint8)], 1)


def _mxfp4(blocks: np.ndarray) -> np.ndarray:
    """[N, 32] -> uint8 [N, 17]: the exponent of the scale (2^(e - 127)), then byte j holds values j and j + 16.

    The scale leaves the largest value between 4 and 8, so values on the grid of any power-of-two scale stay exact.
    """
    most = np.abs(blocks).max(1)
    exponent = np.clip(np.frexp(most)[1] - 3 + 127, 0, 254)  # frexp's exponent is floor(log2) + 1
    exponent[most == 0] = 0
    scaled = np.ldexp(blocks, (127 - exponent)[:, None])
    codes = np.searchsorted(FP4_BOUNDS, np.abs(scaled), side="left").astype(np.uint8)
    codes |= (np.signbit(scaled) & (codes > 0)).astype(np.uint8) << 3
    return np.concatenate([exponent.astype(np.uint8)[:, None], codes[:, :16] | codes[:, 16:] << 4], 1)
