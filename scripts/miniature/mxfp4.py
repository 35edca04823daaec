"""MXFP4: blocks of 32 values of 4 bits (sign, 2 exponent, 1 mantissa) under one power of two."""

import torch  # pyright: ignore[reportMissingImports]
from torch import Tensor  # pyright: ignore[reportMissingImports]

BLOCK = 32
LEVELS = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])


def to_level(x: Tensor) -> Tensor:
    """The nearest of ±LEVELS: steps of 0.5 below 2, of 1 below 4, of 2 above."""
    size = x.abs()
    coarse = torch.where(size < 4, size.round(), (size / 2).round() * 2)
    return torch.where(size < 2, (size * 2).round() / 2, coarse).clamp(max=6) * x.sign()


def nearest(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """blocks [..., 32] -> levels [..., 32] and power [..., 1]: of two powers of two, the closer one."""
    top = blocks.abs().amax(-1, keepdim=True).clamp(min=2.0**-100)
    low = torch.exp2(torch.floor(torch.log2(top)) - 2)  # the largest is then in 4 .. 8; the last level is 6
    fine, rough = to_level(blocks / low), to_level(blocks / (2 * low))
    fine_error = (fine * low - blocks).square().sum(-1, keepdim=True)
    rough_error = (rough * (2 * low) - blocks).square().sum(-1, keepdim=True)
    closer = rough_error < fine_error
    return torch.where(closer, rough, fine), torch.where(closer, 2 * low, low)


def rounding(weight: Tensor) -> Tensor:
    """What MXFP4 adds to a weight [..., n]."""
    levels, power = nearest(weight.unflatten(-1, (-1, BLOCK)))
    return (levels * power).flatten(-2) - weight


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """weight [..., n] -> codes [..., n] (0..15) and exponents [..., n / 32]."""
    levels, power = nearest(weight.detach().float().unflatten(-1, (-1, BLOCK)))
    codes = torch.bucketize(levels.abs(), LEVELS) + 8 * (levels < 0)
    return codes.flatten(-2), torch.log2(power).round().squeeze(-1)


def dequantise(codes: Tensor, exponents: Tensor) -> Tensor:
    values = LEVELS[codes & 7] * torch.where(codes >= 8, -1.0, 1.0)
    return (values.unflatten(-1, (-1, BLOCK)) * torch.exp2(exponents)[..., None]).flatten(-2)


def pack(codes: Tensor, exponents: Tensor) -> tuple[Tensor, Tensor]:
    """As MLX stores them: eight codes to a uint32, the first lowest [..., n / 8], and biased exponents (uint8)."""
    shifts = torch.arange(8, dtype=torch.int64) * 4
    words = (codes.long().unflatten(-1, (-1, 8)) << shifts).sum(-1)
    return words.to(torch.uint32), (exponents + 127).to(torch.uint8)
