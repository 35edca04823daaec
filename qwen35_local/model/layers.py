"""The weights that everything else is made of. A matrix knows how it is packed; nothing else does."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx

from metal_kernels.expert_bank import Stack

from . import blas
from .config import Quantization

DENSE_FROM, UNPACK_FROM = 16, 32  # rows from which numpy's product wins on a CPU, without and with unpacking


@dataclass(frozen=True, slots=True)
class Dense:
    """A weight [..., out, in] as it is."""

    weight: mx.array

    @property
    def parts(self) -> tuple[mx.array, ...]:
        return (self.weight,)

    def linear(self, x: mx.array) -> mx.array:
        """x [..., in] -> [..., out]"""
        if blas.on_cpu(x, DENSE_FROM):
            return blas.linear(x, lambda piece: self.weight[piece], self.weight.shape[0])
        return x @ self.weight.swapaxes(-1, -2)

    def rows(self, ids: mx.array, dtype: mx.Dtype) -> mx.array:
        """Rows of a 2-d weight: ids [...] -> [..., in]"""
        return self.weight[ids].astype(dtype)

    @property
    def stack(self) -> Stack:
        """A weight [S, out, in] as experts are kept."""
        return Stack(self.weight)

    def with_parts(self, parts: Sequence[mx.array]) -> "Dense":
        return Dense(*parts)


@dataclass(frozen=True, slots=True)
class Packed:
    """A weight [..., out, in] as MLX packs it: `weight` uint32 [..., out, in * bits / 32], `scales` [..., out,
    in / group] (uint8 in the floating-point modes), `biases` of the same shape in affine mode only."""

    weight: mx.array
    scales: mx.array
    biases: mx.array | None
    quantization: Quantization

    @property
    def parts(self) -> tuple[mx.array, ...]:
        return (self.weight, self.scales) if self.biases is None else (self.weight, self.scales, self.biases)

    @property
    def _packing(self) -> dict[str, Any]:
        q = self.quantization
        return {"group_size": q.group_size, "bits": q.bits, "mode": q.mode}

    def linear(self, x: mx.array) -> mx.array:
        """x [..., in] -> [..., out]"""
        if blas.on_cpu(x, UNPACK_FROM):
            return blas.linear(x, self._unpacked, self.weight.shape[0])
        return mx.quantized_matmul(x, self.weight, self.scales, self.biases, transpose=True, **self._packing)

    def rows(self, ids: mx.array, dtype: mx.Dtype) -> mx.array:
        """Rows of a 2-d weight, unpacked: ids [...] -> [..., in]"""
        return self._unpacked(ids).astype(dtype)

    def _unpacked(self, rows: mx.array | slice) -> mx.array:
        biases = None if self.biases is None else self.biases[rows]
        return mx.dequantize(self.weight[rows], self.scales[rows], biases, **self._packing)

    @property
    def stack(self) -> Stack:
        """A weight [S, out, in] as experts are kept."""
        q = self.quantization
        return Stack(self.weight, self.scales, self.biases, q.mode, q.group_size, q.bits)

    def with_parts(self, parts: Sequence[mx.array]) -> "Packed":
        weight, scales, *biases = parts
        return replace(self, weight=weight, scales=scales, biases=biases[0] if biases else None)


Matrix = Dense | Packed


@dataclass(frozen=True, slots=True)
class RMSNorm:
    """n(x) * weight in float32, cast back once. `weight` float32 already holds the 1 + w of zero-centred norms:
    rounding that sum to bfloat16 loses up to 0.4 % in every channel."""

    weight: mx.array
    eps: float

    def __call__(self, x: mx.array) -> mx.array:
        return mx.fast.rms_norm(x, self.weight, self.eps).astype(x.dtype)
