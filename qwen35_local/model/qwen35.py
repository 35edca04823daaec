"""Qwen3.5's language model: blocks of three Gated DeltaNet layers and one gated attention layer, each with a MoE."""

import mlx.core as mx

from .attention import Attention
from .config import FULL, TextConfig
from .delta_net import GatedDeltaNet
from .layers import RMSNorm
from .moe import MoE
from .rope import Rope
from .state import State
from .weights import Weights


class Layer:
    """h = x + mixer(norm(x));  y = h + moe(norm(h))"""

    def __init__(self, weights: Weights, name: str, kind: str, c: TextConfig):
        self.input_layernorm = RMSNorm(weights.norm(f"{name}.input_layernorm.weight", c.hidden_size), c.rms_norm_eps)
        self.attention = Attention(weights, f"{name}.self_attn", c) if kind == FULL else None
        self.delta_net = GatedDeltaNet(weights, f"{name}.linear_attn", c) if kind != FULL else None
        self.post_attention_layernorm = RMSNorm(
            weights.norm(f"{name}.post_attention_layernorm.weight", c.hidden_size), c.rms_norm_eps
        )
        self.mlp = MoE(weights, f"{name}.mlp", c)

    def __call__(self, x: mx.array, rotary: tuple[mx.array, mx.array], state) -> mx.array:
        y = self.input_layernorm(x)
        if self.attention is not None:
            h = x + self.attention(y, rotary, state)
        else:
            assert self.delta_net is not None
            h = x + self.delta_net(y, state)
        return h + self.mlp(self.post_attention_layernorm(h))


class Qwen35:
    """Tokens in, hidden states and logits out. All memory of a conversation is in the `State` handed in."""

    def __init__(self, weights: Weights, c: TextConfig):
        self.config = c
        self.dtype = weights.dtype
        self.embed_tokens = weights.matrix("embed_tokens", c.vocab_size, c.hidden_size)
        self.layers: list[Layer] = []
        for i, kind in enumerate(c.layer_types):
            self.layers.append(Layer(weights, f"layers.{i}", kind, c))
            weights.settle()
        self.norm = RMSNorm(weights.norm("norm.weight", c.hidden_size), c.rms_norm_eps)
        tied = c.tie_word_embeddings
        self.lm_head = self.embed_tokens if tied else weights.matrix("lm_head", c.vocab_size, c.hidden_size)
        self.rope = Rope(c.rope)
        weights.settle()

    def new_state(self) -> State:
        return State(self.config, self.dtype)

    def __call__(self, ids: mx.array, state: State) -> mx.array:
        """ids [B, T] -> hidden states after the final norm [B, T, H]; advances `state` by T tokens."""
        T = ids.shape[1]
        start = state.tokens + state.rope_delta
        rotary = self.rope(mx.arange(start, start + T))
        x = self.embed_tokens.rows(ids, self.dtype)
        for layer, layer_state in zip(self.layers, state.layers, strict=True):
            x = layer(x, rotary, layer_state)
            if T > 1:
                mx.async_eval(x)  # a prompt's whole graph at once would hold every layer's temporaries
        state.tokens += T
        return self.norm(x)

    def logits(self, hidden: mx.array) -> mx.array:
        """[..., H] -> float32 [..., V]"""
        return self.lm_head.linear(hidden).astype(mx.float32)
