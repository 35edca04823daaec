"""Rotary positions: interleaved three-axis (t, h, w) sections, YaRN, angles in float32."""

import math

import mlx.core as mx
import numpy as np

from .config import RopeConfig


def inverse_frequencies(rope: RopeConfig) -> tuple[np.ndarray, float]:
    """float32 [rotary_dim / 2] and the factor on cos and sin.

    YaRN (arXiv 2309.00071, as transformers computes it): frequencies that turn more than `beta_fast` times within the
    original context stay, those that turn less than `beta_slow` times are divided by `factor`, a ramp between.
    """
    dim = rope.rotary_dim
    frequencies = 1.0 / rope.theta ** (np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim))
    if rope.factor == 1.0:
        return frequencies.astype(np.float32), 1.0

    def turning(rotations: float) -> float:
        """The (fractional) index of the frequency that turns this often within the original context."""
        return dim * math.log(rope.original_context / (rotations * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = max(math.floor(turning(rope.beta_fast)), 0), min(math.ceil(turning(rope.beta_slow)), dim - 1)
    ramp = np.clip((np.arange(dim // 2, dtype=np.float32) - low) / max(high - low, 0.001), 0, 1)
    scaled = frequencies / np.float32(rope.factor) * ramp + frequencies * (1 - ramp)
    attention = rope.attention_factor
    return scaled.astype(np.float32), 0.1 * math.log(rope.factor) + 1.0 if attention is None else attention


class Rope:
    """cos and sin for positions [T] (text: t = h = w) or [3, T]."""

    def __init__(self, rope: RopeConfig):
        frequencies, self.scale = inverse_frequencies(rope)
        self.frequencies = mx.array(frequencies)
        # Frequency i turns with h if i % 3 == 1, with w if i % 3 == 2 (while their counts last), else with t.
        axis = np.zeros(rope.rotary_dim // 2, dtype=np.int32)
        for a in (1, 2):
            axis[a : 3 * rope.section[a] : 3] = a
        self.axis = mx.array(axis)

    def __call__(self, positions: mx.array) -> tuple[mx.array, mx.array]:
        """float32 (cos, sin), each [T, rotary_dim / 2]"""
        positions = positions.astype(mx.float32)
        if positions.ndim == 1:
            angles = positions[:, None] * self.frequencies
        else:
            angles = positions[self.axis].T * self.frequencies
        return mx.cos(angles) * self.scale, mx.sin(angles) * self.scale


def rotate(x: mx.array, cos: mx.array, sin: mx.array) -> mx.array:
    """Turn the first 2 * half dims of x [B, heads, T, D] in pairs (i, i + half); cos and sin are [T, half]."""
    half = cos.shape[-1]
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    a32, b32 = a.astype(mx.float32), b.astype(mx.float32)
    turned = [a32 * cos - b32 * sin, b32 * cos + a32 * sin]
    return mx.concatenate([part.astype(x.dtype) for part in turned] + [rest], axis=-1)
