"""The vision tower: patches of a picture or clip in, one row per image or video token out."""

import math

import mlx.core as mx
import numpy as np

from . import blas
from .layers import Dense, Matrix
from .rope import rotate
from .vision_config import VisionConfig
from .weights import Weights

EPS = 1e-6
THETA = 10_000.0  # of the rotary angles
SCORES = 1 << 28  # bytes of attention scores in memory at once, where MLX does not fuse them away
ROWS = 2048  # patches that go through an MLP together; bounds its temporaries
FUSED_HEAD_DIMS = (64, 80, 128)  # of MLX's Metal attention; zeros up to the next one change nothing


class Linear:
    """x W^T + b"""

    def __init__(self, weights: Weights, name: str, out: int, in_: int):
        self.weight: Matrix = weights.matrix(name, out, in_)
        self.bias = weights.array(f"{name}.bias", (out,), weights.dtype)

    def __call__(self, x: mx.array) -> mx.array:
        return self.weight.linear(x) + self.bias


class LayerNorm:
    """Mean and variance in float32, cast back once."""

    def __init__(self, weights: Weights, name: str, size: int):
        self.weight, self.bias = (weights.array(f"{name}.{part}", (size,), mx.float32) for part in ("weight", "bias"))

    def __call__(self, x: mx.array) -> mx.array:
        return mx.fast.layer_norm(x, self.weight, self.bias, EPS).astype(x.dtype)


