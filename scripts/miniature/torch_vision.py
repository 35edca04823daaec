"""The vision tower in torch, for training: names and shapes as released (`model.visual.*`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch  # pyright: ignore[reportMissingImports]
import torch.nn.functional as F  # pyright: ignore[reportMissingImports]
from torch import Tensor, nn  # pyright: ignore[reportMissingImports]

Grid = tuple[int, int]  # rows and columns of patches, both even


@dataclass(frozen=True)
class VisionShape:
    """The sizes of the miniature's tower, as in `vision_config` of its config.json."""

    depth: int = 4
    hidden: int = 128
    heads: int = 4
    intermediate: int = 512
    patch: int = 16
    temporal: int = 2
    merge: int = 2
    side: int = 8  # of the square grid of learned positions
    out: int = 192
    theta: float = 1e4

    @property
    def pixels(self) -> int:
        return 3 * self.temporal * self.patch * self.patch


def block_order(grid: Grid, merge: int) -> tuple[Tensor, Tensor]:
    """Row and column of every patch, in the order of merge blocks."""
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    cut = (grid[0] // merge, merge, grid[1] // merge, merge)
    row, column = (t.reshape(cut).transpose(1, 2).flatten() for t in (rows, columns))
    return row, column


@lru_cache(maxsize=64)
def places(shape: VisionShape, grid: Grid) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For a grid: taps [P, 4] into the learned positions, their weights (bilinear, corners aligned), cos and sin."""
    row, column = block_order(grid, shape.merge)
    low, part = [], []
    for at, count in ((row, grid[0]), (column, grid[1])):
        source = at.float() * (shape.side - 1) / max(count - 1, 1)
        low.append(source.floor().long())
        part.append(source - source.floor())
    high = [(t + 1).clamp(max=shape.side - 1) for t in low]
    taps = torch.stack([r * shape.side + c for r in (low[0], high[0]) for c in (low[1], high[1])], 1)
    weights = torch.stack([r * c for r in (1 - part[0], part[0]) for c in (1 - part[1], part[1])], 1)
    quarter = shape.hidden // shape.heads // 2
    inverse = 1.0 / shape.theta ** (torch.arange(0, quarter, 2).float() / quarter)
    angles = torch.cat([row[:, None] * inverse, column[:, None] * inverse], 1)
    return taps, weights, angles.cos(), angles.sin()


class Block(nn.Module):
    def __init__(self, shape: VisionShape):
        super().__init__()
        D = shape.hidden
        self.heads = shape.heads
        self.norm1, self.norm2 = nn.LayerNorm(D, eps=1e-6), nn.LayerNorm(D, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(D, 3 * D), "proj": nn.Linear(D, D)})
        fc1, fc2 = nn.Linear(D, shape.intermediate), nn.Linear(shape.intermediate, D)
        self.mlp = nn.ModuleDict({"linear_fc1": fc1, "linear_fc2": fc2})

    def forward(self, x: Tensor, groups: Sequence[tuple[int, int, Tensor, Tensor]]) -> Tensor:
        """x [all patches, D]; groups say (pictures, patches of each, cos, sin) of stretches of it."""
        qkv = self.attn["qkv"](self.norm1(x))
        out, at = [], 0
        for count, length, cos, sin in groups:
            piece = qkv[at : at + count * length].view(count, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            q, k = turn(piece[0], cos, sin), turn(piece[1], cos, sin)
            o = F.scaled_dot_product_attention(q.to(qkv.dtype), k.to(qkv.dtype), piece[2])
            out.append(o.transpose(1, 2).reshape(count * length, -1))
            at += count * length
        x = x + self.attn["proj"](torch.cat(out))
        h = F.gelu(self.mlp["linear_fc1"](self.norm2(x)), approximate="tanh")
        return x + self.mlp["linear_fc2"](h)


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """2-d rotary over all of the last dimension: pairs (i, i + half)."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Merger(nn.Module):
    def __init__(self, shape: VisionShape):
        super().__init__()
        wide = shape.hidden * shape.merge**2
        self.norm = nn.LayerNorm(shape.hidden, eps=1e-6)
        self.linear_fc1, self.linear_fc2 = nn.Linear(wide, wide), nn.Linear(wide, shape.out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x).reshape(-1, self.linear_fc1.in_features)
        return self.linear_fc2(F.gelu(self.linear_fc1(x)))


class Tower(nn.Module):
    def __init__(self, shape: VisionShape):
        super().__init__()
        self.shape = shape
        proj = nn.Module()
        frame = (3, shape.temporal, shape.patch, shape.patch)
        proj.weight = nn.Parameter(torch.randn(shape.hidden, *frame) / shape.pixels**0.5)
        proj.bias = nn.Parameter(torch.zeros(shape.hidden))
        self.patch_embed = nn.ModuleDict({"proj": proj})
        self.pos_embed = nn.Module()
        self.pos_embed.weight = nn.Parameter(torch.randn(shape.side**2, shape.hidden) * 0.3)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.depth))
        self.merger = Merger(shape)

    def forward(self, pictures: Sequence[tuple[Tensor, Grid]]) -> Tensor:
        """Stacks of pictures [n, P, pixels], one stack per grid -> [all merged patches, out], in the same order."""
        proj = self.patch_embed["proj"]
        parts, groups = [], []
        for stack, grid in pictures:
            taps, weights, cos, sin = places(self.shape, grid)
            embedded = F.linear(stack, proj.weight.flatten(1), proj.bias)
            learned = (self.pos_embed.weight[taps] * weights[..., None]).sum(1)
            parts.append((embedded + learned).flatten(0, 1))
            groups.append((len(stack), stack.shape[1], cos, sin))
        x = torch.cat(parts)
        for block in self.blocks:
            x = block(x, groups)
        return self.merger(x)
