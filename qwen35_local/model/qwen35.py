"""Qwen3.5's language model: blocks of three Gated DeltaNet layers and one gated attention layer, each with a MoE."""

from collections.abc import Collection, Generator, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import mlx.core as mx

from .attention import Attention
from .config import FULL, TextConfig
from .delta_net import GatedDeltaNet
from .fusion import Fused
from .kv_format import PLAIN, KvFormat
from .layers import RMSNorm
from .moe import Experts, Guess, MoE, Routed
from .mtp import Mtp
from .rope import Rope
from .state import Recurrent, Snapshot, State
from .weights import Weights

BLOCK = 512  # tokens; bounds the scores of one attention layer to heads * 512 * context floats
T = TypeVar("T")


class Layer:
    """h = x + mixer(norm(x));  y = h + moe(norm(h))"""

    def __init__(self, weights: Weights, name: str, kind: str, c: TextConfig, experts: Experts | None):
        self.input_layernorm = RMSNorm(weights.norm(f"{name}.input_layernorm.weight", c.hidden_size), c.rms_norm_eps)
        self.attention = Attention(weights, f"{name}.self_attn", c) if kind == FULL else None
        self.delta_net = GatedDeltaNet(weights, f"{name}.linear_attn", c) if kind != FULL else None
        self.post_attention_layernorm = RMSNorm(
            weights.norm(f"{name}.post_attention_layernorm.weight", c.hidden_size), c.rms_norm_eps
        )
        self.mlp = MoE(weights, f"{name}.mlp", c, experts)

    def mix(self, x: mx.array, rotary: tuple[mx.array, mx.array], state) -> mx.array:
        """The attention half of one block of tokens [B, T, H]; advances `state`."""
        y = self.input_layernorm(x)
        if self.attention is not None:
            return x + self.attention(y, rotary, state)
        assert self.delta_net is not None
        return x + self.delta_net(y, state)

    def __call__(self, x: mx.array, rotary: tuple[mx.array, mx.array], state) -> mx.array:
        """One block of tokens [B, T, H] through all of the layer; advances `state`."""
        h = self.mix(x, rotary, state)
        (y,) = self.mlp([self.mlp.route(self.post_attention_layernorm(h))])
        return h + y.reshape(h.shape)

    def experts_of(self, h: mx.array) -> mx.array:
        """The experts that this layer's router would take for h [1, 1, H], the residual of the layer before; likeliest
        first, because only some of them are read ahead."""
        logits = self.mlp.router.linear(self.post_attention_layernorm(h)[0])[0]
        return mx.argsort(-logits)[: self.mlp.top_k]


