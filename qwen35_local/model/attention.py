"""Gated attention: grouped queries, normalised queries and keys, partial rotary, an output gate per channel."""

import mlx.core as mx

from .config import TextConfig
from .key_values import KeyValues
from .layers import RMSNorm
from .rope import rotate
from .weights import Weights

SCORES = 1 << 28  # bytes of attention scores in memory at once, where MLX does not fuse them away


class Attention:
    """y = W_o (softmax(q k^T / sqrt(D)) v * sigmoid(gate)), with q and gate from one projection."""

    def __init__(self, weights: Weights, name: str, c: TextConfig):
        self.heads, self.kv_heads, self.head_dim = c.num_attention_heads, c.num_key_value_heads, c.head_dim
        self.q_proj = weights.matrix(f"{name}.q_proj", 2 * self.heads * self.head_dim, c.hidden_size)
        self.k_proj = weights.matrix(f"{name}.k_proj", self.kv_heads * self.head_dim, c.hidden_size)
        self.v_proj = weights.matrix(f"{name}.v_proj", self.kv_heads * self.head_dim, c.hidden_size)
        self.o_proj = weights.matrix(f"{name}.o_proj", c.hidden_size, self.heads * self.head_dim)
        self.q_norm = RMSNorm(weights.norm(f"{name}.q_norm.weight", self.head_dim), c.rms_norm_eps)
        self.k_norm = RMSNorm(weights.norm(f"{name}.k_norm.weight", self.head_dim), c.rms_norm_eps)

    def __call__(self, x: mx.array, rotary: tuple[mx.array, mx.array], state: KeyValues) -> mx.array:
        """x [B, T, H] and (cos, sin) of its positions -> [B, T, H]; appends to `state`."""
        B, T, _ = x.shape
        # Per head: D rows of query, then D rows of gate.
        q, gate = mx.split(self.q_proj.linear(x).reshape(B, T, self.heads, 2 * self.head_dim), 2, axis=-1)
        k = self.k_proj.linear(x).reshape(B, T, self.kv_heads, self.head_dim)
        v = self.v_proj.linear(x).reshape(B, T, self.kv_heads, self.head_dim)
        q = rotate(self.q_norm(q).swapaxes(1, 2), *rotary)  # [B, heads, T, D]
        k = rotate(self.k_norm(k).swapaxes(1, 2), *rotary)
        state.append(k, v.swapaxes(1, 2))
        y = self._attend(q, state)
        y = y.swapaxes(1, 2) * mx.sigmoid(gate)
        return self.o_proj.linear(y.reshape(B, T, -1))

    def _attend(self, q: mx.array, state: KeyValues) -> mx.array:
        """q [B, heads, T, D] are the last T positions. Some at a time, where MLX would hold all scores at once."""
        T, S = q.shape[2], state.length
        step = max(16, SCORES // (self.heads * S * 4))
        outputs = []
        for begin in range(0, T, step):
            end = min(begin + step, T)
            outputs.append(state.attend(q[:, :, begin:end], S - T + end))
        return mx.concatenate(outputs, axis=2) if len(outputs) > 1 else outputs[0]
