"""The multi-token head: from a hidden state and the token after it, a guess at the token after that."""

from collections.abc import Container
from typing import Protocol

import mlx.core as mx

from .config import TextConfig
from .layers import RMSNorm
from .rope import Rope
from .state import KeyValues, State
from .weights import Weights


class Layer(Protocol):
    """An attention layer: its first half, which fills keys and values, and all of it."""

    def mix(self, x: mx.array, rotary: tuple[mx.array, mx.array], state: KeyValues) -> mx.array: ...

    def __call__(self, x: mx.array, rotary: tuple[mx.array, mx.array], state: KeyValues) -> mx.array: ...


class Mtp:
    """Row t: x = W [norm_e(embed(token t+1)) | norm_h(h_t)], one attention layer with keys and values of its own, a
    norm; the trunk's lm_head then predicts token t+2. h_t is the trunk's hidden state after its final norm, and for
    further tokens the head's own output. (vLLM's qwen3_5_mtp; rotary position t.)"""

    def __init__(self, weights: Weights, c: TextConfig, layer: Layer):
        """`layer` is `mtp.layers.0`."""
        H, eps = c.hidden_size, c.rms_norm_eps
        self.fc = weights.matrix("mtp.fc", H, 2 * H)
        self.norm_embedding = RMSNorm(weights.norm("mtp.pre_fc_norm_embedding.weight", H), eps)
        self.norm_hidden = RMSNorm(weights.norm("mtp.pre_fc_norm_hidden.weight", H), eps)
        self.layer = layer
        self.norm = RMSNorm(weights.norm("mtp.norm.weight", H), eps)
        weights.settle()

    def __call__(self, hidden: mx.array, embedded: mx.array, rope: Rope, state: State) -> mx.array:
        """hidden [1, T, H] of the T tokens after those that the head has seen, embedded [1, T, H] of their followers
        -> [1, T, H]; appends T rows to `state.mtp`."""
        return self.norm(self.layer(*self._entry(hidden, embedded, rope, state), state.mtp))

    def see(self, hidden: mx.array, embedded: mx.array, rope: Rope, state: State) -> None:
        """Append rows of which nobody asks what follows: keys and values only, so that no expert is read for them."""
        self.layer.mix(*self._entry(hidden, embedded, rope, state), state.mtp)

    def _entry(
        self, hidden: mx.array, embedded: mx.array, rope: Rope, state: State
    ) -> tuple[mx.array, tuple[mx.array, mx.array]]:
        x = mx.concatenate([self.norm_embedding(embedded), self.norm_hidden(hidden)], axis=-1)
        start = state.mtp.length + state.rope_delta
        return self.fc.linear(x), rope(mx.arange(start, start + x.shape[1]))


def has_head(tensors: Container[str]) -> bool:
    """Whether a checkpoint with these tensors (canonical names) has the head."""
    return "mtp.norm.weight" in tensors and "mtp.fc.weight" in tensors
