"""MXFP4: blocks of 32 values of 4 bits (sign, 2 exponent, 1 mantissa) under one power of two."""

import torch  # pyright: ignore[reportMissingImports]
from torch import Tensor  # pyright: ignore[reportMissingImports]

BLOCK = 32
LEVELS = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
EDGES = (LEVELS[1:] + LEVELS[:-1]) / 2


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """weight [..., n] -> codes [..., n] (0..15) and exponents [..., n / 32]: of two powers of two, the closer one."""
    blocks = weight.detach().float().unflatten(-1, (-1, BLOCK))
    top = blocks.abs().amax(-1, keepdim=True).clamp(min=2.0**-100)
    low = torch.floor(torch.log2(top)) - 2  # the largest value then lies in 4 .. 8, where 6 is the last level
    best = None
    for exponent in (low, low + 1):
        scaled = blocks / torch.exp2(exponent)
        codes = torch.bucketize(scaled.abs(), EDGES)
        error = ((LEVELS[codes] * scaled.sign() - scaled) * torch.exp2(exponent)).square().sum(-1, keepdim=True)
        codes = codes + 8 * (scaled < 0)
        if best is None:
            best = (codes, exponent, error)
        else:
            closer = error < best[2]
            best = (torch.where(closer, codes, best[0]), torch.where(closer, exponent, best[1]), error)
    assert best is not None
    return best[0].flatten(-2), best[1].squeeze(-1)


def dequantise(codes: Tensor, exponents: Tensor) -> Tensor:
    values = LEVELS[codes & 7] * torch.where(codes >= 8, -1.0, 1.0)
    return (values.unflatten(-1, (-1, BLOCK)) * torch.exp2(exponents)[..., None]).flatten(-2)


def fake_quantise(weight: Tensor) -> Tensor:
    """The rounded values, with the gradient of the identity."""
    return weight + (dequantise(*quantise(weight)) - weight).detach()


def pack(codes: Tensor, exponents: Tensor) -> tuple[Tensor, Tensor]:
    """As MLX stores them: eight codes to a uint32, the first lowest [..., n / 8], and biased exponents (uint8)."""
    shifts = torch.arange(8, dtype=torch.int64) * 4
    words = (codes.long().unflatten(-1, (-1, 8)) << shifts).sum(-1)
    return words.to(torch.uint32), (exponents + 127).to(torch.uint8)