class Attention:
    """Every patch of a frame (or pair of frames) sees every other one of it, and none of another."""

    def __init__(self, weights: Weights, name: str, c: VisionConfig):
        self.heads, self.head_dim = c.num_heads, c.head_dim
        self.qkv = Linear(weights, f"{name}.qkv", 3 * c.hidden_size, c.hidden_size)
        self.proj = Linear(weights, f"{name}.proj", c.hidden_size, c.hidden_size)
        self.padded = padded_head_dim(c.head_dim) if mx.metal.is_available() else c.head_dim

    def __call__(self, x: mx.array, rotary: tuple[mx.array, mx.array]) -> mx.array:
        """x [F, N, H], frames of N patches, and (cos, sin) [N, D / 2] -> [F, N, H]"""
        F, N, H = x.shape
        q, k, v = self.qkv(x).reshape(F, N, 3, self.heads, self.head_dim).transpose(2, 0, 3, 1, 4)  # [F, heads, N, D]
        y = self._attend(rotate(q, *rotary), rotate(k, *rotary), v)
        return self.proj(y.swapaxes(1, 2).reshape(F, N, H))

    def _attend(self, q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        """Some frames, or some queries of one frame, at a time, so that the scores stay bounded."""
        F, heads, N, D = q.shape
        if self.padded > D:
            q, k, v = (mx.pad(part, [(0, 0), (0, 0), (0, 0), (0, self.padded - D)]) for part in (q, k, v))
        frames = max(1, SCORES // (heads * N * N * 4))
        queries = max(16, SCORES // (heads * N * 4))
        outputs = []
        for f in range(0, F, frames):
            rows = [
                attend(q[f : f + frames, :, i : i + queries], k[f : f + frames], v[f : f + frames], D**-0.5)
                for i in range(0, N, queries)
            ]
            outputs.append(mx.concatenate(rows, axis=2) if len(rows) > 1 else rows[0])
        y = mx.concatenate(outputs) if len(outputs) > 1 else outputs[0]
        return y[..., :D]


def attend(q: mx.array, k: mx.array, v: mx.array, scale: float) -> mx.array:
    """softmax(q k^T * scale) v, of [F, heads, n, D] and twice [F, heads, N, D]"""
    if blas.on_cpu(q, 1):
        return blas.attention(q, k, v, scale)
    return mx.fast.scaled_dot_product_attention(q, k, v, scale=scale)


def work(c: VisionConfig, itemsize: int) -> tuple[int, int]:
    """Bytes that looking at a picture takes at its worst, weights and attention scores apart: (whatever it is, for each
    of its tokens). The first are the temporaries of an MLP; then its patches twice in float32, and in a block the
    residual, its norm, queries, keys, values, their turned copies."""
    patch = 2 * 4 * c.patch_dim + 10 * c.hidden_size * itemsize
    return ROWS * c.intermediate_size * 5 * 4, c.merge_size**2 * patch


def padded_head_dim(head_dim: int) -> int:
    """The smallest head that MLX's fused attention takes, or `head_dim` itself where there is none."""
    return next((fused for fused in FUSED_HEAD_DIMS if fused >= head_dim), head_dim)


class Block:
    """x += attention(norm1(x));  x += fc2(gelu_tanh(fc1(norm2(x))))"""

    def __init__(self, weights: Weights, name: str, c: VisionConfig):
        self.norm1, self.norm2 = (LayerNorm(weights, f"{name}.{norm}", c.hidden_size) for norm in ("norm1", "norm2"))
        self.attn = Attention(weights, f"{name}.attn", c)
        self.fc1 = Linear(weights, f"{name}.mlp.linear_fc1", c.intermediate_size, c.hidden_size)
        self.fc2 = Linear(weights, f"{name}.mlp.linear_fc2", c.hidden_size, c.intermediate_size)

    def __call__(self, x: mx.array, rotary: tuple[mx.array, mx.array]) -> mx.array:
        x = x + self.attn(self.norm1(x), rotary)
        flat = x.reshape(-1, x.shape[-1])
        rows = [self._mlp(flat[i : i + ROWS]) for i in range(0, flat.shape[0], ROWS)]
        return (mx.concatenate(rows) if len(rows) > 1 else rows[0]).reshape(x.shape)

    def _mlp(self, x: mx.array) -> mx.array:
        return x + self.fc2(gelu_tanh(self.fc1(self.norm2(x))))


class VisionTower:
    """Qwen3.5's tower under the canonical names `visual.…`. It keeps nothing from call to call."""

    def __init__(self, weights: Weights, c: VisionConfig):
        self.config, self.dtype = c, weights.dtype
        self.patch_weight = Dense(_patch_filters(weights, c))
        self.patch_bias = weights.array("visual.patch_embed.proj.bias", (c.hidden_size,), self.dtype)
        shape = (c.num_position_embeddings, c.hidden_size)
        self.pos_embed = weights.array("visual.pos_embed.weight", shape, mx.float32)
        self.blocks = [Block(weights, f"visual.blocks.{i}", c) for i in range(c.depth)]
        merged = c.hidden_size * c.merge_size**2
        self.norm = LayerNorm(weights, "visual.merger.norm", c.hidden_size)
        self.fc1 = Linear(weights, "visual.merger.linear_fc1", merged, merged)
        self.fc2 = Linear(weights, "visual.merger.linear_fc2", c.out_hidden_size, merged)
        weights.settle()

    def __call__(self, patches: mx.array, grid: tuple[int, int, int]) -> mx.array:
        """float32 patches [F * gh * gw, patch_dim] in merge-block order -> [F * gh * gw / merge², out_hidden].

        `grid` is (F, gh, gw): frames (or pairs of them), rows and columns of patches.
        """
        F, gh, gw = grid
        c = self.config
        assert patches.shape == (F * gh * gw, c.patch_dim), f"{patches.shape} patches for a grid of {grid}"
        places = block_order(gh, gw, c.merge_size)
        x = self.patch_weight.linear(patches.astype(self.dtype)) + self.patch_bias
        x = x.reshape(F, gh * gw, -1) + self._positions(places, gh, gw).astype(self.dtype)
        rotary = _angles(places, c.head_dim)
        for block in self.blocks:
            x = block(x, rotary)
            mx.async_eval(x)  # the whole tower's graph at once would hold every block's temporaries
        x = self.norm(x).reshape(-1, c.hidden_size * c.merge_size**2)
        return self.fc2(gelu_erf(self.fc1(x)))

    def _positions(self, places: np.ndarray, gh: int, gw: int) -> mx.array:
        """The learned positions, resampled bilinearly to gh x gw with the corners in the corners; float32 [N, H]."""
        side = self.config.side
        (rows, row_weights), (columns, column_weights) = (
            _taps(places[:, axis], size, side) for axis, size in enumerate((gh, gw))
        )
        total = mx.zeros((), mx.float32)
        for i in range(2):
            for j in range(2):
                weight = row_weights[i] * column_weights[j]
                total = total + self.pos_embed[mx.array(rows[i] * side + columns[j])] * mx.array(weight)[:, None]
        return total


def _patch_filters(weights: Weights, c: VisionConfig) -> mx.array:
    """[H, channel * frame * row * column]: as released, or from MLX conversions, which have channels last."""
    name, P, T = "visual.patch_embed.proj.weight", c.patch_size, c.temporal_patch_size
    released, converted = (c.hidden_size, c.in_channels, T, P, P), (c.hidden_size, T, P, P, c.in_channels)
    tensor = weights.tensors.get(name)
    if tensor is not None and tensor.shape == converted != released:
        return mx.contiguous(
            weights.array(name, converted, weights.dtype).transpose(0, 4, 1, 2, 3).reshape(-1, c.patch_dim)
        )
    return weights.array(name, released, weights.dtype).reshape(-1, c.patch_dim)


def block_order(gh: int, gw: int, merge: int) -> np.ndarray:
    """int32 [gh * gw, 2]: (row, column) of each patch, merge x merge neighbours together."""
    rows, columns = np.meshgrid(np.arange(gh, dtype=np.int32), np.arange(gw, dtype=np.int32), indexing="ij")
    blocks = np.stack([rows, columns], axis=-1).reshape(gh // merge, merge, gw // merge, merge, 2)
    return blocks.transpose(0, 2, 1, 3, 4).reshape(-1, 2)


def _taps(index: np.ndarray, size: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each of `size` points on an axis lies among `side` learned ones: int32 and float32 [2, N]."""
    source = index.astype(np.float32) * np.float32(side - 1) / np.float32(max(size - 1, 1))
    low = np.floor(source)
    weight = source - low
    taps = np.stack([low, np.minimum(low + 1, side - 1)]).astype(np.int32)
    return taps, np.stack([1 - weight, weight]).astype(np.float32)


def _angles(places: np.ndarray, head_dim: int) -> tuple[mx.array, mx.array]:
    """float32 (cos, sin) [N, head_dim / 2]: half of the pairs turn with the row, the others with the column."""
    half = head_dim // 2
    frequencies = 1.0 / THETA ** (np.arange(0, half, 2, dtype=np.float32) / np.float32(half))
    angles = mx.array((places[:, :, None].astype(np.float32) * frequencies).reshape(len(places), -1))
    return mx.cos(angles), mx.sin(angles)


def gelu_tanh(x: mx.array) -> mx.array:
    y = x.astype(mx.float32)
    return (0.5 * y * (1 + mx.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y * y * y)))).astype(x.dtype)


def gelu_erf(x: mx.array) -> mx.array:
    y = x.astype(mx.float32)
    return (0.5 * y * (1 + mx.erf(y * math.sqrt(0.5)))).astype(x.dtype)