class Qwen35:
    """Tokens in, hidden states and logits out. All memory of a conversation is in the `State` handed in."""

    def __init__(
        self,
        weights: Weights,
        c: TextConfig,
        experts: Sequence[Experts] = (),
        mtp: bool = False,
        kv: KvFormat = PLAIN,
    ):
        """`experts` are the routed experts of every layer, and of the MTP head if there is one more, where they are
        streamed; by default they are loaded. `mtp` loads that head. `kv` is how states keep keys and values."""
        kv.check(c.head_dim)
        self.kv = kv
        self.config = c
        self.dtype = weights.dtype
        self.embed_tokens = weights.matrix("embed_tokens", c.vocab_size, c.hidden_size)
        self.layers: list[Layer] = []
        for i, kind in enumerate(c.layer_types):
            self.layers.append(Layer(weights, f"layers.{i}", kind, c, experts[i] if experts else None))
            weights.settle()
        self.norm = RMSNorm(weights.norm("norm.weight", c.hidden_size), c.rms_norm_eps)
        tied = c.tie_word_embeddings
        self.lm_head = self.embed_tokens if tied else weights.matrix("lm_head", c.vocab_size, c.hidden_size)
        self.rope = Rope(c.rope)
        weights.settle()
        self.mtp: Mtp | None = None
        if mtp:
            last = experts[c.num_layers] if experts else None
            self.mtp = Mtp(weights, c, Layer(weights, "mtp.layers.0", FULL, c, last))

    def new_state(self) -> State:
        return State(self.config, self.dtype, self.kv)

    def __call__(self, ids: mx.array, state: State) -> mx.array:
        """ids [B, T] -> hidden states after the final norm [B, T, H]; advances `state` by T tokens."""
        blocks, _ = drained(self.run(ids, state))
        return self.norm(mx.concatenate(blocks, axis=1) if len(blocks) > 1 else blocks[0])

    def run(
        self,
        ids: mx.array,
        state: State,
        marks: Sequence[int] = (),
        fused: Fused | None = None,
        breaks: Sequence[int] = (),
    ) -> Generator[int, None, tuple[list[mx.array], list[Snapshot]]]:
        """One pass of ids [B, T] through all layers: yields the number of layers done and advances `state` by T tokens.

        Layer by layer over all tokens, so that an expert is needed once; within a layer the mixers go block by block.
        A block begins at every multiple of `BLOCK` after the start or the last of `marks` and `breaks` (offsets in
        1..T-1, and T), so that a pass computes what shorter passes would, to the bit. Returns the residual [B, t, H]
        of each block, and a snapshot of the state at every mark. `fused` says what pictures change. A pass that is not
        run to its end leaves `state` unusable.
        """
        T = ids.shape[1]
        edges = block_edges(T, {*marks, *breaks})
        start = state.tokens + state.rope_delta
        blocks = [self.embed_tokens.rows(ids[:, a:b], self.dtype) for a, b in pairwise(edges)]
        if fused is None:
            rotary = [self.rope(mx.arange(start + a, start + b)) for a, b in pairwise(edges)]
            deltas = dict.fromkeys((*marks, T), state.rope_delta)
        else:
            rotary = [self.rope(mx.array(fused.positions[:, a:b])) for a, b in pairwise(edges)]
            blocks = [fused.embedded(block, a) for block, a in zip(blocks, edges[:-1], strict=True)]
            deltas = {at: int(fused.positions[0, at]) - state.tokens - at for at in (*marks, T)}
        at_marks: dict[int, list[Recurrent]] = {mark: [] for mark in marks}
        for number, (layer, layer_state) in enumerate(zip(self.layers, state.layers, strict=True)):
            routed: list[Routed] = []
            for i, end in enumerate(edges[1:]):
                blocks[i] = layer.mix(blocks[i], rotary[i], layer_state)
                routed.append(layer.mlp.route(layer.post_attention_layernorm(blocks[i])))
                if isinstance(layer_state, Recurrent) and end in at_marks:
                    at_marks[end].append(layer_state.kept())
                if len(edges) > 2:  # bound the temporaries
                    block = routed[-1]
                    mx.eval(blocks[i], block.rows, block.logits, block.ids, block.scores, block.shared)
            outputs = layer.mlp(routed, self._guess(number, blocks[0]) if T == 1 else None)
            blocks = [h + y.reshape(h.shape) for h, y in zip(blocks, outputs, strict=True)]
            # Computes while the next layer's graph is built; a prompt's whole graph would hold all temporaries.
            mx.async_eval(blocks)
            yield number + 1
        snapshots = [
            Snapshot(state.tokens + mark, deltas[mark], tuple(recurrent)) for mark, recurrent in at_marks.items()
        ]
        state.tokens, state.rope_delta = state.tokens + T, deltas[T]
        return blocks, snapshots

    def _guess(self, number: int, h: mx.array) -> Guess | None:
        """What the layer after `number` may need, if it is streamed and looked ahead for."""
        if number + 1 == len(self.layers):
            return None
        tell = self.layers[number + 1].mlp.experts.expecting()
        return None if tell is None else Guess(self.layers[number + 1].experts_of(h), tell)

    def see(self, state: State, hidden: mx.array, ids: Sequence[int]) -> None:
        """Let the MTP head see what the trunk has just computed: hidden [1, T, H] of the newest T of the tokens `ids`.

        It sees all but the last token, whose follower is not known yet.
        """
        assert self.mtp is not None
        tail = hidden if state.tail is None else mx.concatenate([state.tail, hidden], axis=1)
        for start in range(0, tail.shape[1] - 1, BLOCK):
            rows = tail[:, start : min(start + BLOCK, tail.shape[1] - 1)]
            first = state.mtp.length + 1
            followers = mx.array([_tokens(ids[first : first + rows.shape[1]])])
            self.mtp.see(rows, self.embed_tokens.rows(followers, self.dtype), self.rope, state)
            mx.async_eval(state.mtp.arrays)
        state.tail = mx.contiguous(tail[:, -1:])

    def draft(self, state: State, ids: Sequence[int], count: int) -> mx.array:
        """Guess `count` tokens after `ids`, whose last one the trunk has not computed yet: int32 [1, count], lazy."""
        assert self.mtp is not None
        assert state.tail is not None
        start = state.mtp.length
        embedded = self.embed_tokens.rows(mx.array([_tokens(ids[start + 1 :])]), self.dtype)
        if embedded.shape[1] > 1:
            self.mtp.see(state.tail[:, :-1], embedded[:, :-1], self.rope, state)
        hidden = self.mtp(state.tail[:, -1:], embedded[:, -1:], self.rope, state)
        length, guesses = state.mtp.length, []
        while True:
            guesses.append(mx.argmax(self.logits(hidden), axis=-1).astype(mx.int32))
            if len(guesses) == count:
                break
            hidden = self.mtp(hidden, self.embed_tokens.rows(guesses[-1], self.dtype), self.rope, state)
        state.mtp.length = length  # rows of guesses are worth nothing
        return mx.concatenate(guesses, axis=1)

    def logits(self, hidden: mx.array) -> mx.array:
        """[..., H] -> float32 [..., V]"""
        return self.lm_head.linear(hidden).astype(mx.float32)


def _tokens(ids: Sequence[int]) -> list[int]:
    """Ids as rows of the embedding; what stands for parts of a picture is negative and taken as any: guesses suffer."""
    return [max(token, 0) for token in ids]


def block_edges(tokens: int, marks: Collection[int] = (), block: int = BLOCK) -> list[int]:
    """0, then where each block ends: at every mark, and every `block` tokens after 0 or the last mark before."""
    edges = [0]
    for mark in (*sorted(marks), tokens):
        while edges[-1] < mark:
            edges.append(min(edges[-1] + block, mark))
    return edges


def drained(steps: Generator[Any, None, T]) -> T:
    """Run a generator to its end; what it returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
