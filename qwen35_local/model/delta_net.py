"""Gated DeltaNet: a short convolution, the gated delta rule, a gated norm."""

import mlx.core as mx
import mlx.nn as nn

from metal_kernels.delta_inputs import delta_inputs
from metal_kernels.gated_delta import gated_delta, gated_delta_steps

from .config import TextConfig
from .state import Recurrent
from .weights import Weights


class GatedDeltaNet:
    """Linear attention with Hk query/key heads and Hv value heads; its whole past is one matrix per value head."""

    def __init__(self, weights: Weights, name: str, c: TextConfig):
        self.Hk = c.linear_num_key_heads
        Hv, Dv = c.linear_num_value_heads, c.linear_value_head_dim
        self.eps = c.rms_norm_eps
        self.in_proj_qkv = weights.matrix(f"{name}.in_proj_qkv", c.conv_dim, c.hidden_size)
        self.in_proj_z = weights.matrix(f"{name}.in_proj_z", Hv * Dv, c.hidden_size)
        self.in_proj_b = weights.matrix(f"{name}.in_proj_b", Hv, c.hidden_size)
        self.in_proj_a = weights.matrix(f"{name}.in_proj_a", Hv, c.hidden_size)
        self.conv = weights.conv(f"{name}.conv1d.weight", c.conv_dim, c.linear_conv_kernel_dim)
        self.A_log = weights.array(f"{name}.A_log", (Hv,), mx.float32)
        self.dt_bias = weights.array(f"{name}.dt_bias", (Hv,), mx.float32)
        self.norm = weights.norm(f"{name}.norm.weight", Dv)  # ones-centred
        self.out_proj = weights.matrix(f"{name}.out_proj", c.hidden_size, Hv * Dv)

    def __call__(self, x: mx.array, state: Recurrent) -> mx.array:
        """x [B, T, H] -> [B, T, H]; advances `state`."""
        qkv, a, b = (projection.linear(x) for projection in (self.in_proj_qkv, self.in_proj_a, self.in_proj_b))
        q, k, v, g, beta, past = delta_inputs(qkv, state.conv, self.conv, a, b, self.A_log, self.dt_bias, self.Hk)
        if state.trail is None:
            o, state.delta = gated_delta(q, k, v, g, beta, state.delta)
        else:
            o, state.trail.deltas = gated_delta_steps(q, k, v, g, beta, state.delta)
            state.trail.inputs = mx.concatenate([state.conv, qkv.astype(past.dtype)], axis=1)
            state.delta = state.trail.deltas[:, -1]
        state.conv = past
        return self.gated(o, x)

    def gated(self, o: mx.array, x: mx.array) -> mx.array:
        """o [B, T, Hv, Dv], normalised over each head, gated, projected -> [B, T, H]"""
        z = self.in_proj_z.linear(x).reshape(o.shape)
        y = mx.fast.rms_norm(o.astype(mx.float32), self.norm, self.eps) * nn.silu(z.astype(mx.float32))
        return self.out_proj.linear(y.astype(x.dtype).reshape(*x.shape[:2], -1))
