"""Gated attention: grouped queries, normalised queries and keys, partial rotary, an output gate per channel."""

import mlx.core as mx

from .config import TextConfig
from .layers import RMSNorm
from .rope import rotate
from .state import KeyValues
from .weights import Weights


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
        keys, values = state.append(k, v.swapaxes(1, 2))
        mask = "causal" if T > 1 else None
        y = mx.fast.scaled_dot_product_attention(q, keys, values, scale=self.head_dim**-0.5, mask=mask)
        y = y.swapaxes(1, 2) * mx.sigmoid(gate)
        return self.o_proj.linear(y.reshape(B, T, -1))
