"""Gated DeltaNet: a short convolution, the gated delta rule, a gated norm."""

import mlx.core as mx
import mlx.nn as nn

from metal_kernels.gated_delta import gated_delta, gated_delta_steps

from .config import TextConfig
from .state import Recurrent
from .weights import Weights


class GatedDeltaNet:
    """Linear attention with Hk query/key heads and Hv value heads; its whole past is one matrix per value head."""

    def __init__(self, weights: Weights, name: str, c: TextConfig):
        self.Hk, self.Dk = c.linear_num_key_heads, c.linear_key_head_dim
        self.Hv, self.Dv = c.linear_num_value_heads, c.linear_value_head_dim
        self.eps = c.rms_norm_eps
        self.in_proj_qkv = weights.matrix(f"{name}.in_proj_qkv", c.conv_dim, c.hidden_size)
        self.in_proj_z = weights.matrix(f"{name}.in_proj_z", self.Hv * self.Dv, c.hidden_size)
        self.in_proj_b = weights.matrix(f"{name}.in_proj_b", self.Hv, c.hidden_size)
        self.in_proj_a = weights.matrix(f"{name}.in_proj_a", self.Hv, c.hidden_size)
        self.conv = weights.conv(f"{name}.conv1d.weight", c.conv_dim, c.linear_conv_kernel_dim)
        self.A_log = weights.array(f"{name}.A_log", (self.Hv,), mx.float32)
        self.dt_bias = weights.array(f"{name}.dt_bias", (self.Hv,), mx.float32)
        self.norm = weights.norm(f"{name}.norm.weight", self.Dv)  # ones-centred
        self.out_proj = weights.matrix(f"{name}.out_proj", c.hidden_size, self.Hv * self.Dv)

    def __call__(self, x: mx.array, state: Recurrent) -> mx.array:
        """x [B, T, H] -> [B, T, H]; advances `state`."""
        B, T, _ = x.shape
        qkv = self.convolve(self.in_proj_qkv.linear(x), state)
        q, k, v = mx.split(qkv, [self.Hk * self.Dk, 2 * self.Hk * self.Dk], axis=-1)
        q = l2_norm(q.reshape(B, T, self.Hk, self.Dk)) * self.Dk**-0.5
        k = l2_norm(k.reshape(B, T, self.Hk, self.Dk))
        beta = mx.sigmoid(self.in_proj_b.linear(x).astype(mx.float32))
        # In float32: an error in the log of the decay adds up over the whole context.
        g = -mx.exp(self.A_log) * nn.softplus(self.in_proj_a.linear(x).astype(mx.float32) + self.dt_bias)
        v = v.reshape(B, T, self.Hv, self.Dv)
        if state.trail is None:
            o, state.delta = gated_delta(q, k, v, g, beta, state.delta)
        else:
            o, state.trail.deltas = gated_delta_steps(q, k, v, g, beta, state.delta)
            state.delta = state.trail.deltas[:, -1]
        z = self.in_proj_z.linear(x).reshape(B, T, self.Hv, self.Dv)
        return self.out_proj.linear(self.gated_norm(o, z).astype(x.dtype).reshape(B, T, -1))

    def convolve(self, qkv: mx.array, state: Recurrent) -> mx.array:
        """Depthwise causal convolution and SiLU, float32 [B, T, C]; shifted sums beat mx.conv1d four times over."""
        T, K = qkv.shape[1], self.conv.shape[0]
        seen = mx.concatenate([state.conv, qkv], axis=1)  # [B, K - 1 + T, C]
        state.conv = mx.contiguous(seen[:, -(K - 1) :])
        if state.trail is not None:
            state.trail.inputs = seen
        seen = seen.astype(mx.float32)
        return nn.silu(sum((seen[:, j : j + T] * self.conv[j] for j in range(1, K)), seen[:, :T] * self.conv[0]))

    def gated_norm(self, o: mx.array, z: mx.array) -> mx.array:
        """RMSNorm over each head, then the gate, float32."""
        return mx.fast.rms_norm(o.astype(mx.float32), self.norm, self.eps) * nn.silu(z.astype(mx.float32))


def l2_norm(x: mx.array, eps: float = 1e-6) -> mx.array:
    """x / sqrt(sum x^2 + eps) over the last axis, float32: eps is on the sum, where rms_norm has it on the mean."""
    size = x.shape[-1]
    return mx.fast.rms_norm(x.astype(mx.float32), None, eps / size) * size**-0.5
