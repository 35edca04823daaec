"""Mixture of experts: a router, the top experts of each token, and one gated expert that all tokens share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import mlx.core as mx
import mlx.nn as nn

from metal_kernels.expert_bank import ExpertBank
from metal_kernels.expert_mlp import expert_mlp
from metal_kernels.router_topk import router_topk

from .config import TextConfig
from .layers import Matrix
from .weights import Weights


@dataclass(frozen=True, slots=True)
class Routed:
    """Tokens on their way through a mixture: rows [N, H], router logits [N, E], expert ids uint32 [N, K] (ascending)
    with scores float32 [N, K], and what the shared expert says, [N, H]."""

    rows: mx.array
    logits: mx.array
    ids: mx.array
    scores: mx.array
    shared: mx.array


class Experts(Protocol):
    """The routed experts of a layer, wherever their weights are."""

    def expecting(self) -> Callable[[Sequence[int]], None] | None:
        """Who wants to hear which of them a single token may need soon; asked once a token, before the layer before."""
        ...

    def __call__(self, routed: Routed, guess: "Guess | None" = None) -> mx.array:
        """-> [N, H], float32 or in the rows' type. `guess` is about the next layer; experts in memory have no use for
        it."""
        ...


@dataclass(frozen=True, slots=True)
class Guess:
    """Which experts the next layer may need (uint32 [n], to be evaluated), and whom to tell."""

    ids: mx.array
    tell: Callable[[Sequence[int]], None]


class MoE:
    """y = sum over the top K of p_k / sum(p) * expert_k(x) + sigmoid(w x) * shared(x), with p = softmax(router x)."""

    def __init__(self, weights: Weights, name: str, c: TextConfig, experts: Experts | None = None):
        """`experts` are those of this layer if they are streamed; by default they are loaded."""
        self.top_k = c.num_experts_per_tok
        self.router = weights.matrix(f"{name}.gate", c.num_experts, c.hidden_size)
        self.experts = experts or ResidentExperts(
            *weights.experts(name, c.num_experts, c.moe_intermediate_size, c.hidden_size)
        )
        shared = c.shared_expert_intermediate_size
        self.shared_gate = weights.matrix(f"{name}.shared_expert.gate_proj", shared, c.hidden_size)
        self.shared_up = weights.matrix(f"{name}.shared_expert.up_proj", shared, c.hidden_size)
        self.shared_down = weights.matrix(f"{name}.shared_expert.down_proj", c.hidden_size, shared)
        self.shared_expert_gate = weights.matrix(f"{name}.shared_expert_gate", 1, c.hidden_size)

    def route(self, x: mx.array) -> Routed:
        """x [B, T, H], of one block of tokens: what a block computes must not depend on how many blocks there are."""
        rows = x.reshape(-1, x.shape[-1])
        logits = self.router.linear(rows)
        return Routed(rows, logits, *router_topk(logits, self.top_k), self.shared(rows))

    def __call__(self, blocks: Sequence[Routed], guess: Guess | None = None) -> list[mx.array]:
        """The mixture's output [N, H] for each block; the experts see all blocks at once."""
        y = self.experts(joined(blocks), guess).astype(blocks[0].rows.dtype)
        outputs, start = [], 0
        for block in blocks:
            end = start + block.rows.shape[0]
            outputs.append(y[start:end] + block.shared)
            start = end
        return outputs

    def shared(self, x: mx.array) -> mx.array:
        """x [N, H] -> [N, H]"""
        y = self.shared_down.linear(nn.silu(self.shared_gate.linear(x)) * self.shared_up.linear(x))
        return mx.sigmoid(self.shared_expert_gate.linear(x)) * y


class ResidentExperts:
    """All experts in memory, in the order of their ids: gate above up [E, 2I, H] and down [E, H, I]."""

    def __init__(self, gate_up: Matrix, down: Matrix):
        self.bank = ExpertBank(gate_up.stack, down.stack)

    def expecting(self) -> None:
        return None

    def __call__(self, routed: Routed, guess: Guess | None = None) -> mx.array:
        return expert_mlp(routed.rows, routed.ids, routed.scores, self.bank)


def joined(blocks: Sequence[Routed]) -> Routed:
    if len(blocks) == 1:
        return blocks[0]
    columns = zip(*((b.rows, b.logits, b.ids, b.scores, b.shared) for b in blocks), strict=True)
    return Routed(*(mx.concatenate(list(column)) for column in columns))
