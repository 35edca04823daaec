"""Mixture of experts: a router, the top experts of each token, and one gated expert that all tokens share."""

import mlx.core as mx
import mlx.nn as nn

from .config import TextConfig
from .layers import Matrix
from .weights import Weights

SORT_FROM = 64  # (token, expert) pairs from which grouping them by expert pays on Metal


class MoE:
    """y = sum over the top K of p_k / sum(p) * expert_k(x) + sigmoid(w x) * shared(x), with p = softmax(router x)."""

    def __init__(self, weights: Weights, name: str, c: TextConfig):
        self.top_k = c.num_experts_per_tok
        self.router = weights.matrix(f"{name}.gate", c.num_experts, c.hidden_size)
        self.gate_up, self.down = weights.experts(name, c.num_experts, c.moe_intermediate_size, c.hidden_size)
        shared = c.shared_expert_intermediate_size
        self.shared_gate = weights.matrix(f"{name}.shared_expert.gate_proj", shared, c.hidden_size)
        self.shared_up = weights.matrix(f"{name}.shared_expert.up_proj", shared, c.hidden_size)
        self.shared_down = weights.matrix(f"{name}.shared_expert.down_proj", c.hidden_size, shared)
        self.shared_expert_gate = weights.matrix(f"{name}.shared_expert_gate", 1, c.hidden_size)

    def __call__(self, x: mx.array) -> mx.array:
        """x [B, T, H] -> [B, T, H]"""
        B, T, H = x.shape
        rows = x.reshape(B * T, H)
        ids, scores = route(self.router.linear(rows), self.top_k)
        y = experts(rows, ids, scores, self.gate_up, self.down)
        return (y + self.shared(rows)).reshape(B, T, H)

    def shared(self, x: mx.array) -> mx.array:
        """x [N, H] -> [N, H]"""
        y = self.shared_down.linear(nn.silu(self.shared_gate.linear(x)) * self.shared_up.linear(x))
        return mx.sigmoid(self.shared_expert_gate.linear(x)) * y


def route(logits: mx.array, top_k: int) -> tuple[mx.array, mx.array]:
    """Router logits [N, E] -> expert ids uint32 [N, K] and weights float32 [N, K] that sum to one.

    In float32, where peers compare rounded probabilities: near ties would be decided by the rounding. The softmax over
    the top logits equals the renormalised softmax over all. Ids ascend, so that sums never depend on a tie's order.
    """
    logits = logits.astype(mx.float32)
    ids = mx.sort(mx.argpartition(-logits, top_k - 1, axis=-1)[:, :top_k], axis=-1)
    return ids, mx.softmax(mx.take_along_axis(logits, ids, axis=-1), axis=-1)


def experts(x: mx.array, ids: mx.array, scores: mx.array, gate_up: Matrix, down: Matrix) -> mx.array:
    """x [N, H] through experts ids [N, K], summed with scores [N, K] -> [N, H]; gate_up [E, 2I, H], down [E, H, I]."""
    N, K = ids.shape
    if N * K < SORT_FROM:
        y = _swiglu(gate_up.gather(x[:, None, None], ids))
        y = down.gather(y, ids)[:, :, 0]  # [N, K, H]
    else:
        order = mx.argsort(ids.flatten())
        by_expert = ids.flatten()[order]
        y = _swiglu(gate_up.gather(x[order // K][:, None], by_expert, sorted_ids=True))
        y = down.gather(y, by_expert, sorted_ids=True)[:, 0]  # [N * K, H]
        y = y[mx.argsort(order)].reshape(N, K, -1)
    return (y * scores[..., None].astype(y.dtype)).sum(axis=1)


def _swiglu(gate_up: mx.array) -> mx.array:
    gate, up = mx.split(gate_up, 2, axis=-1)
    return nn.silu(gate) * up
